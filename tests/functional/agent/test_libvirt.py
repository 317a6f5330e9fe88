# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A server's whole life with the real libvirtd and QEMU of this machine."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest
from lxml import etree
from stack import guest as guests

from accelsched import errors, names, wire
from accelsched.agent.virt.libvirt import storage

URI = "qemu:///system"
MARK = b"of node1"


@pytest.fixture(scope="session")
def guest() -> guests.Guest:
    return guests.build()


@pytest.fixture
def machine_options(tmp_path: Path, options_for: Callable[..., Any], images: Any) -> Any:
    with _options(tmp_path, options_for, images, "node1") as conf:
        yield conf


@pytest.fixture
def other_options(tmp_path: Path, options_for: Callable[..., Any], images: Any, hypervisor: Any) -> Any:
    with _options(tmp_path, options_for, images, "node2") as conf:
        yield conf


@contextlib.contextmanager
def _options(tmp_path: Path, options_for: Callable[..., Any], images: Any, host: str) -> Iterator[Any]:
    state = Path("/var/tmp") / f"accelsched-test-{tmp_path.parent.name}-{tmp_path.name}-{host}"
    conf = options_for(state, device_drivers=["simulated"], host=host)
    conf.set_override("virt_type", "qemu", group="libvirt")
    conf.set_override("endpoint_override", images.url, group="glance")
    yield conf
    _remove_domains_of(state)
    shutil.rmtree(state)


@pytest.fixture
def network(hypervisor: Any) -> Iterator[str]:
    """A network of libvirt's that leads nowhere and has no DHCP, which would need dnsmasq."""
    made = hypervisor.networkCreateXML(f"<network><name>accelsched-test-{os.getpid()}</name><bridge/></network>")
    yield made.name()
    made.destroy()


def _remove_domains_of(state: Path) -> None:
    """Remove what a failed test left."""
    connection = libvirt.open(URI)
    for domain in connection.listAllDomains():
        if f"{state}/" in _definition(domain):
            if domain.isActive():
                domain.destroy()
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)
    connection.close()


def _definition(domain: libvirt.virDomain) -> str:
    """Return its XML; nothing of one that another test has removed meanwhile."""
    try:
        return str(domain.XMLDesc())
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return ""


def bootable(images: Any, guest: guests.Guest) -> Any:
    kernel = images.add(guest.kernel.read_bytes(), "aki")
    ramdisk = images.add(guest.ramdisk.read_bytes(), "ari")
    return images.add(
        guest.disk.read_bytes(),
        "qcow2",
        kernel_id=kernel["id"],
        ramdisk_id=ramdisk["id"],
        os_command_line=guest.command_line,
    )


def test_a_server_boots_tells_of_it_on_its_console_and_leaves_nothing_behind(
    control_plane: Any,
    machine_options: Any,
    hypervisor: Any,
    images: Any,
    guest: guests.Guest,
    assignment_for: Any,
    network: str,
) -> None:
    machine_options.set_override("network", network, group="libvirt")
    controller, agent = control_plane(machine_options)
    user_data = base64.b64encode(b"#!/bin/sh\necho USER-DATA-RAN\n").decode()
    server = assignment_for(
        "node1", image=bootable(images, guest), user_data=user_data, config_drive=True, networks="auto"
    )
    uuid = server["server_uuid"]
    controller.assign(server)
    with agent(machine_options) as running:
        controller.wait_for(lambda: controller.states(uuid)[-1:] == ["active"])
        domain = hypervisor.lookupByUUIDString(uuid)
        assert domain.isActive()
        host = running._hosts["node1"]
        controller.wait_for(lambda: "accelsched-guest: ready" in host.virt.console_output(uuid))
        console = host.virt.console_output(uuid)
        assert "config-drive vdb hostname=test-server" in console
        assert "user-data #!/bin/sh" in console
        assert "root vda" in console
        assert " 1af4:1041 class=" in console  # virtio's network card
        assert controller.observations[-1]["interface"] == {"network": network, "addresses": []}
        (interface,) = etree.fromstring(domain.XMLDesc()).iterfind("devices/interface")
        assert interface.find("source").get("network") == network
        assert interface.find("mac").get("address") == names.mac_address(uuid)
        host.virt.inject_nmi(uuid)
        controller.wait_for(lambda: "NMI received" in host.virt.console_output(uuid))
        told = host.virt.diagnostics(uuid)
        assert (told["state"], told["driver"], told["memory_mb"], len(told["cpus"])) == ("running", "libvirt", 192, 1)
        assert [disk["read_requests"] > 0 for disk in told["disks"]] == [True, True]
        assert [nic["mac_address"] for nic in told["nics"]] == [names.mac_address(uuid)]
        controller.assign({**server, "desired": "deleted"})
        controller.wait_for(lambda: not controller.assigned("node1", uuid))
        with pytest.raises(libvirt.libvirtError):
            hypervisor.lookupByUUIDString(uuid)
    assert controller.states(uuid) == ["building", "active", "gone"]
    assert not (Path(machine_options.state_path) / "instances" / uuid).exists()


