# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What is attached to a domain while it runs, and detached from it.

A domain's metadata says which of its devices were plugged in, by the accelerator's id. It says so before a device is
attached (``attached="no"``) and until it is gone, so that whoever finds it after a kill can go on. Of one that a guest
did not let go of in time it says so (``asked="yes"``), for the request stays with the guest, which may let go at any
time. A domain that does not run gets its devices when it is started: each start defines it anew.

A domain with devices whose state QEMU cannot save is suspended without them. Its mark says before it is asked for them
that it was (``<server away="yes">``), and as long as it runs on since: a guest that kept them then may let go of them
later, and gets them back.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import libvirt
from lxml import etree

from accelsched.agent.devices.base import Attachment, MdevAttachment, PciAttachment, SimulatedAttachment
from accelsched.agent.virt.base import PlugError, Progress
from accelsched.agent.virt.libvirt.domain import NAMESPACE, PREFIX, device_mark, hostdev

# libvirt tells a domain's metadata without their namespace, and puts them into it when they are set.
_PLUGGED = "{*}device[@plug]"
_ASKED = "{*}device[@asked]"
_AWAY = "away"
_ASK_AGAIN_S = 10.0  # a guest that is still booting does not hear it
_LOOK_AGAIN_S = 0.5


class LateError(PlugError):
    """A guest did not let go of a device in time; it may later."""


def plugs_of(mark: etree._Element) -> dict[str, bool]:
    """Return the accelerators that a domain's mark names, and whether they are attached."""
    return {str(device.get("plug")): device.get("attached") != "no" for device in mark.iterfind(_PLUGGED)}


def let_go(domain: Any, mark: etree._Element) -> frozenset[str]:
    """Return the accelerators that the guest of a domain was asked for in vain, and has let go of since.

    :param mark: the domain's
    """
    asked = mark.findall(_ASKED)
    if not asked or not domain.isActive():
        return frozenset()
    there = _addresses(domain)
    kept = {device.get("plug") for device in asked if _address(hostdev(_attachment(device))) in there}
    return frozenset(str(device.get("plug")) for device in asked) - kept


def lacks(domain: Any, mark: etree._Element) -> bool:
    """Tell whether a domain runs without a device that it was to let go of for being suspended.

    :param mark: the domain's
    """
    if mark.get(_AWAY) is None or not domain.isActive():
        return False
    there = _addresses(domain)
    return any(_address(hostdev(_attachment(device))) not in there for device in _wanted(mark))


def put_away(domain: Any, timeout_s: float, progress: Progress) -> None:
    """Have a guest let go of all devices that it has, until :func:`give_back`.

    :param timeout_s: seconds that the guest may take for all
    :raises PlugError: when it does not
    """
    mark = _read_mark(domain)
    mark.set(_AWAY, "yes")
    _write_mark(domain, mark)
    _free(domain, [_attachment(device) for device in _kept(mark)], timeout_s, progress)


def give_back(domain: Any) -> None:
    """Attach what a domain's mark says that it has, and it has not.

    :raises PlugError: when the hypervisor refuses
    """
    mark = _read_mark(domain)
    if mark.get(_AWAY) is not None:
        _attach(domain, [_attachment(device) for device in _wanted(mark)])


def attach(domain: Any, plug: str, attachments: Sequence[Attachment]) -> None:
    """Attach devices to a domain. What is attached already is left as it is.

    :raises PlugError: when the hypervisor refuses
    """
    _mark(domain, plug, attachments, attached=False)
    _attach(domain, attachments)
    _mark(domain, plug, attachments, attached=True)


def detach(domain: Any, plug: str, timeout_s: float, progress: Progress) -> None:
    """Have a guest let go of devices. What is gone already is not missed.

    :param timeout_s: seconds that the guest may take
    :raises PlugError: when it does not
    """
    leaving = [attachment for name, attachment in _told(domain) if name == plug]
    try:
        _free(domain, leaving, timeout_s, progress)
    except LateError:
        _mark(domain, plug, leaving, attached=True, asked=True)
        raise
    if leaving:
        _mark(domain, plug, leaving, attached=False)


def forget(domain: Any, plug: str) -> None:
    """Strike devices from a domain's mark."""
    _mark(domain, plug, (), attached=False)


