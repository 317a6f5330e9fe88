# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What the options ask for, and an answer as people read it."""

from __future__ import annotations

from accelsched.osc import placement


def test_only_what_is_given_is_asked() -> None:
    parser = placement.SimulatePlacement(None, None).get_parser("simulate")
    plain = parser.parse_args(["--flavor", "f"])
    assert placement.request_of(plain, "id", None) == {"flavor": "id", "count": 1}
    options = [
        *("--flavor", "f", "--count", "3", "--hint", "same_host=a", "--hint", "same_host=b"),
        "--hint",
        "group=g",
    ]
    full = parser.parse_args([*options, "--property", "resources:VGPU=2", "--availability-zone", "az", "--seed", "s"])
    assert placement.request_of(full, "id", "image") == {
        "flavor": "id",
        "count": 3,
        "image": "image",
        "availability_zone": "az",
        "hints": {"same_host": ["a", "b"], "group": "g"},
        "properties": {"resources:VGPU": "2"},
        "seed": "s",
    }


def test_an_answer_says_who_gets_how_many_and_what_is_left() -> None:
    rows = placement.readable(
        {
            "seed": "s",
            "count": 3,
            "placed": 2,
            "hosts": [
                {
                    "host": "h1",
                    "servers": 2,
                    "devices": [
                        {"provider_uuid": "u0", "provider_name": "h1", "servers": 2, "resources": {"VCPU": 4}},
                        {"provider_uuid": "u1", "provider_name": "h1_gpu_0", "servers": 2, "resources": {"VGPU": 2}},
                    ],
                }
            ],
            "free": {"VGPU": {"capacity": 8, "free_before": 2, "free_after": 0}},
            "explanation": {
                "hosts": 4,
                "failure": "Only 2 of 3 servers fit.",
                "stages": [{"name": "VGPU", "hosts_left": 1, "hosts_removed": 3, "reason": "asked 1, most free 0"}],
            },
        }
    )
    assert rows == {
        "servers placed": "2 of 3",
        "hosts": "h1: 2\n  h1: 4 VCPU\n  h1_gpu_0: 2 VGPU",
        "free": "VGPU: 0 of 8, 2 before",
        "hosts looked at": "4",
        "hosts left": "1 after VGPU, which removed 3: asked 1, most free 0",
        "seed": "s",
        "failure": "Only 2 of 3 servers fit.",
    }