def test_a_server_obeys_orders_and_its_guest_is_asked_before_it_is_switched_off(
    control_plane: Any, machine_options: Any, hypervisor: Any, images: Any, guest: guests.Guest, assignment_for: Any
) -> None:
    controller, agent = control_plane(machine_options)
    server = assignment_for("node1", image=bootable(images, guest))
    uuid = server["server_uuid"]
    controller.assign(server)
    with agent(machine_options) as running:

        def boots() -> int:
            return running._hosts["node1"].virt.console_output(uuid).count("accelsched-guest: ready")

        def order(number: int, power: str, reboot: str | None = None, *, leads_to: str) -> None:
            controller.assign({**server, "order": {"number": number, "power": power, "reboot": reboot}})
            controller.wait_for(lambda: [(leads_to, None)] == controller.obeyed(uuid, number))

        controller.wait_for(lambda: controller.states(uuid)[-1:] == ["active"])
        controller.wait_for(lambda: boots() == 1)
        domain = hypervisor.lookupByUUIDString(uuid)
        order(1, "paused", leads_to="paused")
        assert domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED
        order(2, "running", leads_to="active")
        assert domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
        order(3, "suspended", leads_to="suspended")
        assert domain.hasManagedSaveImage()
        order(4, "running", leads_to="active")
        assert domain.isActive()
        assert boots() == 1  # it went on where it was
        order(5, "running", "soft", leads_to="active")
        controller.wait_for(lambda: boots() == 2)
        order(6, "stopped", leads_to="stopped")
        assert not domain.isActive()
        assert running._hosts["node1"].virt.console_output(uuid).count("power button") == 2
        order(7, "running", leads_to="active")
        controller.wait_for(lambda: boots() == 3)
        order(8, "running", "hard", leads_to="active")
        controller.wait_for(lambda: boots() == 4)
        assert running._hosts["node1"].virt.console_output(uuid).count("power button") == 2
        # Built anew: another disk, another console, and the last order not carried out again.
        last = {"number": 8, "power": "running", "reboot": "hard"}
        controller.assign({**server, "order": last, "incarnation": 2})
        controller.wait_for(lambda: controller.observations[-1].get("incarnation") == 2)
        controller.wait_for(lambda: controller.states(uuid)[-1:] == ["active"])
        controller.wait_for(lambda: boots() == 1)
        controller.assign({**server, "desired": "deleted"})
        controller.wait_for(lambda: not controller.assigned("node1", uuid))