def _attach(domain: Any, attachments: Sequence[Attachment]) -> None:
    """Attach to a domain that runs what it has not."""
    if not domain.isActive():
        return
    there = _addresses(domain)
    for attachment in attachments:
        if isinstance(attachment, SimulatedAttachment) or _address(hostdev(attachment)) in there:
            continue
        try:
            domain.attachDeviceFlags(_xml(attachment), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        except libvirt.libvirtError as exc:
            raise PlugError("the hypervisor could not attach the accelerator") from exc


def _free(
    domain: Any, attachments: Sequence[MdevAttachment | PciAttachment], timeout_s: float, progress: Progress
) -> None:
    """Have a guest let go of devices, one after the other.

    :param timeout_s: seconds that it may take for all
    :raises LateError: when it does not
    """
    deadline = time.monotonic() + timeout_s
    for attachment in attachments:
        asked = float("-inf")
        while domain.isActive() and _address(hostdev(attachment)) in _addresses(domain):
            progress.check()
            if time.monotonic() > deadline:
                raise LateError(f"the guest did not let go of the accelerator within {timeout_s:g} s")
            if time.monotonic() - asked >= _ASK_AGAIN_S:
                asked = time.monotonic()
                _ask(domain, attachment)
            progress.cancelled.wait(_LOOK_AGAIN_S)


def _ask(domain: Any, attachment: MdevAttachment | PciAttachment) -> None:
    try:
        domain.detachDeviceFlags(_xml(attachment), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError as exc:
        # The first request may be pending still, or the device be gone this moment; whether it is, is looked at.
        if exc.get_error_code() not in (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_ERR_DEVICE_MISSING):
            raise PlugError("the hypervisor could not detach the accelerator") from exc


def _told(domain: Any) -> list[tuple[str, MdevAttachment | PciAttachment]]:
    """Return what a domain's mark says that was plugged in."""
    plugged = [device for device in _kept(_read_mark(domain)) if device.get("plug") is not None]
    return [(str(device.get("plug")), _attachment(device)) for device in plugged]


def _kept(mark: etree._Element) -> list[etree._Element]:
    """Return the parts of a mark that are about devices of the host."""
    return [device for device in mark.iterfind("{*}device") if device.get("type") in ("mdev", "pci")]


def _wanted(mark: etree._Element) -> list[etree._Element]:
    """Return those of them that nobody has begun to detach."""
    return [device for device in _kept(mark) if device.get("attached") != "no" and device.get("asked") is None]


def _attachment(device: etree._Element) -> MdevAttachment | PciAttachment:
    """Return the device that a part of a mark is about, which is not simulated."""
    provider = str(device.get("provider"))
    if device.get("type") == "mdev":
        return MdevAttachment(provider, str(device.get("uuid")))
    return PciAttachment(provider, str(device.get("address")), device.get("managed") != "no")


def _read_mark(domain: Any) -> etree._Element:
    return etree.fromstring(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE))


def _mark(domain: Any, plug: str, attachments: Sequence[Attachment], *, attached: bool, asked: bool = False) -> None:
    """Write what was plugged in into a domain's mark, in the place of what it said of the same accelerator."""
    mark = _read_mark(domain)
    for device in [device for device in mark.iterfind(_PLUGGED) if device.get("plug") == plug]:
        mark.remove(device)
    for attachment in attachments:
        device = device_mark(attachment, plug=plug, attached=attached)
        if asked:
            device.set("asked", "yes")
        mark.append(etree.Element("device", {str(key): str(value) for key, value in device.items()}))
    _write_mark(domain, mark)


def _write_mark(domain: Any, mark: etree._Element) -> None:
    flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG
    if domain.isActive():
        flags |= libvirt.VIR_DOMAIN_AFFECT_LIVE
    text = etree.tostring(mark, encoding="unicode")
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, text, PREFIX, NAMESPACE, flags)


def _xml(attachment: MdevAttachment | PciAttachment) -> str:
    return etree.tostring(hostdev(attachment), encoding="unicode")


def _addresses(domain: Any) -> list[Mapping[str, str]]:
    """Return where the devices of the host are that a domain which runs has."""
    return [_address(device) for device in etree.fromstring(domain.XMLDesc().encode()).iterfind("./devices/hostdev")]


def _address(device: etree._Element) -> Mapping[str, str]:
    source = device.find("./source/address")
    return {} if source is None else {str(key): str(value) for key, value in source.items()}
