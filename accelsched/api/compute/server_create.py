# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``POST /servers``: from what a user sends to what is written."""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from oslo_utils import strutils
from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from accelsched import errors, policies, wire
from accelsched.accelerator import profiles
from accelsched.api.compute import passwords
from accelsched.api.compute.microversion import Version
from accelsched.compute import flavors, images, key_pairs, server_groups, zones
from accelsched.compute.servers import Key, NewServers
from accelsched.conf import pci
from accelsched.context import RequestContext
from accelsched.db.compute import Flavor, Host
from accelsched.db.instance_actions import Origin
from accelsched.policies import flavors as flavor_rules
from accelsched.policies import servers as rules
from accelsched.scheduler import request as scheduler_request
from accelsched.scheduler.filters import address, json_query

if TYPE_CHECKING:
    from accelsched.api.services import Services

# What Nova has other services for, or what is not done yet: refused, because a server without it is not what was
# asked for. Empty values ask for nothing.
_REFUSED = {
    "block_device_mapping": "this deployment has no volume service",
    "personality": "files are not injected; use user_data",
    "trusted_image_certificates": "image signatures are not checked by this release",
}


@dataclasses.dataclass(frozen=True)
class _Destination:
    availability_zone: str | None
    host: str | None
    hypervisor_hostname: str | None
    forced: bool  # an operator's ZONE:HOST:NODE, which no filter is asked about


def read(
    body: Mapping[str, Any],
    *,
    context: RequestContext,
    version: Version,
    services: Services,
    image_service: images.Images,
) -> NewServers:
    """Return what to write for a create call, all that it names looked up and found to fit together.

    :param body: of ``POST /servers``, of the version's schema
    :raises accelsched.errors.InvalidError: when it asks for what cannot be had
    :raises accelsched.errors.ForbiddenError: when it asks for what is for operators only
    :raises accelsched.errors.UnavailableError: when the image service does not answer
    """
    wanted = body["server"]
    _refuse(wanted)
    min_count, max_count = counts(wanted, services.conf.api.max_servers_per_request)
    user_data = check_user_data(wanted.get("user_data"))
    hints = body.get("os:scheduler_hints", body.get("OS-SCH-HNT:scheduler_hints", {}))
    project_id = context.project_id or ""
    _check_block_devices(wanted.get("block_device_mapping_v2", []), last_part(wanted.get("imageRef", "")))
    networks = _networks(wanted.get("networks", []))
    order = look_up(
        wanted, hints, project_id=project_id, context=context, services=services, image_service=image_service
    )
    flavor, image = order.flavor, order.spec.image
    with services.db.reading() as session:
        key = find_key(session, context.user_id or "", wanted.get("key_name"))
    return NewServers(
        project_id=project_id,
        user_id=context.user_id or "",
        name=wanted["name"],
        metadata=wanted.get("metadata", {}),
        flavor={
            **order.spec.flavor,
            "id": flavor.flavorid,
            "ephemeral_gb": flavor.ephemeral_gb,
            "swap_mb": flavor.swap_mb,
        },
        image=dict(image) if image is not None else None,
        user_data=user_data,
        key=key,
        description=wanted.get("description"),
        hostname=wanted.get("hostname"),
        access_ip_v4=wanted.get("accessIPv4") or None,
        access_ip_v6=wanted.get("accessIPv6") or None,
        auto_disk_config=wanted.get("OS-DCF:diskConfig") == "AUTO",
        tags=list(dict.fromkeys(wanted.get("tags", []))),
        config_drive=_flag(wanted.get("config_drive", False)),
        networks=networks,
        admin_pass=passwords.given_or_made(wanted, services.conf),
        spec=order.spec.to_dict(),
        min_count=min_count,
        max_count=max_count,
        origin=Origin.of(context),
        group_uuid=hints.get("group"),
    )


@dataclasses.dataclass(frozen=True)
class Order:
    """What is asked of the scheduler, and the flavor that says so."""

    flavor: Flavor
    spec: scheduler_request.RequestSpec


