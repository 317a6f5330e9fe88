# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a domain's mark says of accelerators, as libvirt 9.0 told it in the lab: without its namespace."""

from __future__ import annotations

from lxml import etree

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
