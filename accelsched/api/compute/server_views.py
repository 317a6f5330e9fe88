# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers as answers show them, by microversion."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from accelsched import names
from accelsched.accelerator import profiles
from accelsched.api.compute import flavor_views
from accelsched.api.compute.microversion import Version
from accelsched.compute import devices, hostnames, hosts, states
from accelsched.compute.servers import Shown
from accelsched.db.compute import Server, as_iso

# Statuses under which Nova shows how far something is.
_PROGRESSING = frozenset({"ACTIVE", "BUILD"})
# How the keys begin that were extensions' once: until 2.75 answers to changes do without them.
_NOT_OF_CHANGED = ("OS-EXT-", "OS-SRV-USG:", "config_drive", "host_status", "key_name", "os-extended-volumes:")


@dataclasses.dataclass(frozen=True)
class Reader:
    """For whom servers are shown, and what policy lets them see."""

    prefix: str  # of the service, in links
    version: Version
    extended: bool  # os-extended-server-attributes
    host_status: bool
    extra_specs: bool
    service_down_s: int
    default_zone: str


def links(prefix: str, uuid: str, part: str = "") -> list[dict[str, str]]:
    """Return the links of a server, or of a part of it."""
    bookmark = prefix.removesuffix("/v2.1")
    return [
        {"rel": "self", "href": f"{prefix}/servers/{uuid}{part}"},
        {"rel": "bookmark", "href": f"{bookmark}/servers/{uuid}{part}"},
    ]


def brief(shown: Shown, reader: Reader) -> dict[str, Any]:
    """Return what a list without details shows."""
    server = shown.server
    return {"id": server.uuid, "name": server.name, "links": links(reader.prefix, server.uuid)}


def full(shown: Shown, reader: Reader, *, groups: Sequence[str] | None = None) -> dict[str, Any]:
    """Return everything that a reader's version shows of a server.

    :param groups: uuids of the server groups that it is in; None in lists, which do not show them
    """
    server, minor = shown.server, reader.version.minor
    state = states.of(server)
    view: dict[str, Any] = {
        "id": server.uuid,
        "name": server.name,
        "status": state.status,
        "tenant_id": server.project_id,
        "user_id": server.user_id,
        "metadata": dict(server.metadata_),
        "hostId": names.host_alias(server.project_id, server.host or ""),
        "image": _image(server, reader),
        "flavor": _flavor(server, reader),
        "created": as_iso(server.created_at),
        "updated": as_iso(server.updated_at),
        "addresses": addresses(server, detailed=True),
        "accessIPv4": server.access_ip_v4 or "",
        "accessIPv6": server.access_ip_v6 or "",
        "links": links(reader.prefix, server.uuid),
        "OS-DCF:diskConfig": "AUTO" if server.auto_disk_config else "MANUAL",
        "OS-EXT-AZ:availability_zone": _zone(shown, reader.default_zone),
        "config_drive": "True" if server.config_drive else "",
        "key_name": server.key_name,
        "OS-SRV-USG:launched_at": _precise(server.launched_at),
        "OS-SRV-USG:terminated_at": _precise(server.deleted_at),
        "OS-EXT-STS:task_state": state.task_state,
        "OS-EXT-STS:vm_state": state.vm_state,
        "OS-EXT-STS:power_state": state.power_state,
        "os-extended-volumes:volumes_attached": [],
    }
    if state.status in _PROGRESSING:
        view["progress"] = 0
    if fault := _fault(shown, state.status, detailed=reader.extended):
        view["fault"] = fault
    if reader.extended:
        view |= _extended(shown, minor)
    if minor >= 9:
        view["locked"] = server.locked_by is not None
    if minor >= 16 and reader.host_status:
        view["host_status"] = _host_status(shown, reader.service_down_s)
    if minor >= 19:
        view["description"] = server.description
    if minor >= 26:
        view["tags"] = list(shown.tags)
    if minor >= 63:
        view["trusted_image_certificates"] = None
    if minor >= 71 and groups is not None:
        view["server_groups"] = list(groups)
    if minor >= 73:
        view["locked_reason"] = server.locked_reason
    if minor >= 90:
        view["OS-EXT-SRV-ATTR:hostname"] = _hostname(server)
    if minor >= 96:
        view["pinned_availability_zone"] = shown.availability_zone
    return view


def changed(shown: Shown, reader: Reader, *, groups: Sequence[str], rebuilt: bool = False) -> dict[str, Any]:
    """Return what the answers to PUT and to ``rebuild`` show of a server: everything, from 2.75 on."""
    view, minor = full(shown, reader, groups=groups), reader.version.minor
    if minor < 75:
        kept = {"key_name"} if rebuilt and minor >= 54 else set()
        view = {key: value for key, value in view.items() if key in kept or not key.startswith(_NOT_OF_CHANGED)}
        view["addresses"] = addresses(shown.server, detailed=False)
    return {**view, "user_data": shown.server.user_data} if rebuilt and minor >= 57 else view


