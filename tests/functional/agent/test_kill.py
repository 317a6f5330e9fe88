# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""kill -9 at any line: the next start of the agent finishes what was begun, and nothing is lost or left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forked
import fpga_cards
import killable
import libvirt
import patience
import pytest
from killing import steps

from accelsched.agent.virt.libvirt import storage

BUILD_STEPS = [
    "after the directory",
    "after the disk",
    "after define",
    "after start",
]
REMOVE_STEPS = ["after destroy", "after undefine"]


class Node:
    """A host whose agent runs in a process of its own."""

    def __init__(self, state: Path, hypervisor: Any, options: list[str]) -> None:
        self.state = state
        self.hypervisor = hypervisor
        self.options = options
        self._assignments = state.with_name(f"{state.name}.assignments")
        self._observations = state.with_name(f"{state.name}.observations")
        self._process: forked.Forked | None = None

    def want(self, *assignments: Any) -> None:
        self._observations.write_text("")
        self._assignments.write_text(json.dumps(assignments))

    def run(self, step: str = "") -> None:
        files = [str(path) for path in (self.state, self._assignments, self._observations)]
        self._process = forked.Forked(killable.main, (*files, step, *self.options), environment=os.environ)

    def wait_killed(self) -> None:
        assert self._process is not None
        assert self._process.wait(patience.LIMIT_S) == -signal.SIGKILL

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                assert self._process.wait(patience.LIMIT_S) == 0
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGABRT)  # where its threads are is in the captured output
                self._process.wait(patience.LIMIT_S)
                raise

    def build(self, server: Any) -> None:
        """Have a server run, and no agent."""
        self.want(server)
        self.run()
        self.wait_for("active")
        self.stop()

    def run_again_after(self, step: str) -> None:
        """Run an agent that is killed at a step, then another."""
        self.run(step)
        self.wait_killed()
        self.run()

    def said(self) -> str:
        return self._observations.read_text()

    def states(self) -> list[str]:
        return [json.loads(line)["state"] for line in self.said().splitlines()]

    def obeyed(self, number: int) -> list[str]:
        seen = map(json.loads, self.said().splitlines())
        return [observation["state"] for observation in seen if observation.get("order") == number]

    def wait_for(self, state: str) -> None:
        patience.wait(lambda: {state, "error"} & set(self.states()), told=self.said)
        assert state in self.states(), self.said()

    def domains(self) -> list[str]:
        return [domain.UUIDString() for domain in self.hypervisor.listAllDomains() if self._owns(domain)]

    def _owns(self, domain: Any) -> bool:
        try:
            return f"{self.state}/" in domain.XMLDesc()
        except libvirt.libvirtError:
            return False  # it went between the two questions

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for uuid in self.domains():
            domain = self.hypervisor.lookupByUUIDString(uuid)
            if domain.isActive():
                domain.destroy()
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)
        subprocess.run(["rm", "-rf", str(self.state), str(self._assignments), str(self._observations)], check=True)


@pytest.fixture
def node(hypervisor: Any, tmp_path: Path) -> Iterator[Node]:
    overrides = {
        "agent.host": "node1",
        "agent.device_drivers": ["simulated"],
        "agent.report_interval": 0.3,
        "agent.sync_interval": 0.3,
        "libvirt.virt_type": "qemu",
    }
    options = [f"{name}={json.dumps(value)}" for name, value in overrides.items()]
    node = Node(Path("/var/tmp") / f"accelsched-kill-{tmp_path.parent.name}-{tmp_path.name}", hypervisor, options)
    yield node
    node.close()


@pytest.fixture
def server(assignment_for: Any) -> Any:
    """A server with an empty disk: its firmware finds nothing to boot, which is enough to run."""
    flavor = {"name": "small", "vcpus": 1, "ram_mb": 64, "disk_gb": 1, "extra_specs": {}}
    return assignment_for("node1", flavor=flavor, config_drive=True)


