# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Names that are derived, and so are the same wherever they are asked for."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from accelsched import names


@given(st.uuids())
def test_a_servers_mac_address_is_its_own_for_ever_and_one_that_may_be_made_up(server: uuid.UUID) -> None:
    address = names.mac_address(str(server))
    octets = [int(octet, 16) for octet in address.split(":")]
    assert len(octets) == 6
    assert octets[0] & 0b11 == 0b10  # of one station, locally administered
    assert octets[0] != 0xFE  # libvirt's own end
    assert names.mac_address(str(server)) == address
    assert names.mac_address(str(uuid.uuid4())) != address
