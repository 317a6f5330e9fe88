# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The definition of a domain that goes to another host as it runs.

What the guest sees must stay as it is, to the slot of each device; what the host gives to it is of the new host: whose
mark it carries, files, the network, CPUs, NUMA nodes, devices. So the definition that the domain has where it runs is
taken, and of the one that would be made here, what is of this host.
"""

from __future__ import annotations

import copy

from lxml import etree

from accelsched import errors

# Parts that say where on the host the guest's CPUs and memory are, and whose the domain is.
_OF_HOST = ("metadata", "cputune", "numatune")


def adapt(domain: str, here: str) -> str:
    """Return a domain's definition with this host's parts.

    :param domain: as it runs elsewhere
    :param here: as it would be built here
    :raises accelsched.errors.ConflictError: when the two do not have the same devices
    """
    comes, is_here = _parsed(domain), etree.fromstring(here)
    for tag in _OF_HOST:
        _replace(comes, is_here, tag)
    _cpu_set(comes, is_here)
    _firmware(comes, is_here)
    _disks(comes, is_here)
    _console(comes, is_here)
    _network(comes, is_here)
    _hostdevs(comes, is_here)
    return etree.tostring(comes, encoding="unicode")


def _parsed(text: str) -> etree._Element:
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    try:
        return etree.fromstring(text, parser)
    except etree.XMLSyntaxError as exc:
        raise errors.ConflictError(f"the server's definition cannot be read: {exc}") from exc


def _replace(comes: etree._Element, is_here: etree._Element, tag: str) -> None:
    """Put a top-level part of this host's in the place of the other one's, or take it out where there is none here."""
    old, new = comes.find(tag), is_here.find(tag)
    if old is not None:
        comes.remove(old)
    if new is not None:
        comes.append(copy.deepcopy(new))


def _cpu_set(comes: etree._Element, is_here: etree._Element) -> None:
    vcpu, here = comes.find("vcpu"), is_here.find("vcpu")
    if vcpu is None or here is None:
        raise errors.ConflictError("the server's definition has no number of CPUs")
    if "cpuset" in vcpu.attrib:
        del vcpu.attrib["cpuset"]
    if "cpuset" in here.attrib:
        vcpu.set("cpuset", here.attrib["cpuset"])


def _firmware(comes: etree._Element, is_here: etree._Element) -> None:
    for path in ("os/nvram", "os/kernel", "os/initrd"):
        old, new = comes.find(path), is_here.find(path)
        if (old is None) != (new is None):
            raise errors.ConflictError(f"the server's definition differs in {path}")
        if old is not None and new is not None:
            old.text = new.text


def _disks(comes: etree._Element, is_here: etree._Element) -> None:
    files = {_target(disk): disk.find("source") for disk in is_here.iterfind("devices/disk")}
    disks = comes.findall("devices/disk")
    if sorted(map(_target, disks)) != sorted(files):
        raise errors.ConflictError("the server has other disks than were made for it")
    for disk in disks:
        for chain in disk.findall("backingStore"):  # libvirt finds this host's by itself
            disk.remove(chain)
        _put_source(disk, files[_target(disk)])


def _target(disk: etree._Element) -> str:
    target = disk.find("target")
    return "" if target is None else str(target.get("dev"))


def _put_source(device: etree._Element, source: etree._Element | None) -> None:
    old = device.find("source")
    if old is None or source is None:
        raise errors.ConflictError(f"a {device.tag} of the server has no source")
    device.replace(old, copy.deepcopy(source))


def _console(comes: etree._Element, is_here: etree._Element) -> None:
    here = is_here.find("devices/serial/source")
    for port in (*comes.iterfind("devices/serial"), *comes.iterfind("devices/console")):
        _put_source(port, here)


def _network(comes: etree._Element, is_here: etree._Element) -> None:
    interfaces, here = comes.findall("devices/interface"), is_here.findall("devices/interface")
    if len(interfaces) != len(here):
        raise errors.ConflictError("the server's network is on one of the two hosts only")
    for interface, other in zip(interfaces, here, strict=True):
        _put_source(interface, other.find("source"))


def _hostdevs(comes: etree._Element, is_here: etree._Element) -> None:
    """Give the devices of this host in the place of the other one's, in the order of the flavor's request groups."""
    devices, here = comes.findall("devices/hostdev"), is_here.findall("devices/hostdev")
    if [device.get("type") for device in devices] != [device.get("type") for device in here]:
        raise errors.ConflictError("the server has other devices than were made for it")
    for device, other in zip(devices, here, strict=True):
        device.set("managed", str(other.get("managed")))
        _put_source(device, other.find("source"))