@pytest.mark.parametrize("step", steps(BUILD_STEPS))
def test_an_agent_killed_while_it_builds_finishes_the_server_after_its_restart(
    node: Node, server: Any, step: str
) -> None:
    node.want(server)
    node.run_again_after(step)
    node.wait_for("active")
    assert node.domains() == [server["server_uuid"]]
    assert node.hypervisor.lookupByUUIDString(server["server_uuid"]).isActive()
    node.stop()
    assert node.hypervisor.lookupByUUIDString(server["server_uuid"]).isActive()


@pytest.mark.parametrize("step", steps(["after the directory", "after define", "after start"]))
def test_what_an_agent_killed_while_it_builds_left_is_removed_when_nobody_wants_it_any_more(
    node: Node, server: Any, step: str
) -> None:
    node.want(server)
    node.run(step)
    node.wait_killed()
    node.want()
    node.run()
    instance = node.state / "instances" / server["server_uuid"]
    patience.wait(lambda: not node.domains() and not instance.exists())
    node.stop()


@pytest.mark.parametrize("step", steps(REMOVE_STEPS))
def test_an_agent_killed_while_it_removes_a_server_finishes_after_its_restart(
    node: Node, server: Any, step: str
) -> None:
    node.build(server)
    node.want({**server, "desired": "deleted"})
    node.run_again_after(step)
    node.wait_for("gone")
    assert not node.domains()
    assert not (node.state / "instances" / server["server_uuid"]).exists()
    node.stop()


@pytest.mark.parametrize(
    ("step", "power", "reboot", "state"),
    [
        *steps([(step, "stopped", None, "stopped") for step in ("after destroy", "before the order is noted")]),
        ("after the save", "suspended", None, "suspended"),
        *steps(
            [
                (step, "running", "hard", "active")
                for step in ("after destroy", "after start", "before the order is noted")
            ]
        ),
    ],
)
def test_an_agent_killed_while_it_obeys_has_obeyed_after_its_restart(
    node: Node, server: Any, step: str, power: str, reboot: str | None, state: str
) -> None:
    node.options.append("agent.shutdown_timeout=0")
    node.build(server)
    node.want({**server, "order": {"number": 1, "power": power, "reboot": reboot}})
    node.run_again_after(step)
    patience.wait(lambda: node.obeyed(1) == [state], told=node.said)
    assert node.domains() == [server["server_uuid"]]
    assert node.hypervisor.lookupByUUIDString(server["server_uuid"]).isActive() == (state == "active")
    node.stop()


