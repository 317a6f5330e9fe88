# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What the options of ``add accelerator`` ask for."""

from __future__ import annotations

from accelsched.osc import accelerators


def test_only_what_is_given_is_asked() -> None:
    parser = accelerators.AddAccelerator(None, None).get_parser("add")
    assert accelerators.request_of(parser.parse_args(["web", "VGPU"])) == {"resource_class": "VGPU"}
    full = parser.parse_args(
        ["--required", "A", "--required", "B", "--forbidden", "C", "--function-id", "f", "w", "FPGA"]
    )
    assert accelerators.request_of(full) == {
        "resource_class": "FPGA",
        "required": ["A", "B"],
        "forbidden": ["C"],
        "function_id": "f",
    }