def look_up(
    wanted: Mapping[str, Any],
    hints: Mapping[str, Any],
    *,
    project_id: str,
    context: RequestContext,
    services: Services,
    image_service: images.Images | None,
    extra_specs: Mapping[str, str] | None = None,
) -> Order:
    """Return what to ask of the scheduler, all that is named looked up and found to fit together.

    :param wanted: ``flavorRef``, and when given ``imageRef``, ``availability_zone``, ``host`` and
        ``hypervisor_hostname``, as in the body of a create call
    :param project_id: whose the servers are to be
    :param image_service: None when no image matters
    :param extra_specs: in place of the flavor's of the same keys, or beside them
    :raises accelsched.errors.InvalidError: when it asks for what cannot be had
    :raises accelsched.errors.ForbiddenError: when it asks for what is for operators only
    :raises accelsched.errors.UnavailableError: when the image service does not answer
    """
    destination = _destination(wanted, context, services)
    with services.db.reading() as session:
        flavor = _flavor(session, last_part(str(wanted["flavorRef"])), context, services)
        _check_destination(session, destination, services.conf.default_availability_zone)
        _check_group(session, hints.get("group"), project_id)
        asked = profiles.expanded(session, {**flavor.extra_specs, **(extra_specs or {})})
    if flavor.ephemeral_gb or flavor.swap_mb:
        raise errors.InvalidError(f"Flavor {flavor.name} asks for an ephemeral or swap disk, which is not made yet")
    image_id = last_part(wanted.get("imageRef", ""))
    image = None if image_service is None else find_image(image_id, context, services, image_service)
    flavor_spec: wire.FlavorSpec = {
        "name": flavor.name,
        "vcpus": flavor.vcpus,
        "ram_mb": flavor.ram_mb,
        "disk_gb": flavor.disk_gb,
        "extra_specs": asked,
    }
    if image is not None:
        images.check_fits(image, flavor_spec)
    spec = scheduler_request.build(
        flavor_spec,
        image,
        project_id=project_id,
        availability_zone=destination.availability_zone or services.conf.default_schedule_zone,
        host=destination.host,
        hypervisor_hostname=destination.hypervisor_hostname,
        forced=destination.forced,
        hints=hints,
        aliases=pci.aliases(services.conf),
    )
    # A hint that makes no sense is refused now, not by the filter that reads it.
    json_query.parse(spec.hints.get("query"))
    address.network(spec)
    return Order(flavor, spec)


def wants_reservation(body: Mapping[str, Any]) -> bool:
    """Tell whether the answer is to be the reservation's id instead of the first server's."""
    return _flag(body["server"].get("return_reservation_id", False))


def _flag(value: bool | str) -> bool:
    return bool(strutils.bool_from_string(value))


def _refuse(wanted: Mapping[str, Any]) -> None:
    for key, why in _REFUSED.items():
        if wanted.get(key):
            raise errors.InvalidError(f"Invalid input for field/attribute server.{key}: {why}.")
    for group in wanted.get("security_groups", []):
        if group.get("name") != "default":
            raise errors.InvalidError(f"Security group {group.get('name')} not found: there is no network service.")


def counts(wanted: Mapping[str, Any], most: int) -> tuple[int, int]:
    """Return ``min_count`` and ``max_count`` of a create call.

    :param most: servers in one call
    :raises accelsched.errors.InvalidError: when they make no sense, or are too many
    """
    low = int(wanted.get("min_count", 1))
    high = int(wanted.get("max_count", low))
    if low < 1 or high < 1:
        raise errors.InvalidError("min_count and max_count must be at least 1")
    if low > high:
        raise errors.InvalidError("min_count must be <= max_count")
    if high > most:
        raise errors.InvalidError(f"max_count {high} is above the {most} that this deployment allows in one request")
    return low, high


def check_user_data(text: str | None) -> str | None:
    """Return user data that is base64.

    :raises accelsched.errors.InvalidError: when it is not
    """
    if text is None:
        return None
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise errors.InvalidError("Invalid input for field/attribute server.user_data: it is not base64.") from exc
    return text


def last_part(reference: str) -> str:
    """Return the id of a reference, which may be a whole URL."""
    return reference.rstrip("/").rpartition("/")[2]