@pytest.mark.parametrize("step", steps(["after the copy", "after the growth", "after start"]))
def test_an_agent_killed_while_it_resizes_a_server_in_its_place_does_it_and_can_take_it_back(
    node: Node, server: Any, step: str
) -> None:
    node.options.append("agent.shutdown_timeout=0")
    node.build(server)
    disk = node.state / "instances" / server["server_uuid"] / "disk"
    kept = disk.with_name("disk.dddddddd-0000-4000-8000-000000000001")

    def resize(number: int, disk_gb: int, restore: bool) -> Any:
        order = {"number": number, "power": "running", "reboot": "soft"}
        flavor = {**server["flavor"], "disk_gb": disk_gb}
        return {**server, "flavor": flavor, "order": order, "kept_disk": {"id": kept.name[5:], "restore": restore}}

    node.want(resize(1, 2, restore=False))
    node.run_again_after(step)
    patience.wait(lambda: node.obeyed(1) == ["active"], told=node.said)
    assert [storage.header(path).virtual_size // storage.GIB for path in (disk, kept)] == [2, 1]
    node.stop()
    node.want(resize(2, 1, restore=True))
    node.run_again_after("after start" if step == "after start" else "after destroy")
    patience.wait(lambda: node.obeyed(2) == ["active"], told=node.said)
    assert storage.header(disk).virtual_size == storage.GIB
    assert not kept.exists()
    node.want(resize(3, 2, restore=False))
    patience.wait(lambda: node.obeyed(3) == ["active"], told=node.said)
    confirmed = resize(3, 2, restore=False)
    del confirmed["kept_disk"]
    node.want(confirmed)
    patience.wait(lambda: not kept.exists())
    assert storage.header(disk).virtual_size == 2 * storage.GIB
    node.stop()


@pytest.mark.parametrize("step", steps(["after destroy", "after the directory's removal", "after define"]))
def test_an_agent_killed_while_it_builds_a_server_anew_finishes_after_its_restart(
    node: Node, server: Any, step: str
) -> None:
    node.build(server)
    instance = node.state / "instances" / server["server_uuid"]
    (instance / "disk").write_bytes(b"of the first incarnation")
    node.want({**server, "incarnation": 2})
    node.run_again_after(step)
    node.wait_for("active")
    node.stop()
    assert (instance / "incarnation").read_text() == "2"
    assert (instance / "disk").stat().st_size > 1000
    assert node.domains() == [server["server_uuid"]]


@pytest.mark.parametrize(
    ("step", "running"),
    steps(
        [
            ("after the backup's begin", True),
            *(
                (step, running)
                for step in ("before the upload", "after the upload", "before the order is noted")
                for running in (True, False)
            ),
        ]
    ),
)
def test_an_agent_killed_while_it_makes_an_image_has_made_it_after_its_restart(
    node: Node, server: Any, images: Any, step: str, running: bool
) -> None:
    node.options += [f'glance.endpoint_override="{images.url}"', "agent.shutdown_timeout=0"]
    image_id = images.queued()
    node.build(server)
    power = "running" if running else "stopped"
    node.want({**server, "order": {"number": 1, "power": power, "reboot": None, "snapshot": image_id}})
    node.run_again_after(step)
    patience.wait(lambda: node.obeyed(1) == ["active" if running else "stopped"], told=node.said)
    assert images.uploads == [image_id]
    assert images.images[image_id][1][:4] == b"QFI\xfb"
    assert not (node.state / "instances" / server["server_uuid"] / "snapshot").exists()
    assert node.hypervisor.lookupByUUIDString(server["server_uuid"]).isActive() == running
    node.stop()


@pytest.mark.parametrize(
    "step", steps(["before the disk", "after the disk", "after destroy", "after define", "before the order is noted"])
)
@pytest.mark.parametrize("back", [False, True])
def test_an_agent_killed_while_it_rescues_a_server_or_ends_that_has_done_so_after_its_restart(
    node: Node, server: Any, images: Any, tmp_path: Path, step: str, back: bool
) -> None:
    if back and "the disk" in step:
        step = "after start"  # none is made on the way back
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(tmp_path / "rescue"), "8M"], check=True)
    image = images.add((tmp_path / "rescue").read_bytes(), "qcow2")
    rescue = {"number": 1, "power": "rescued", "reboot": None, "rescue": image}
    node.options += [f'glance.endpoint_override="{images.url}"', "agent.shutdown_timeout=0"]
    node.want(server)
    node.run()
    node.wait_for("active")
    if back:
        node.want({**server, "order": rescue})
        node.wait_for("rescued")
    node.stop()
    node.want({**server, "order": {"number": 2, "power": "running", "reboot": "hard"} if back else rescue})
    node.run_again_after(step)
    patience.wait(lambda: node.obeyed(2 if back else 1) == ["active" if back else "rescued"], told=node.said)
    domain = node.hypervisor.lookupByUUIDString(server["server_uuid"])
    assert domain.isActive()
    assert ("disk.rescue" in domain.XMLDesc()) == (not back)
    node.stop()
    assert (node.state / "instances" / server["server_uuid"] / "disk.rescue").exists() == (not back)


