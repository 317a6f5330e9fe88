# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Live migration between two libvirtds with QEMU, each with an agent; they take each other for another machine's."""

from __future__ import annotations

import base64
import contextlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import libvirt_pair
import pytest
from lxml import etree
from stack import guest as guests

from accelsched import errors
from accelsched.agent.virt.libvirt import sending, storage
from accelsched.agent.virt.libvirt.domain import NAMESPACE

TICK = re.compile(r"tick at ([\d.]+) s")


@pytest.fixture(scope="module")
def pair() -> Iterator[Any]:
    with libvirt_pair.running() as two:
        yield two


@pytest.fixture
def confs(pair: Any, tmp_path: Path, options_for: Callable[..., Any], images: Any) -> Iterator[list[Any]]:
    """Options of the agents of two hosts."""
    nodes, uri = pair
    made = []
    for node in nodes:
        state = Path("/var/tmp") / f"accelsched-test-{tmp_path.parent.name}-{tmp_path.name}-{node.name}"
        conf = options_for(state, device_drivers=["simulated"], host=node.name)
        for name, value in {
            "virt_type": "qemu",
            "connection_uri": node.uri,
            "live_migration_uri": uri,
            "live_migration_inbound_addr": node.address,
        }.items():
            conf.set_override(name, value, group="libvirt")
        conf.set_override("endpoint_override", images.url, group="glance")
        made.append(conf)
    yield made
    for node, conf in zip(nodes, made, strict=True):
        connection = libvirt.open(node.uri)
        for domain in connection.listAllDomains():
            if domain.isActive():
                domain.destroy()
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
        connection.close()
        shutil.rmtree(conf.state_path)


@pytest.fixture(scope="session")
def guest() -> guests.Guest:
    return guests.build()


def ticks(agent: Any, host: str, uuid: str) -> list[float]:
    """Return the uptimes that a guest has told."""
    try:
        output = agent._hosts[host].virt.console_output(uuid)
    except errors.NotFoundError:  # not begun yet
        return []
    return [float(at) for at in TICK.findall(output)]


def domains(node: Any) -> dict[str, bool]:
    """Return the domains of a host, and whether each runs."""
    connection = libvirt.open(node.uri)
    try:
        return {domain.UUIDString(): bool(domain.isActive()) for domain in connection.listAllDomains()}
    finally:
        connection.close()


class Scene:
    """A server that runs on the first host, and what is wanted of it."""

    def __init__(self, pair: Any, confs: Any, images: Any, guest: guests.Guest, assignment_for: Any) -> None:
        (self.here, self.there), _ = pair
        kernel = images.add(guest.kernel.read_bytes(), "aki")
        ramdisk = images.add(guest.ramdisk.read_bytes(), "ari")
        named = {"kernel_id": kernel["id"], "ramdisk_id": ramdisk["id"], "os_command_line": guest.command_line}
        image = images.add(guest.disk.read_bytes(), "qcow2", **named)
        user_data = base64.b64encode(b"#tick\n").decode()
        self.server = assignment_for("node1", image=image, user_data=user_data, config_drive=True)
        self.server["flavor"]["disk_gb"] = 1
        self.server["leaving"] = True  # the destination's agent may ask
        self.uuid = self.server["server_uuid"]
        self.files = [Path(conf.state_path) / "instances" / self.uuid for conf in confs]

    def coming(self, first: Any) -> Any:
        incoming = {"host": "node1", "agent": first.queue}
        return {**self.server, "host": "node2", "incarnation": 2, "incoming": incoming}

    def away(self, second: Any, **live: Any) -> Any:
        to = {"host": "node2", "agent": second.queue, **live}
        return {**self.server, "order": {"number": 1, "power": "away", "reboot": None, "live": to}}

    def arrived(self, **order: Any) -> Any:
        order = {"number": 2, "power": "running", "reboot": None, **order}
        return {**self.server, "host": "node2", "incarnation": 2, "order": order}