def test_a_server_goes_to_another_host_with_all_that_is_on_its_disk_and_its_firmwares_variables(
    control_plane: Any, machine_options: Any, other_options: Any, images: Any, guest: guests.Guest, assignment_for: Any
) -> None:
    """Two agents share this machine's libvirt. Glance has the image no more when the server goes."""
    controller, agent = control_plane(machine_options)
    image = bootable(images, guest)
    image["properties"]["hw_firmware_type"] = "uefi"
    server = assignment_for("node1", image=image, config_drive=True)
    uuid = server["server_uuid"]
    here, there = (Path(conf.state_path) / "instances" / uuid for conf in (machine_options, other_options))
    aside = {**server, "order": {"number": 1, "power": "aside", "reboot": None}}
    connection = libvirt.open(URI)
    with agent(machine_options) as first, agent(other_options) as second:
        controller.assign(server)
        controller.wait_for(lambda: "boot 1" in _console(first, uuid))
        domain = etree.fromstring(connection.lookupByUUIDString(uuid).XMLDesc())
        assert domain.find("./os/loader").get("type") == "pflash"
        assert domain.findtext("./os/nvram") == str(here / "nvram")
        with pytest.raises(errors.ConflictError):  # it runs
            first._hosts["node1"].virt.files_aside(uuid)

        controller.assign(aside)
        controller.wait_for(lambda: controller.obeyed(uuid, 1) == [("stopped", None)])
        with pytest.raises(libvirt.libvirtError):
            connection.lookupByUUIDString(uuid)
        drive = (here / "disk.config").read_bytes()
        with (here / "nvram").open("r+b") as variables:  # at the end, where the firmware has only room to spare
            variables.seek(-len(MARK), os.SEEK_END)
            variables.write(MARK)
        del images.images[image["id"]]

        larger = {**server["flavor"], "disk_gb": 1}
        order = {"number": 2, "power": "running", "reboot": None}
        origin = {"host": "node1", "agent": first.queue}
        moved = {**server, "host": "node2", "flavor": larger, "incarnation": 2, "order": order, "origin": origin}
        controller.assign(moved)
        controller.wait_for(lambda: controller.obeyed(uuid, 2) == [("active", None)])
        controller.wait_for(lambda: "boot 2" in _console(second, uuid))
        assert (there / "disk.config").read_bytes() == drive
        assert (there / "nvram").read_bytes().endswith(MARK)
        assert storage.header(there / "disk").virtual_size == storage.GIB
        assert storage.header(there / "disk").backing == there.parent / "_base" / image["id"]

        controller.assign({**aside, "desired": "deleted"})  # confirmed
        controller.wait_for(lambda: not here.exists())
        assert connection.lookupByUUIDString(uuid).isActive()
        controller.assign({**moved, "desired": "deleted"})
        controller.wait_for(lambda: not there.exists())
    connection.close()


def test_a_server_is_on_the_cpus_and_the_node_that_it_was_given(
    control_plane: Any, machine_options: Any, hypervisor: Any, assignment_for: Any
) -> None:
    """A domain without a disk: its firmware finds nothing to boot, and that is enough."""
    last = max(os.sched_getaffinity(0))
    machine_options.set_override("cpu_dedicated_set", str(last), group="compute")
    controller, agent = control_plane(machine_options)
    placed = {"node": 0, "shared_cpus": [], "pins": {"0": last}, "memory_mb": 256, "page_kb": None}
    server = assignment_for("node1", image=None, numa=[placed])
    server["flavor"] |= {"vcpus": 1, "ram_mb": 256, "disk_gb": 0}
    uuid = server["server_uuid"]
    controller.assign(server)
    with agent(machine_options):
        controller.wait_for(lambda: controller.states(uuid)[-1:] == ["active"])
        domain = hypervisor.lookupByUUIDString(uuid)
        (pinned,) = domain.vcpuPinInfo()
        assert [cpu for cpu, on in enumerate(pinned) if on] == [last]
        assert domain.numaParameters()["numa_nodeset"] == "0"
        told = controller.reports["node1"]
        (node, *_) = told["numa"]["nodes"]
        assert (node["dedicated_cpus"], node["pages"]["4"] > 0) == ([last], True)
        assert told["providers"][0]["inventories"]["PCPU"]["total"] == 1
        controller.assign({**server, "desired": "deleted"})
        controller.wait_for(lambda: not controller.assigned("node1", uuid))


def test_a_guest_has_the_cpu_that_its_host_gives_and_sees_the_sockets_that_its_flavor_asks_for(
    control_plane: Any, machine_options: Any, hypervisor: Any, assignment_for: Any
) -> None:
    """A domain without a disk: its firmware finds nothing to boot, and that is enough."""
    machine_options.set_override("cpu_mode", "custom", group="libvirt")
    machine_options.set_override("cpu_model", "qemu64", group="libvirt")
    machine_options.set_override("cpu_model_extra_flags", ["-svm"], group="libvirt")
    controller, agent = control_plane(machine_options)
    server = assignment_for("node1", image=None)
    specs = {"hw:cpu_sockets": "1", "hw:cpu_threads": "2"}
    server["flavor"] |= {"vcpus": 4, "ram_mb": 256, "disk_gb": 0, "extra_specs": specs}
    uuid = server["server_uuid"]
    controller.assign(server)
    with agent(machine_options):
        controller.wait_for(lambda: controller.states(uuid)[-1:] == ["active"])
        cpu = etree.fromstring(hypervisor.lookupByUUIDString(uuid).XMLDesc()).find("cpu")
        assert cpu is not None
        assert (cpu.findtext("model"), cpu.xpath("string(feature[@name='svm']/@policy)")) == ("qemu64", "disable")
        topology = cpu.find("topology")
        assert topology is not None
        assert [topology.get(part) for part in ("sockets", "cores", "threads")] == ["1", "2", "2"]
        controller.assign({**server, "desired": "deleted"})
        controller.wait_for(lambda: not controller.assigned("node1", uuid))


