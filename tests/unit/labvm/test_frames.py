# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from labvm import frames


@given(kind=st.sampled_from([frames.INPUT, frames.OUTPUT, frames.EXIT]), payload=st.binary(max_size=4096))
def test_a_frame_arrives_as_it_was_sent(kind: bytes, payload: bytes) -> None:
    left, right = socket.socketpair()
    with left, right:
        frames.send(left, kind, payload)
        assert frames.receive(right) == (kind, payload)


def test_the_other_side_closing_within_a_frame_is_told_from_a_frame() -> None:
    left, right = socket.socketpair()
    with right:
        with left:
            left.sendall(struct.pack(">cI", frames.OUTPUT, 10) + b"half")
        with pytest.raises(EOFError):
            frames.receive(right)


def test_a_frame_longer_than_allowed_is_refused_unread() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(struct.pack(">cI", frames.OUTPUT, frames.MAX_PAYLOAD + 1))
        with pytest.raises(ValueError, match=r"more than"):
            frames.receive(right)