@pytest.mark.parametrize("step", steps(["after destroy", "before the upload", "after the upload"]))
def test_an_agent_killed_while_it_shelves_a_server_has_done_so_after_its_restart(
    node: Node, server: Any, images: Any, step: str
) -> None:
    node.options += [f'glance.endpoint_override="{images.url}"', "agent.shutdown_timeout=0"]
    image_id = images.queued()
    node.build(server)
    node.want({**server, "order": {"number": 1, "power": "stopped", "reboot": None, "snapshot": image_id}})
    node.run_again_after(step)
    patience.wait(lambda: node.obeyed(1) == ["stopped"], told=node.said)
    assert images.uploads == [image_id]
    node.want({**server, "desired": "deleted"})
    node.wait_for("gone")
    node.stop()
    assert not node.domains()
    assert not (node.state / "instances" / server["server_uuid"]).exists()


@pytest.mark.parametrize("step", steps(["before the restore", "after the restore", "after define", "after start"]))
def test_an_agent_killed_while_it_restores_a_server_finishes_after_its_restart(
    node: Node, server: Any, images: Any, tmp_path: Path, step: str
) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(tmp_path / "disk"), "1G"], check=True)
    disk = (tmp_path / "disk").read_bytes()
    node.options.append(f'glance.endpoint_override="{images.url}"')
    node.want({**server, "restore": images.add(disk, "qcow2"), "incarnation": 2})
    node.run_again_after(step)
    node.wait_for("active")
    node.stop()
    instance = node.state / "instances" / server["server_uuid"]
    assert sorted(path.name for path in instance.glob("disk*")) == ["disk", "disk.config"]
    assert node.hypervisor.lookupByUUIDString(server["server_uuid"]).isActive()


def test_a_domain_without_our_mark_is_left_alone(node: Node, server: Any) -> None:
    stranger = node.hypervisor.defineXML(
        "<domain type='qemu'><name>accelsched-stranger</name><memory unit='MiB'>64</memory>"
        "<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"
    )
    try:
        node.want(server)
        node.run()
        node.wait_for("active")
        node.want()
        patience.wait(lambda: not node.domains())
        node.stop()
        assert stranger.name() in [domain.name() for domain in node.hypervisor.listAllDomains()]
    finally:
        stranger.undefine()


def test_a_host_that_was_rebooted_starts_its_servers_again_with_their_disks(node: Node, server: Any) -> None:
    node.build(server)
    instance = node.state / "instances" / server["server_uuid"]
    disk = (instance / "disk").stat().st_ino
    node.hypervisor.lookupByUUIDString(server["server_uuid"]).destroy()
    (instance / "launched").write_text("another-boot")
    node.want(server)
    node.run()
    node.wait_for("active")
    assert node.hypervisor.lookupByUUIDString(server["server_uuid"]).isActive()
    assert (instance / "disk").stat().st_ino == disk
    assert "building" not in node.states()
    node.stop()


def test_a_server_whose_domain_stopped_by_itself_is_reported_stopped_and_left_so(node: Node, server: Any) -> None:
    node.want(server)
    node.run()
    node.wait_for("active")
    node.hypervisor.lookupByUUIDString(server["server_uuid"]).destroy()
    node.wait_for("stopped")
    assert not node.hypervisor.lookupByUUIDString(server["server_uuid"]).isActive()
    node.stop()


def test_a_server_that_libvirt_cannot_start_is_an_error_and_not_tried_again_even_by_the_next_agent(
    node: Node, server: Any
) -> None:
    # More memory than any machine has.
    flavor = {**server["flavor"], "ram_mb": 1 << 40}
    node.want({**server, "flavor": flavor})
    node.run()
    node.wait_for("error")
    time.sleep(1)
    node.stop()
    assert node.states().count("error") == 1
    assert not node.domains()
    assert not (node.state / "instances" / server["server_uuid"]).exists()
    node.want({**server, "flavor": flavor})
    node.run()
    node.wait_for("error")
    node.stop()
    assert "building" not in node.states()