def test_an_image_of_a_server_has_what_was_on_its_disk_whether_it_runs_or_not(
    control_plane: Any, machine_options: Any, hypervisor: Any, images: Any, guest: guests.Guest, assignment_for: Any
) -> None:
    """The guest counts on its disk how often it was booted."""
    controller, agent = control_plane(machine_options)
    image = bootable(images, guest)
    server = assignment_for("node1", image=image)
    uuid = server["server_uuid"]
    controller.assign(server)
    with agent(machine_options) as running:
        console = running._hosts["node1"].virt.console_output

        def order(number: int, power: str, image_id: str | None = None, *, leads_to: str) -> None:
            said = {"number": number, "power": power, "reboot": None, **({"snapshot": image_id} if image_id else {})}
            controller.assign({**server, "order": said})
            controller.wait_for(lambda: [(leads_to, None)] == controller.obeyed(uuid, number))

        controller.wait_for(lambda: controller.states(uuid)[-1:] == ["active"])
        controller.wait_for(lambda: "accelsched-guest: ready" in console(uuid))
        first, second, third = (images.queued() for _ in range(3))
        order(1, "running", first, leads_to="active")
        assert {seen.get("snapshot") for seen in controller.observations} >= {"image_uploading"}
        order(2, "paused", leads_to="paused")
        order(3, "paused", second, leads_to="paused")
        order(4, "stopped", third, leads_to="stopped")
        assert not hypervisor.lookupByUUIDString(uuid).isActive()
        for image_id in (first, second, third):
            copy = assignment_for("node1", image=images.spec(image_id, **image["properties"]))
            controller.assign(copy)
            controller.wait_for(lambda: "boot 2" in _console(running, copy["server_uuid"]))  # noqa: B023
            assert b"backing" not in images.images[image_id][1][:1024]
            controller.assign({**copy, "desired": "deleted"})
        # One that was on the shelf gets its disk back as it was, and the cache gets nothing.
        restore = images.spec(third)
        back = assignment_for("node1", image=image, restore=restore, incarnation=2)
        controller.assign(back)
        controller.wait_for(lambda: "boot 2" in _console(running, back["server_uuid"]))
        instances = Path(machine_options.state_path) / "instances"
        info = storage.image_info(instances / back["server_uuid"] / "disk", "qcow2")
        assert "backing-filename" not in info
        assert not (instances / "_base" / restore["id"]).exists()
        del images.images[image["id"]]  # nor is it needed any more
        order_ = {"number": 1, "power": "running", "reboot": "hard"}
        controller.assign({**back, "order": order_})
        controller.wait_for(lambda: "boot 3" in _console(running, back["server_uuid"]))
        controller.assign({**back, "desired": "deleted"})

        images.refuses_uploads = True
        refused = images.queued()
        controller.assign({**server, "order": {"number": 5, "power": "stopped", "reboot": None, "snapshot": refused}})
        controller.wait_for(lambda: [state for state, _ in controller.obeyed(uuid, 5)] == ["stopped"])
        ((_, fault),) = controller.obeyed(uuid, 5)
        assert "needs the role admin" in fault["message"]
        controller.assign({**server, "desired": "deleted"})
        controller.wait_for(lambda: not controller.assigned("node1", uuid))


