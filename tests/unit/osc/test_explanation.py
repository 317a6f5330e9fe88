# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""An explanation as people read it."""

from __future__ import annotations

from typing import Any

from accelsched.osc import explanation


def told(**changes: Any) -> dict[str, Any]:
    weighers = {"RAMWeigher": {"raw": 10.0, "normalised": 1.0, "weighted": 0.5}}
    return {
        "asked": {
            "groups": [
                {"group": "", "resources": {"VCPU": 2}, "required": [], "forbidden": ["CUSTOM_OLD"]},
                {"group": "1", "resources": {"VGPU": 1}, "required": [["CUSTOM_A"]], "forbidden": []},
            ],
            "group_policy": "none",
        },
        "count": 1,
        "placed": 1,
        "hosts": 3,
        "stages": [
            {
                "kind": "candidates",
                "name": "VGPU",
                "hosts_left": 2,
                "hosts_removed": 1,
                "reason": "asked 1, most free 0",
            },
            {"kind": "filter", "name": "ComputeFilter", "hosts_left": 2, "hosts_removed": 0, "reason": "silent"},
        ],
        "top": [{"host": "h1", "score": 0.5, "weighers": weighers}],
        "failure": None,
        "server": {"id": "s-1", "name": "web", "project_id": "p"},
        "state": "active",
        "fault": None,
        "attempt": 1,
        "attempts": 1,
        "selection": {
            "host": "h1",
            "score": 0.5,
            "weighers": weighers,
            "devices": [{"group": "1", "provider_name": "h1_gpu", "resources": {"VGPU": 1}}],
            "device_scores": {"VGPU": {"h1_gpu": 0.75}},
        },
    } | changes


def test_it_says_what_was_asked_what_each_stage_removed_and_what_was_chosen():
    rows = explanation.readable(told())
    assert rows["asked"] == "2 VCPU, without CUSTOM_OLD\ngroup 1: 1 VGPU, with CUSTOM_A"
    assert rows["hosts left"] == "2 after VGPU, which removed 1: asked 1, most free 0\n2 after ComputeFilter"
    assert rows["chosen host"] == rows["best hosts"] == "h1: 0.500 (RAMWeigher +0.500)"
    assert rows["chosen devices"] == "h1_gpu: 1 VGPU"
    assert rows["devices compared"] == "VGPU: h1_gpu 0.750"
    assert "failure" not in rows


def test_a_server_without_a_place_shows_why():
    rows = explanation.readable(told(selection=None, failure="No valid host was found.", placed=0, state="error"))
    assert (rows["chosen host"], rows["failure"]) == ("(none)", "No valid host was found.")
    assert "chosen devices" not in rows


def test_what_would_fit_is_a_line_for_each_way() -> None:
    amount = {"what": "MEMORY_MB", "asked": 8192, "enough": 4096}
    trait = {"what": "trait CUSTOM_X", "asked": None, "enough": None}
    ways = {"relaxed": {"sets": [[amount, trait], [{**amount, "enough": 0}]], "complete": True}}
    assert explanation.would_fit(ways) == "MEMORY_MB 8192 -> 4096 and without trait CUSTOM_X\nMEMORY_MB 8192 -> 0"
    assert "nothing" in explanation.would_fit({"relaxed": {"sets": [], "complete": True}})
    assert explanation.would_fit({"relaxed": {"sets": [[trait]], "complete": False}}).count("\n") == 1
    assert explanation.would_fit({"relaxed": None}) == explanation.would_fit({}) == ""