def addresses(server: Server, *, detailed: bool) -> dict[str, list[dict[str, Any]]]:
    """Return the IP addresses that a server is known to have, by network.

    :param detailed: with what kind they are, and the MAC address of their interface
    """
    if server.network is None or server.host is None:
        return {}
    beside = {"OS-EXT-IPS:type": "fixed", "OS-EXT-IPS-MAC:mac_addr": names.mac_address(server.uuid)}
    known = [
        {"version": version, "addr": address} | (beside if detailed else {})
        for version, address in ((4, server.ip_v4), (6, server.ip_v6))
        if address is not None
    ]
    return {server.network: known} if known else {}


def _hostname(server: Server) -> str:
    return server.hostname or hostnames.of_name(server.name, server.uuid)


def _image(server: Server, reader: Reader) -> dict[str, Any] | str:
    if server.image is None:
        return ""
    image_id = server.image["id"]
    bookmark = reader.prefix.removesuffix("/v2.1")
    return {"id": image_id, "links": [{"rel": "bookmark", "href": f"{bookmark}/images/{image_id}"}]}


def _flavor(server: Server, reader: Reader) -> dict[str, Any]:
    flavor = server.flavor
    if reader.version.minor < 47:
        return {"id": flavor["id"], "links": flavor_views.links(reader.prefix, flavor["id"])[1:]}
    shown = {
        "vcpus": flavor["vcpus"],
        "ram": flavor["ram_mb"],
        "disk": flavor["disk_gb"],
        "ephemeral": flavor.get("ephemeral_gb", 0),
        "swap": flavor.get("swap_mb", 0),
        "original_name": flavor["name"],
    }
    if reader.extra_specs:
        shown["extra_specs"] = profiles.written(flavor["extra_specs"])
    return shown


def _zone(shown: Shown, default: str) -> str:
    if shown.server.host is None:
        return shown.availability_zone or ""
    return shown.host_zone or default


def _fault(shown: Shown, status: str, *, detailed: bool) -> dict[str, Any] | None:
    """Return what is wrong with a server: its own fault where Nova shows it, else its devices', whatever it does."""
    server = shown.server
    fault: Mapping[str, Any] | None = server.fault if status in ("ERROR", "DELETED") else None
    if not fault and status != "DELETED":
        fault = _device_fault(devices.faults_of(server, shown.host))
    if not fault:
        return None
    view = {
        "code": fault.get("code", 500),
        "created": fault.get("created", as_iso(server.updated_at)),
        "message": fault.get("message", ""),
    }
    if detailed and fault.get("details"):
        view["details"] = fault["details"]
    return view


def _device_fault(faults: Sequence[devices.Fault]) -> dict[str, Any] | None:
    """Return devices' faults as one. Names of devices have their host's name in them, so they are among the details."""
    if not faults:
        return None
    return {
        "created": min(fault.since for fault in faults),
        "message": "; ".join(
            f"{' and '.join(sorted(fault.resources))} of resource provider {fault.provider_uuid} {fault.reason}"
            for fault in faults
        ),
        "details": "\n".join(sorted({f"{fault.provider_name} {fault.reason}" for fault in faults})),
    }


def _extended(shown: Shown, minor: int) -> dict[str, Any]:
    server = shown.server
    view: dict[str, Any] = {
        "OS-EXT-SRV-ATTR:host": server.host,
        "OS-EXT-SRV-ATTR:hypervisor_hostname": shown.host.hypervisor["hostname"] if shown.host else None,
        "OS-EXT-SRV-ATTR:instance_name": f"accelsched-{server.uuid}",
    }
    if minor >= 3:
        properties = (server.image or {}).get("properties", {})
        view |= {
            "OS-EXT-SRV-ATTR:hostname": _hostname(server),
            "OS-EXT-SRV-ATTR:kernel_id": properties.get("kernel_id", ""),
            "OS-EXT-SRV-ATTR:launch_index": server.launch_index,
            "OS-EXT-SRV-ATTR:ramdisk_id": properties.get("ramdisk_id", ""),
            "OS-EXT-SRV-ATTR:reservation_id": shown.reservation_id,
            "OS-EXT-SRV-ATTR:root_device_name": "/dev/vda",
            "OS-EXT-SRV-ATTR:user_data": server.user_data,
        }
    return view


def _host_status(shown: Shown, service_down_s: int) -> str:
    host = shown.host
    if host is None:
        return ""
    if host.forced_down:
        return "DOWN"
    if not hosts.is_up(host, service_down_s):
        return "UNKNOWN"
    return "MAINTENANCE" if host.disabled else "UP"


def _precise(when: datetime.datetime | None) -> str | None:
    return None if when is None else when.strftime("%Y-%m-%dT%H:%M:%S.%f")