def test_a_rescued_server_boots_from_another_disk_with_its_own_beside_it_and_then_from_its_own_again(
    control_plane: Any, machine_options: Any, hypervisor: Any, images: Any, guest: guests.Guest, assignment_for: Any
) -> None:
    controller, agent = control_plane(machine_options)
    image = bootable(images, guest)
    server = assignment_for("node1", image=image, config_drive=True)
    uuid = server["server_uuid"]
    controller.assign(server)
    instance = Path(machine_options.state_path) / "instances" / uuid

    def order(number: int, power: str, leads_to: str, **more: Any) -> wire.Fault | None:
        said = {"number": number, "power": power, "reboot": None, **more}
        controller.assign({**server, "order": said})
        controller.wait_for(lambda: [state for state, _ in controller.obeyed(uuid, number)] == [leads_to])
        ((_, fault),) = controller.obeyed(uuid, number)
        return fault

    with agent(machine_options) as running:
        controller.wait_for(lambda: "boot 1" in _console(running, uuid))
        broken = {**images.add(b"nothing to boot", "qcow2"), "os_hash_value": "0"}
        assert order(1, "rescued", "active", rescue=broken) is not None
        assert hypervisor.lookupByUUIDString(uuid).isActive()
        assert _console(running, uuid).count("power button") == 0

        rescue = {"rescue": bootable(images, guest)}
        assert order(2, "rescued", "rescued", **rescue, admin_pass="a-password") is None
        said = {"number": 2, "power": "rescued", "reboot": None, **rescue}
        controller.assign({**server, "order": said})  # the password is told once
        controller.wait_for(lambda: _console(running, uuid).count("accelsched-guest: ready") == 2)
        assert _console(running, uuid).count("boot 1") == 2
        assert "config-drive vdc" in _console(running, uuid)
        domain = hypervisor.lookupByUUIDString(uuid)
        assert domain.blockInfo("vdb")
        domain.destroy()  # the host is rebooted
        (instance / "launched").write_text("another-boot")
        controller.wait_for(domain.isActive)
        assert "disk.config.rescue" in domain.XMLDesc()
        assert b"a-password" in (instance / "disk.config.rescue").read_bytes()
        assert b"a-password" not in (instance / "disk.config").read_bytes()
        controller.wait_for(lambda: controller.states(uuid)[-1:] == ["rescued"])
        assert _console(running, uuid).count("boot 2") == 0
        assert order(3, "running", "active", reboot="hard") is None
        controller.wait_for(lambda: "boot 2" in _console(running, uuid))
        assert not list(instance.glob("disk*.rescue"))
        controller.assign({**server, "desired": "deleted"})
        controller.wait_for(lambda: not controller.assigned("node1", uuid))


def _console(agent: Any, server_uuid: str) -> str:
    (host,) = agent._hosts.values()
    try:
        output: str = host.virt.console_output(server_uuid)
    except errors.NotFoundError:
        return ""
    return output


def test_a_running_guest_takes_a_device_of_conventional_pci_and_lets_go_of_it(
    control_plane: Any, machine_options: Any, hypervisor: Any, images: Any, guest: guests.Guest, assignment_for: Any
) -> None:
    """A network card of QEMU's is in the place of a function of the host's, which takes VFIO: that is the lab's."""
    controller, agent = control_plane(machine_options)
    server = assignment_for("node1", image=bootable(images, guest))
    uuid = server["server_uuid"]
    controller.assign(server)
    model = "<mac address='52:54:00:00:00:01'/><model type='rtl8139'/><rom enabled='no'/>"
    card = f"<interface type='user'>{model}</interface>"
    with agent(machine_options) as running:
        console = running._hosts["node1"].virt.console_output
        controller.wait_for(lambda: controller.states(uuid)[-1:] == ["active"])
        controller.wait_for(lambda: "accelsched-guest: ready" in console(uuid))
        domain = hypervisor.lookupByUUIDString(uuid)

        def cards() -> list[Any]:
            return list(etree.fromstring(domain.XMLDesc()).iterfind("devices/interface/address"))

        definition = etree.fromstring(domain.XMLDesc())
        assert definition.find("devices/disk/address").get("bus") == "0x01"  # the bridge has not taken the first port
        bridge = definition.find("devices/controller[@model='pcie-to-pci-bridge']")
        domain.attachDeviceFlags(card, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        controller.wait_for(lambda: " 10ec:8139 class=" in console(uuid))
        [address] = cards()
        assert int(address.get("bus"), 16) == int(bridge.get("index"))
        domain.detachDeviceFlags(card, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        controller.wait_for(lambda: not cards())
        controller.wait_for(lambda: "gone" in console(uuid))
        controller.assign({**server, "desired": "deleted"})
        controller.wait_for(lambda: not controller.assigned("node1", uuid))