@pytest.fixture
def scene(pair: Any, confs: Any, images: Any, guest: guests.Guest, assignment_for: Any) -> Scene:
    return Scene(pair, confs, images, guest, assignment_for)


def test_a_guest_runs_on_where_its_server_goes_and_its_disk_has_come_with_it(
    control_plane: Any, confs: Any, scene: Scene
) -> None:
    controller, agent = control_plane(confs[0])
    uuid = scene.uuid
    scene.server["image"]["properties"]["hw_firmware_type"] = "uefi"
    with agent(confs[0]) as first, agent(confs[1]) as second:
        controller.assign(scene.server)
        controller.wait_for(lambda: len(ticks(first, "node1", uuid)) > 1)
        controller.assign(scene.coming(first))
        controller.wait_for(lambda: controller.states(uuid)[-1] == "awaited")
        assert (scene.files[1] / "disk.config").read_bytes() == (scene.files[0] / "disk.config").read_bytes()
        assert storage.header(scene.files[1] / "disk").virtual_size == storage.GIB

        controller.assign(scene.away(second))
        controller.wait_for(lambda: controller.obeyed(uuid, 1) != [])
        assert controller.obeyed(uuid, 1) == [("stopped", None)]
        assert (domains(scene.here), domains(scene.there)) == ({}, {uuid: True})
        said = ticks(first, "node1", uuid)[-1]
        controller.unassign("node1", uuid)
        controller.assign(scene.arrived())
        controller.wait_for(lambda: controller.obeyed(uuid, 2) == [("active", None)])
        controller.wait_for(lambda: not scene.files[0].exists())
        controller.wait_for(lambda: len(ticks(second, "node2", uuid)) > 1)
        assert ticks(second, "node2", uuid)[0] > said  # it was not booted again

        # What will be started next time is of this host too, and what was written before has come.
        connection = libvirt.open(scene.there.uri)
        xml = connection.lookupByUUIDString(uuid).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        connection.close()
        mark = etree.fromstring(xml).find(f"metadata/{{{NAMESPACE}}}server")
        assert mark.get("node") == second._hosts["node2"].node_uuid
        assert str(scene.files[0]) not in xml
        controller.assign(scene.arrived(number=3, reboot="hard"))
        controller.wait_for(lambda: "boot 2" in second._hosts["node2"].virt.console_output(uuid))
        controller.assign({**scene.arrived(), "desired": "deleted"})
        controller.wait_for(lambda: not scene.files[1].exists())


def test_a_server_that_cannot_go_stays_and_what_was_made_for_it_is_removed(
    control_plane: Any, confs: Any, scene: Scene
) -> None:
    controller, agent = control_plane(confs[0])
    confs[0].set_override("live_migration_uri", "qemu+tcp://%s:1/system", group="libvirt")
    uuid = scene.uuid
    with agent(confs[0]) as first, agent(confs[1]) as second:
        controller.assign(scene.server)
        controller.wait_for(lambda: len(ticks(first, "node1", uuid)) > 1)
        controller.assign(scene.coming(first))
        controller.wait_for(lambda: controller.states(uuid)[-1] == "awaited")
        controller.assign(scene.away(second))
        controller.wait_for(lambda: controller.obeyed(uuid, 1) != [])
        ((state, fault),) = controller.obeyed(uuid, 1)
        assert state == "active"
        assert "unable to connect" in fault["message"]
        assert fault["unfit_target"]  # another host may do
        controller.unassign("node2", uuid)
        controller.wait_for(lambda: not scene.files[1].exists())
        said = ticks(first, "node1", uuid)[-1]
        controller.wait_for(lambda: ticks(first, "node1", uuid)[-1] > said)
        controller.assign({**scene.server, "desired": "deleted"})
        controller.wait_for(lambda: not scene.files[0].exists())