@pytest.mark.parametrize("step", ["after the mdev journal", "after the mdev"])
@pytest.mark.parametrize("still_wanted", [True, False])
def test_an_agent_killed_while_it_makes_a_mediated_device_neither_leaks_nor_doubles_it(
    node: Node, sysfs: Any, assignment_for: Any, step: str, still_wanted: bool
) -> None:
    sysfs.add_mdev_parent(sysfs.root / "devices/virtual/lab/lab0", {"lab-1": 4})
    node.options += [
        'agent.virt_driver="simulated"',
        'agent.device_drivers=["mdev"]',
        f"devices.sysfs_root={json.dumps(str(sysfs.root))}",
    ]
    vgpu = {
        "group": "",
        "provider_uuid": "bbbbbbbb-0000-4000-8000-000000000001",
        "provider_name": "node1_mdev_lab0",
        "resources": {"VGPU": 2},
    }
    server = assignment_for("node1", devices=[vgpu])
    node.want(server)
    node.run(step)
    node.wait_killed()
    journal = node.state / "mdevs"
    assert len(list(journal.iterdir())) == 1
    assert len(list(sysfs.mdevs.iterdir())) == (1 if step == "after the mdev" else 0)
    if not still_wanted:
        node.want()
    node.run()
    expected = 2 if still_wanted else 0
    patience.wait(lambda: len(list(sysfs.mdevs.iterdir())) + len(list(journal.iterdir())) == 2 * expected)
    if still_wanted:
        node.wait_for("active")
    node.stop()
    assert len(list(sysfs.mdevs.iterdir())) == expected


@pytest.mark.parametrize("step", steps(["after the bitstream", "before the programming", "after the programming"]))
@pytest.mark.parametrize("still_wanted", [True, False])
def test_an_agent_killed_while_it_programs_an_fpga_leaves_it_as_is_wanted_after_its_restart(
    node: Node, images: Any, assignment_for: Any, tmp_path: Path, step: str, still_wanted: bool
) -> None:
    afu_id = fpga_cards.add_dfl_card(tmp_path / "sys")
    said = {"accel:function_id": fpga_cards.FUNCTION, "accel:interface_id": fpga_cards.INTERFACE}
    images.add(fpga_cards.gbs(), "raw", **said)
    (tmp_path / "blank").write_bytes(fpga_cards.gbs(fpga_cards.BLANK))
    overrides = {
        "agent.virt_driver": "simulated",
        "agent.device_drivers": ["dfl"],
        "devices.sysfs_root": str(tmp_path / "sys"),
        "fpga.opae_path": str(fpga_cards.install(tmp_path)),
        "fpga.blank_bitstreams": {fpga_cards.INTERFACE: str(tmp_path / "blank")},
        "glance.endpoint_override": images.url,
    }
    node.options += [f"{name}={json.dumps(value)}" for name, value in overrides.items()]
    fpga = {
        "group": "",
        "provider_uuid": "bbbbbbbb-0000-4000-8000-000000000001",
        "provider_name": "node1_pci_0000_3b_00_0",
        "resources": {"FPGA": 1},
    }
    specs = {"resources:FPGA": "1", "accel:function_id": fpga_cards.FUNCTION}
    flavor = {"name": "small", "vcpus": 1, "ram_mb": 64, "disk_gb": 0, "extra_specs": specs}
    server = assignment_for("node1", devices=[fpga], flavor=flavor)
    node.want(server)
    node.run(step)
    node.wait_killed()
    records = node.state / "fpgas" / "dfl"
    assert list(records.iterdir())
    if not still_wanted:
        node.want()
    node.run()
    if still_wanted:
        node.wait_for("active")
    else:
        patience.wait(lambda: not list(records.glob("*.json")), told=lambda: list(records.iterdir()))
    node.stop()
    expected = fpga_cards.FUNCTION if still_wanted else fpga_cards.BLANK
    assert afu_id.read_text().strip() == expected.replace("-", "")
    assert {path.suffix for path in records.iterdir()} <= {".json", ".lock"}  # nobody's bitstream is left