def _destination(wanted: Mapping[str, Any], context: RequestContext, services: Services) -> _Destination:
    host, hypervisor = wanted.get("host"), wanted.get("hypervisor_hostname")
    if host or hypervisor:
        policies.require(services.enforcer, context, "compute:servers:create:requested_destination")
    zone, *forced = (wanted.get("availability_zone") or "").split(":")
    if forced:
        if host or hypervisor:
            raise errors.InvalidError("availability_zone names a host, and so does host or hypervisor_hostname")
        if len(forced) > 2:
            raise errors.InvalidError("Invalid availability_zone: it is ZONE, ZONE:HOST or ZONE:HOST:NODE")
        policies.require(services.enforcer, context, rules.SERVERS + "create:forced_host")
        host = forced[0] or None
        hypervisor = forced[1] or None if len(forced) == 2 else None
    return _Destination(zone or None, host, hypervisor, bool(forced))


def _check_destination(session: Session, destination: _Destination, default_zone: str) -> None:
    zone = destination.availability_zone
    if zone is not None and zone not in zones.available(session, default_zone):
        raise errors.InvalidError("The requested availability zone is not available")
    if destination.host and not session.scalar(select(exists().where(Host.name == destination.host))):
        raise errors.InvalidError(f"Compute host {destination.host} could not be found.")
    if destination.hypervisor_hostname:
        hostname = Host.hypervisor["hostname"].as_string()
        if not session.scalar(select(exists().where(hostname == destination.hypervisor_hostname))):
            raise errors.InvalidError(f"Compute host {destination.hypervisor_hostname} could not be found.")


def _check_group(session: Session, group_uuid: str | None, project_id: str) -> None:
    if group_uuid is None:
        return
    try:
        server_groups.get(session, group_uuid, project_id=project_id)
    except errors.NotFoundError as exc:
        raise errors.InvalidError(str(exc)) from exc


def find_key(session: Session, user_id: str, name: str | None) -> Key | None:
    """Return a user's key pair by its name; None when none is asked for.

    :raises accelsched.errors.InvalidError: when there is none of that name
    """
    if name is None:
        return None
    try:
        pair = key_pairs.get(session, user_id, name)
    except errors.NotFoundError as exc:
        raise errors.InvalidError("Invalid key_name provided.") from exc
    return Key(pair.name, pair.public_key)


def _check_block_devices(devices: list[Mapping[str, Any]], image_id: str) -> None:
    """Let pass what says the same as imageRef; python-openstackclient sends both."""
    for device in devices:
        boots_image = (
            device.get("source_type") == "image"
            and device.get("destination_type", "local") == "local"
            and str(device.get("boot_index", 0)) == "0"
        )
        if not boots_image:
            raise errors.InvalidError(
                "Block Device Mapping is Invalid: this deployment has no volume service; "
                "a server's only disk is its image's (source_type image, destination_type local, boot_index 0)."
            )
        if device.get("uuid") != image_id:
            raise errors.InvalidError("Block Device Mapping is Invalid: its image is not imageRef's.")


def _networks(networks: list[Mapping[str, Any]] | Literal["none", "auto"]) -> Literal["none", "auto"]:
    """Return which networks a server is to be on. None named, and it is not said that it shall be on none: as in Nova
    that is left to the deployment."""
    if isinstance(networks, str):
        return networks
    for network in networks:
        what = "Port" if network.get("port") else "Network"
        name = network.get("port") or network.get("uuid") or ""
        raise errors.InvalidError(
            f"{what} {name} could not be found: there is no network service; use 'auto' or 'none'."
        )
    return "auto"


def _flavor(session: Session, flavorid: str, context: RequestContext, services: Services) -> Flavor:
    sees_all = policies.allowed(services.enforcer, context, flavor_rules.ACCESS, {})
    try:
        flavor = flavors.get(session, flavorid, visible_to=None if sees_all else context.project_id or "")
    except errors.NotFoundError as exc:
        raise errors.InvalidError(str(exc)) from exc
    if flavor.disabled:
        raise errors.InvalidError(f"Flavor {flavorid} could not be found.")
    return flavor


def find_image(
    image_id: str, context: RequestContext, services: Services, image_service: images.Images
) -> wire.ImageSpec | None:
    """Return an image as its user may see it; None where there are no images at all.

    :raises accelsched.errors.InvalidError: when there is no such image
    :raises accelsched.errors.UnavailableError: when the image service does not answer
    """
    if image_id:
        token = context.auth_token if services.conf.api.auth_strategy == "keystone" else None
        return image_service.get(image_id, token)
    if image_service.configured:
        raise errors.InvalidError("Invalid imageRef provided.")
    # Where there are no images at all (simulated fleets), a server has none.
    return None