def test_an_agent_that_died_on_the_way_sees_it_through_when_it_is_back(
    control_plane: Any, confs: Any, scene: Scene, tmp_path: Path
) -> None:
    """libvirt goes on without it."""
    controller, agent = control_plane(confs[0])
    uuid = scene.uuid
    with agent(confs[1]) as second:
        with agent(confs[0]) as first:
            controller.assign(scene.server)
            controller.wait_for(lambda: len(ticks(first, "node1", uuid)) > 1)
            controller.assign(scene.coming(first))
            controller.wait_for(lambda: controller.states(uuid)[-1] == "awaited")
        # It had begun, slowly, and is gone.
        connection = libvirt.open(scene.here.uri)
        domain = connection.lookupByUUIDString(uuid)
        landing = second._hosts["node2"].virt.landing(uuid, domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE))
        definition = tmp_path / "landing.xml"
        definition.write_text(landing["xml"])
        begun = subprocess.Popen(
            [
                *("virsh", "-c", scene.here.uri, "migrate", "--live", "--p2p", "--persistent", "--undefinesource"),
                *("--copy-storage-inc", "--bandwidth", "1", "--xml", definition, "--persistent-xml", definition),
                *("--migrateuri", f"tcp://{scene.there.address}", uuid, scene.there.uri),
            ]
        )
        controller.wait_for(lambda: sending.whereabouts(domain) is sending.Whereabouts.ON_ITS_WAY)
        begun.kill()
        begun.wait()
        controller.assign(scene.away(second))
        with agent(confs[0]):
            controller.wait_for(lambda: any("migration" in seen for seen in controller.observations))

            def over() -> bool:
                # Again and again: libvirt sets its own once the disk is copied and it comes to the memory.
                with contextlib.suppress(libvirt.libvirtError):
                    domain.migrateSetMaxSpeed(1000)
                return bool(controller.obeyed(uuid, 1) == [("stopped", None)])

            controller.wait_for(over)
        assert (domains(scene.here), domains(scene.there)) == ({}, {uuid: True})
        connection.close()
        controller.assign({**scene.arrived(), "desired": "deleted"})
        controller.wait_for(lambda: not scene.files[1].exists())


def test_one_that_is_aborted_stays_and_one_that_is_forced_stands_still_until_it_is_there(
    control_plane: Any, confs: Any, scene: Scene
) -> None:
    controller, agent = control_plane(confs[0])
    uuid = scene.uuid
    confs[0].set_override("live_migration_bandwidth", 1, group="libvirt")
    with agent(confs[0]) as first, agent(confs[1]) as second:
        controller.assign(scene.server)
        controller.wait_for(lambda: len(ticks(first, "node1", uuid)) > 1)
        controller.assign(scene.coming(first))
        controller.wait_for(lambda: controller.states(uuid)[-1] == "awaited")
        connection = libvirt.open(scene.here.uri)
        domain = connection.lookupByUUIDString(uuid)
        controller.assign(scene.away(second))
        controller.wait_for(lambda: any("migration" in seen for seen in controller.observations))
        controller.assign(scene.away(second, force=True))
        controller.wait_for(lambda: domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED)
        controller.assign(scene.away(second, abort=True))
        controller.wait_for(lambda: controller.obeyed(uuid, 1) != [])
        ((_, fault),) = controller.obeyed(uuid, 1)
        assert fault["message"] == "the migration was aborted"
        # As the control plane orders after that.
        controller.assign({**scene.server, "order": {"number": 2, "power": "running", "reboot": None}})
        controller.wait_for(lambda: controller.obeyed(uuid, 2) == [("active", None)])
        said = ticks(first, "node1", uuid)[-1]
        controller.wait_for(lambda: ticks(first, "node1", uuid)[-1] > said)
        connection.close()
        controller.unassign("node2", uuid)
        controller.assign({**scene.server, "desired": "deleted"})
        controller.wait_for(lambda: not scene.files[0].exists() and not scene.files[1].exists())
