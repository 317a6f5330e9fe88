# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Stories told by openstacksdk: its compute, placement and image calls, as programs make them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from stack.acceptance.run import Run
from stack.demonstration import FLAVOR, IMAGE

_PATIENCE_S = 420


def compute(run: Run) -> None:
    """Flavors, hosts, quotas and a server's life."""
    operator, user = run.sdk(), run.sdk(user=True)
    _flavors(run, operator.compute, user)
    _surroundings(run, operator, user)
    with _server(run, user) as server:
        _said(run, user.compute, server)
        _ordered(run, user.compute, server)
        _pictured(run, user, server)
    run.until(lambda: run.domains.power(server.id) == "none", "the domain is gone")


def placement(run: Run) -> None:
    """A provider with all that hangs on it, and an allocation."""
    books = run.sdk().placement
    name = f"acceptance-{uuid.uuid4().hex[:8]}"
    with run.command("sdk placement: resource providers", vital=True):
        provider = books.create_resource_provider(name=name)
        assert books.find_resource_provider(name).id == provider.id
        assert provider.id in {one.id for one in books.resource_providers()}
    with run.command("sdk placement: resource classes and traits"):
        books.create_resource_class(name="CUSTOM_ACCEPTANCE")
        assert "CUSTOM_ACCEPTANCE" in {one.name for one in books.resource_classes()}
        books.create_trait("CUSTOM_ACCEPTANCE")
        assert "CUSTOM_ACCEPTANCE" in {trait.id for trait in books.traits()}
    with run.command("sdk placement: inventories"):
        books.create_resource_provider_inventory(provider, "CUSTOM_ACCEPTANCE", total=4)
        assert [one.total for one in books.resource_provider_inventories(provider)] == [4]
    with run.command("sdk placement: aggregates"):
        aggregate = str(uuid.uuid4())
        books.set_resource_provider_aggregates(books.get_resource_provider(provider.id), aggregate)
        assert books.get_resource_provider_aggregates(provider.id).aggregates == [aggregate]
    with run.command("sdk placement: what was made is removed"):
        books.delete_resource_provider_inventory("CUSTOM_ACCEPTANCE", provider)
        books.delete_resource_provider(provider)
        books.delete_resource_class("CUSTOM_ACCEPTANCE")
        books.delete_trait("CUSTOM_ACCEPTANCE")
        assert books.find_resource_provider(name) is None


def image(run: Run) -> None:
    """An image of one's own, uploaded, described, read and deleted: Glance's, beside the service's."""
    library = run.sdk(user=True).image
    data = b"acceptance" * 100
    with run.command("sdk image: create_image", vital=True):
        path = run.directory / "image"
        path.write_bytes(data)
        made = library.create_image(
            "acceptance-sdk", filename=str(path), disk_format="raw", container_format="bare", wait=True
        )
    with run.command("sdk image: find, list, get"):
        assert library.find_image("acceptance-sdk").id == made.id
        assert made.id in {one.id for one in library.images()}
        assert library.get_image(made.id).size == len(data)
    with run.command("sdk image: update, tags"):
        library.update_image(made.id, min_disk=1)
        library.add_tag(made.id, "acceptance")
        assert (library.get_image(made.id).min_disk, library.get_image(made.id).tags) == (1, ["acceptance"])
    with run.command("sdk image: download_image"):
        assert library.download_image(made.id).content == data
    with run.command("sdk image: delete_image"):
        library.delete_image(made.id)
        assert library.find_image("acceptance-sdk") is None


def _flavors(run: Run, compute_: Any, user: Any) -> None:
    name = "acceptance.sdk"
    with run.command("sdk compute: create_flavor"):
        flavor = compute_.create_flavor(name=name, ram=128, vcpus=1, disk=1, is_public=False)
        assert compute_.find_flavor(name).id == flavor.id
    with run.command("sdk compute: flavor extra specs"):
        compute_.create_flavor_extra_specs(flavor, {"resources:VGPU": "1"})
        compute_.update_flavor_extra_specs_property(flavor, "resources:VGPU", "2")
        assert compute_.fetch_flavor_extra_specs(flavor).extra_specs == {"resources:VGPU": "2"}
    with run.command("sdk compute: flavor access"):
        assert user.compute.find_flavor(name) is None
        compute_.flavor_add_tenant_access(flavor, user.current_project_id)
        assert [one["tenant_id"] for one in compute_.get_flavor_access(flavor)] == [user.current_project_id]
        assert name in {one.name for one in user.compute.flavors()}
        compute_.flavor_remove_tenant_access(flavor, user.current_project_id)
    with run.command("sdk compute: delete_flavor"):
        compute_.delete_flavor(flavor)
        assert compute_.find_flavor(name) is None


