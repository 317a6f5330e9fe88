# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Mapping

import pytest

from accelsched import errors
from accelsched.accelerator import own_requests


@pytest.mark.parametrize(
    ("group", "image", "units"),
    [
        ({"resources:VGPU": "2", "trait:A": "required"}, None, 2 * [{"resources:VGPU": "1", "trait:A": "required"}]),
        ({"resources:VGPU": "0"}, None, []),
        (
            {"resources:FPGA": "1", "resources:CUSTOM_X": "1", "accel:function_id": "f"},
            None,
            [{"resources:FPGA": "1", "accel:function_id": "f"}, {"resources:CUSTOM_X": "1"}],
        ),
        (
            {"resources:FPGA": "1", "resources:CUSTOM_X": "1"},
            "i",
            [{"resources:FPGA": "1", "accel:bitstream_id": "i"}, {"resources:CUSTOM_X": "1"}],
        ),
    ],
)
def test_a_group_is_taken_apart_into_its_units(
    group: Mapping[str, str], image: str | None, units: list[Mapping[str, str]]
) -> None:
    assert [asked for _, asked in own_requests.units_of(group, image)] == units


@pytest.mark.parametrize(
    ("group", "why"),
    [
        ({"resources:MEMORY_MB": "1"}, "server's size"),
        ({"resources:FPGA": "1", "accel:bitstream_id": "b"}, "says already"),
    ],
)
def test_a_group_of_which_no_units_can_be_made_is_refused(group: Mapping[str, str], why: str) -> None:
    with pytest.raises(errors.InvalidError, match=why):
        own_requests.units_of(group, "i")
