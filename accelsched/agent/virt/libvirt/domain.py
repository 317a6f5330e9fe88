# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The XML of a domain, as a pure function. Format: https://libvirt.org/formatdomain.html"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lxml import etree

from accelsched import names
from accelsched.agent.devices.base import Attachment, MdevAttachment, PciAttachment, SimulatedAttachment
from accelsched.agent.virt.libvirt import cpus
from accelsched.agent.virt.libvirt.cpus import EVERYTHING, NOWHERE, Cpus, Model
from accelsched.cpu_topology import CpuTopology

NAMESPACE = "urn:accelsched:domain:1.0"
PREFIX = "accelsched"
DISK_TARGET = "vda"

# Root ports beyond those that the devices of the domain take, for what is plugged in later and for a rescue.
_SPARE_PORTS = 4
_OWN_PORTS = 4  # disk, config drive, random numbers, memory balloon
_BRIDGE_PORTS = 1


@dataclass(frozen=True)
class DirectBoot:
    """Boot a kernel from the host instead of firmware and a boot loader."""

    kernel: Path
    initrd: Path | None
    command_line: str


@dataclass(frozen=True)
class DomainSpec:
    """Everything a domain's definition depends on."""

    server_uuid: str
    name: str  # as its owner calls it
    node_uuid: str
    project_id: str
    user_id: str
    flavor: str
    image_id: str | None
    virt_type: str  # kvm or qemu
    arch: str
    vcpus: int
    memory_mb: int
    console: Path
    disk: Path | None = None
    rescue_disk: Path | None = None  # to boot from, the server's own disk beside it
    config_drive: Path | None = None
    direct_boot: DirectBoot | None = None
    nvram: Path | None = None  # variables of UEFI, which is in the place of a BIOS then
    attachments: Sequence[Attachment] = ()
    network: str | None = None  # of libvirt, that it has an interface on
    leaving: Sequence[str] = ()  # accelerators that it has no longer, and whose devices are to be given back
    cpus: Cpus = NOWHERE
    cpu_topology: CpuTopology | None = None  # None: nothing is asked for
    cpu_model: Model = EVERYTHING


def domain_name(server_uuid: str) -> str:
    """Return libvirt's name of a server's domain."""
    return f"accelsched-{server_uuid}"


def domain_xml(spec: DomainSpec) -> str:
    """Return the definition of a server's domain."""
    domain = etree.Element("domain", type=spec.virt_type, nsmap={PREFIX: NAMESPACE})
    _text(domain, "name", domain_name(spec.server_uuid))
    _text(domain, "uuid", spec.server_uuid)
    _text(domain, "title", _printable(spec.name))
    _metadata(domain, spec)
    _text(domain, "memory", str(spec.memory_mb), unit="MiB")
    cpus.vcpus(domain, spec.vcpus, spec.cpus)
    _os(domain, spec)
    features = etree.SubElement(domain, "features")
    etree.SubElement(features, "acpi")
    etree.SubElement(features, "apic")
    cpu = cpus.model(domain, spec.virt_type, spec.cpu_model)
    cpus.guest_nodes(cpu, spec.vcpus, spec.cpus, spec.cpu_topology)
    etree.SubElement(domain, "clock", offset="utc")
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "destroy")
    _devices(domain, spec)
    etree.indent(domain)
    return etree.tostring(domain, encoding="unicode") + "\n"


def _os(domain: etree._Element, spec: DomainSpec) -> None:
    os_ = etree.SubElement(domain, "os")
    if spec.nvram is not None:
        os_.set("firmware", "efi")  # libvirt chooses the firmware, and makes the file for its variables
    _text(os_, "type", "hvm", arch=spec.arch, machine="q35")
    if spec.nvram is not None:
        etree.SubElement(etree.SubElement(os_, "firmware"), "feature", enabled="no", name="secure-boot")
        _text(os_, "nvram", str(spec.nvram))
    if spec.direct_boot is None:
        etree.SubElement(os_, "boot", dev="hd")
        return
    _text(os_, "kernel", str(spec.direct_boot.kernel))
    if spec.direct_boot.initrd is not None:
        _text(os_, "initrd", str(spec.direct_boot.initrd))
    _text(os_, "cmdline", spec.direct_boot.command_line)


def _metadata(domain: etree._Element, spec: DomainSpec) -> None:
    """Write our mark: whose domain this is, and what it carries."""
    server = etree.SubElement(etree.SubElement(domain, "metadata"), _own("server"))
    server.set("uuid", spec.server_uuid)
    server.set("node", spec.node_uuid)
    if spec.rescue_disk is not None:
        server.set("rescue", "yes")
    if spec.network is not None:
        server.set("network", spec.network)
    for tag, text in (
        ("name", _printable(spec.name)),
        ("project", spec.project_id),
        ("user", spec.user_id),
        ("flavor", _printable(spec.flavor)),
        ("image", spec.image_id),
    ):
        if text is not None:
            etree.SubElement(server, _own(tag)).text = text
    server.extend(device_mark(attachment, plug=attachment.plug) for attachment in spec.attachments)
    for plug in spec.leaving:
        etree.SubElement(server, _own("device"), plug=plug, attached="no")