def _surroundings(run: Run, operator: Any, user: Any) -> None:
    compute_ = operator.compute
    with run.command("sdk compute: hypervisors, services, zones"):
        (host, *_) = compute_.hypervisors(details=True)
        assert compute_.find_hypervisor(host.name).id == host.id
        assert "nova-compute" in {service.binary for service in compute_.services()}
        assert [zone.name for zone in user.compute.availability_zones()]
    with run.command("sdk compute: aggregates"):
        aggregate = compute_.create_aggregate(name="acceptance-sdk")
        compute_.add_host_to_aggregate(aggregate, host.name)
        compute_.set_aggregate_metadata(aggregate, {"ssd": "true"})
        shown = compute_.get_aggregate(aggregate.id)
        assert (shown.hosts, shown.metadata["ssd"]) == ([host.name], "true")
        compute_.remove_host_from_aggregate(aggregate, host.name)
        compute_.delete_aggregate(aggregate)
    with run.command("sdk compute: key pairs, server groups"):
        pair = user.compute.create_keypair(name="acceptance-sdk")
        assert "acceptance-sdk" in {one.name for one in user.compute.keypairs()}
        user.compute.delete_keypair(pair)
        group = user.compute.create_server_group(name="acceptance-sdk", policy="soft-anti-affinity")
        assert user.compute.find_server_group("acceptance-sdk").id == group.id
        user.compute.delete_server_group(group)
    with run.command("sdk compute: quotas, limits, usage"):
        project = user.current_project_id
        compute_.update_quota_set(project, cores=9)
        assert compute_.get_quota_set(project).cores == 9
        assert user.compute.get_limits().absolute.total_cores == 9
        compute_.revert_quota_set(project)
        assert list(compute_.usages())


@contextmanager
def _server(run: Run, user: Any) -> Iterator[Any]:
    made: list[Any] = []
    try:
        with run.command("sdk compute: create_server", vital=True):
            server = user.compute.create_server(
                name="acceptance-sdk",
                flavor_id=user.compute.find_flavor(FLAVOR).id,
                image_id=user.image.find_image(IMAGE).id,
                networks="none",
                config_drive=True,
            )
            made.append(server)
            assert len(server.admin_password) == 12
            user.compute.wait_for_server(server, wait=_PATIENCE_S)
            assert run.domains.power(server.id) == "running"
            run.until(lambda: run.domains.starts(server.id) == 1, "the guest boots")
        yield server
    finally:
        for server in made:
            with run.command("sdk compute: delete_server"):
                user.compute.delete_server(server)
                user.compute.wait_for_delete(server, wait=_PATIENCE_S)


def _said(run: Run, compute_: Any, server: Any) -> None:
    with run.command("sdk compute: servers, find_server, get_server"):
        assert [one.id for one in compute_.servers(name="^acceptance-sdk$")] == [server.id]
        assert compute_.find_server("acceptance-sdk").id == server.id
        assert compute_.get_server(server.id).vm_state == "active"
    with run.command("sdk compute: update_server, metadata, tags"):
        compute_.update_server(server, name="acceptance-sdk-2")
        compute_.set_server_metadata(server, role="test")
        compute_.add_tag_to_server(server, "sdk")
        shown = compute_.get_server(server.id)
        assert (shown.name, shown.metadata, shown.tags) == ("acceptance-sdk-2", {"role": "test"}, ["sdk"])
        compute_.delete_server_metadata(server, ["role"])
        compute_.remove_tags_from_server(server)
    with run.command("sdk compute: console, ips, interfaces, volumes"):
        assert "accelsched-guest: ready" in compute_.get_server_console_output(server)["output"]
        for nothing in (compute_.server_ips, compute_.server_interfaces, compute_.volume_attachments):
            assert list(nothing(server)) == []


def _ordered(run: Run, compute_: Any, server: Any) -> None:
    orders: tuple[tuple[str, Callable[[], Any], str, str], ...] = (
        ("stop_server", lambda: compute_.stop_server(server), "SHUTOFF", "off"),
        ("start_server", lambda: compute_.start_server(server), "ACTIVE", "running"),
        ("pause_server", lambda: compute_.pause_server(server), "PAUSED", "paused"),
        ("unpause_server", lambda: compute_.unpause_server(server), "ACTIVE", "running"),
        ("suspend_server", lambda: compute_.suspend_server(server), "SUSPENDED", "saved"),
        ("resume_server", lambda: compute_.resume_server(server), "ACTIVE", "running"),
        ("reboot_server", lambda: compute_.reboot_server(server, "HARD"), "ACTIVE", "running"),
        ("rebuild_server", lambda: compute_.rebuild_server(server, _image_of(compute_, server)), "ACTIVE", "running"),
    )
    for name, order, status, power in orders:
        with run.command(f"sdk compute: {name}"):
            order()
            run.until(lambda: _settled(compute_, server) == status, f"status {status}")  # noqa: B023 - called now
            assert run.domains.power(server.id) == power
    with run.command("sdk compute: lock_server, unlock_server"):
        compute_.lock_server(server, locked_reason="acceptance")
        assert compute_.get_server(server.id).is_locked
        compute_.unlock_server(server)
    with run.command("sdk compute: server_actions"):
        assert {"create", "stop", "start", "rebuild"} <= {one.action for one in compute_.server_actions(server)}


def _pictured(run: Run, user: Any, server: Any) -> None:
    with run.command("sdk compute: create_server_image"):
        made = user.compute.create_server_image(server, "acceptance-sdk-image", wait=True, timeout=_PATIENCE_S)
        assert user.image.get_image(made.id).status == "active"
        user.image.delete_image(made.id)


def _image_of(compute_: Any, server: Any) -> str:
    return str(compute_.get_server(server.id).image.id)


def _settled(compute_: Any, server: Any) -> str:
    shown = compute_.get_server(server.id)
    return "" if shown.task_state else str(shown.status)
