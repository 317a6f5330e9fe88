# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a domain's mark says of accelerators, as libvirt 9.0 told it in the lab: without its namespace. And what a guest
lets go of to be suspended."""

from __future__ import annotations

import threading

import pytest
from lxml import etree

from accelsched.agent.virt.base import PlugError, Progress
from accelsched.agent.virt.libvirt import plugs

TOLD = """
<server uuid="a24bcf0e-e8a5-455f-9937-226df1ea8cef" node="55aa6b2e-ac59-4fcb-9a25-2a56f43045d5">
  <name>plain</name>
  <device provider="p" type="mdev" uuid="acce15ed-0000-8000-a000-000000000000"/>
  <device provider="p" type="mdev" uuid="acce15ed-37a3-80f8-a688-b3ca62e8cd47" plug="one" attached="no"/>
  <device provider="q" type="pci" address="0000:03:00.0" plug="two"/>
</server>
"""


def test_accelerators_are_found_with_and_without_the_namespace() -> None:
    spaced = TOLD.replace("<server", '<server xmlns="urn:accelsched:domain:1.0"', 1)
    for text in (TOLD, spaced):
        assert plugs.plugs_of(etree.fromstring(text)) == {"one": False, "two": True}


class Domain:
    """What libvirt tells of one that has the function two, and the mediated device no longer."""

    def __init__(self, *, active: bool = True) -> None:
        self._active = active

    def isActive(self) -> bool:
        return self._active

    def XMLDesc(self) -> str:
        address = '<address domain="0x0000" bus="0x03" slot="0x00" function="0x0"/>'
        return f"<domain><devices><hostdev><source>{address}</source></hostdev></devices></domain>"


def test_what_a_guest_was_asked_for_in_vain_and_has_no_more_it_has_let_go_of() -> None:
    asked = etree.fromstring(TOLD.replace(" plug=", ' asked="yes" plug='))
    assert plugs.let_go(Domain(), asked) == {"one"}
    assert plugs.let_go(Domain(active=False), asked) == frozenset()
    assert plugs.let_go(Domain(), etree.fromstring(TOLD)) == frozenset()  # it was not asked


class Guest(Domain):
    """A domain that runs, with the mediated device of its own and the function two; and a guest of some mind."""

    OWN = "acce15ed-0000-8000-a000-000000000000"

    def __init__(self, mark: str, keeps: str = "nothing") -> None:
        super().__init__()
        self.keeps = keeps
        self._mark = mark
        self.devices = [
            f"<hostdev><source><address uuid='{self.OWN}'/></source></hostdev>",
            '<hostdev><source><address domain="0x0000" bus="0x03" slot="0x00" function="0x0"/></source></hostdev>',
        ]

    def XMLDesc(self) -> str:
        return f"<domain><devices>{''.join(self.devices)}</devices></domain>"

    def metadata(self, _kind: int, _namespace: str) -> str:
        return self._mark

    def setMetadata(self, _kind: int, text: str, _prefix: str, _namespace: str, _flags: int) -> None:
        self._mark = text

    def detachDeviceFlags(self, xml: str, _flags: int) -> None:
        source = etree.tostring(etree.fromstring(xml).find("source"), encoding="unicode")
        self.devices = [device for device in self.devices if self.keeps in device or not _same(device, source)]

    def attachDeviceFlags(self, xml: str, _flags: int) -> None:
        self.devices.append(xml)

    @property
    def lacks(self) -> bool:
        return plugs.lacks(self, etree.fromstring(self._mark))


def _same(device: str, source: str) -> bool:
    ours, theirs = (etree.fromstring(xml).find(".//address").attrib for xml in (device, f"<x>{source}</x>"))
    return dict(ours) == dict(theirs)


def put_away(guest: Guest) -> None:
    plugs.put_away(guest, 0.7, Progress(lambda _detail: None, threading.Event()))


SETTLED = TOLD.replace('plug="one" attached="no"', 'plug="one" attached="no" asked="yes"')


def test_a_guest_lets_go_of_all_it_has_for_a_while() -> None:
    guest = Guest(SETTLED)
    assert not guest.lacks
    put_away(guest)
    assert guest.devices == []
    assert guest.lacks
    put_away(guest)  # again, by an agent that was started anew
    plugs.give_back(guest)
    assert len(guest.devices) == 2  # not the one that was on its way out
    assert not guest.lacks


def test_what_a_guest_lets_go_of_after_it_was_not_suspended_it_is_given_back() -> None:
    guest = Guest(SETTLED, keeps="bus")
    with pytest.raises(PlugError, match=r"did not let go of the accelerator within 0\.7 s"):
        put_away(guest)
    assert guest.lacks  # the one that it let go of
    plugs.give_back(guest)
    assert not guest.lacks
    guest.devices = [device for device in guest.devices if "bus" not in device]
    assert guest.lacks
    plugs.give_back(guest)
    assert not guest.lacks


def test_one_that_is_wanted_back_by_nobody_is_not_given_back() -> None:
    guest = Guest(SETTLED.replace('plug="two"', 'plug="two" asked="yes"'))
    put_away(guest)
    plugs.give_back(guest)
    assert [Guest.OWN in device for device in guest.devices] == [True]
    assert not guest.lacks


def test_a_domain_that_was_not_to_be_suspended_is_left_as_it_is() -> None:
    guest = Guest(SETTLED)
    guest.devices = []
    plugs.give_back(guest)
    assert (guest.devices, guest.lacks) == ([], False)