def device_mark(attachment: Attachment, *, plug: str | None, attached: bool = True) -> etree._Element:
    """Return what a domain's metadata say of one of its devices.

    :param plug: id of the accelerator that it is, when it was attached to a server that was there
    :param attached: whether that is known to be done
    """
    device = etree.Element(_own("device"), provider=attachment.provider)
    match attachment:
        case MdevAttachment(_, uuid):
            device.attrib.update({"type": "mdev", "uuid": uuid})
        case PciAttachment(_, address, managed):
            device.attrib.update({"type": "pci", "address": address})
            if not managed:
                device.set("managed", "no")
        case SimulatedAttachment(_, name):
            device.attrib.update({"type": "simulated", "name": name})
    if plug is not None:
        device.set("plug", plug)
        if not attached:
            device.set("attached", "no")
    return device


def _devices(domain: etree._Element, spec: DomainSpec) -> None:
    devices = etree.SubElement(domain, "devices")
    hostdevs = [attachment for attachment in spec.attachments if not isinstance(attachment, SimulatedAttachment)]
    etree.SubElement(devices, "controller", type="usb", model="none")
    etree.SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
    interfaces = 0 if spec.network is None else 1
    ports = _OWN_PORTS + interfaces + len(hostdevs) + _SPARE_PORTS + _BRIDGE_PORTS
    for index in range(1, ports + 1):
        etree.SubElement(devices, "controller", type="pci", index=str(index), model="pcie-root-port")
    _bridge(devices, index=ports + 1, port=ports)
    targets = iter((DISK_TARGET, "vdb", "vdc"))
    for path in filter(None, (spec.rescue_disk, spec.disk)):
        disk = _disk(devices, path, file_format="qcow2", target=next(targets))
        disk[0].set("discard", "unmap")
    if spec.config_drive is not None:
        # A disk, not a CD-ROM: kernels for clouds often have no driver for SATA. Guests find it by its label.
        disk = _disk(devices, spec.config_drive, file_format="raw", target=next(targets))
        etree.SubElement(disk, "readonly")
    if spec.network is not None:
        interface = etree.SubElement(devices, "interface", type="network")
        etree.SubElement(interface, "mac", address=names.mac_address(spec.server_uuid))
        etree.SubElement(interface, "source", network=spec.network)
        etree.SubElement(interface, "model", type="virtio")
        etree.SubElement(interface, "rom", enabled="no")  # nobody boots from there, and hosts need no iPXE
    serial = etree.SubElement(devices, "serial", type="file")
    # virtlogd rolls the file over at its max_size; append keeps what an earlier start said.
    etree.SubElement(serial, "source", path=str(spec.console), append="on")
    etree.SubElement(serial, "target", port="0")
    rng = etree.SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")
    video = etree.SubElement(devices, "video")
    etree.SubElement(video, "model", type="none")
    # Devices under VFIO pin all of a guest's memory, so there is nothing to give back.
    etree.SubElement(devices, "memballoon", model="none" if hostdevs else "virtio")
    devices.extend(hostdev(attachment) for attachment in hostdevs)


def _bridge(devices: etree._Element, *, index: int, port: int) -> None:
    """Add slots of conventional PCI, which root ports are not: functions that are not PCI Express are plugged in there.

    Behind the last root port, by its address: libvirt would take the first, and move all that a guest has.
    """
    bridge = etree.SubElement(devices, "controller", type="pci", index=str(index), model="pcie-to-pci-bridge")
    etree.SubElement(bridge, "address", type="pci", domain="0x0000", bus=f"0x{port:02x}", slot="0x00", function="0x0")


def _disk(devices: etree._Element, path: Path, *, file_format: str, target: str) -> etree._Element:
    disk = etree.SubElement(devices, "disk", type="file", device="disk")
    etree.SubElement(disk, "driver", name="qemu", type=file_format)
    etree.SubElement(disk, "source", file=str(path))
    etree.SubElement(disk, "target", dev=target, bus="virtio")
    return disk


def hostdev(attachment: MdevAttachment | PciAttachment) -> etree._Element:
    """Return the definition of a device of the host in a domain."""
    device = etree.Element("hostdev", mode="subsystem")
    source = etree.Element("source")
    match attachment:
        case MdevAttachment(_, uuid):
            device.attrib.update({"type": "mdev", "managed": "no", "model": "vfio-pci"})
            etree.SubElement(source, "address", uuid=uuid)
        case PciAttachment(_, address, managed):
            device.attrib.update({"type": "pci", "managed": "yes" if managed else "no"})
            pci_domain, bus, rest = address.split(":")
            slot, function = rest.split(".")
            etree.SubElement(
                source, "address", domain=f"0x{pci_domain}", bus=f"0x{bus}", slot=f"0x{slot}", function=f"0x{function}"
            )
    device.append(source)
    return device


def _own(tag: str) -> str:
    return f"{{{NAMESPACE}}}{tag}"


def _text(parent: etree._Element, tag: str, text: str, **attributes: str) -> None:
    etree.SubElement(parent, tag, attributes).text = text


def _printable(text: str) -> str:
    """Return a name without what XML or libvirt's titles do not take: control characters and line ends."""
    return "".join(character if character.isprintable() else " " for character in text)
