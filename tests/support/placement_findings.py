# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What random dialogues found different once, to be said in every dialogue from then on."""

from __future__ import annotations

from typing import Any

from placement_exchange import Step

_TOP = "abababab-0000-4000-8000-000000000001"
_NEXT = "abababab-0000-4000-8000-000000000002"
_NOBODY = "abababab-0000-4000-8000-000000000009"
_VERSION = "OpenStack-API-Version"


def _stock(generation: int, **inventories: Any) -> dict[str, Any]:
    return {"resource_provider_generation": generation, "inventories": inventories}


def _reshape(provider_generations: dict[str, int], allocations: dict[str, Any] | None = None) -> Step:
    inventories = {uuid: _stock(generation) for uuid, generation in provider_generations.items()}
    return Step("POST", "/reshaper", 39, {"inventories": inventories, "allocations": allocations or {}})


def findings() -> list[Step]:
    """Return them, each after a word on what it is about."""
    top, next_ = f"/resource_providers/{_TOP}", f"/resource_providers/{_NEXT}"
    made = [
        Step("POST", "/resource_providers", 39, {"name": "finding", "uuid": _TOP}),
        Step("POST", "/resource_providers", 39, {"name": "finding 2", "uuid": _NEXT}),
    ]
    framing = [
        # Query strings are UTF-8.
        Step("GET", "/usages?project_id=%C3%BCn%C3%AFcode"),
        Step("GET", "/resource_providers?name=%C3%BC"),
        # What only begins with "all" is the name of a consumer type that nobody has.
        Step("GET", "/usages?project_id=p1&consumer_type=all%20"),
        Step("GET", "/usages?project_id=p1&consumer_type=unknown%20"),
        # An Accept header that is none counts for nothing.
        Step("GET", "/traits?name=in:HW_CPU_X86_AVX", headers={"Accept": "nonsense"}),
        Step("GET", "/traits?name=in:HW_CPU_X86_AVX", headers={"Accept": ""}),
        # Nothing is found at an empty segment of a path, not even a method that is not allowed.
        Step("POST", "/resource_providers//inventories"),
        Step("GET", "//traits"),
        # Versions are two integers however they are written.
        *(
            Step("GET", "/traits?name=in:X", headers={_VERSION: f"placement {text}"})
            for text in ("1.-1", "1.010", "-1.2")
        ),
        # General sentences of errors.
        Step("PATCH", "/reshaper"),
        Step("PUT", "/resource_classes/CUSTOM_FINDING", 4),
        Step("POST", "/resource_classes", 39, {"name": "CUSTOM_X"}, headers={"Content-Type": "text/x"}),
    ]
    capacities = [
        # int(-0.5) is 0: a capacity is cut towards zero.
        Step("PUT", f"{top}/inventories", 39, _stock(0, VCPU={"total": 1, "reserved": 2, "allocation_ratio": 0.5})),
        Step("PUT", f"{top}/inventories", 39, _stock(1, VCPU={"total": 1, "reserved": 4, "allocation_ratio": 0.5})),
        Step("PUT", f"{top}/inventories", 39, _stock(1, DISK_GB={"total": 1, "reserved": 2, "allocation_ratio": 0.5})),
        Step("GET", f"{top}/inventories"),
        # A wrong generation is named before a wrong class.
        Step("PUT", f"{top}/inventories", 39, _stock(7, vcpu={"total": 1})),
        Step(
            "PUT", f"{top}/inventories", 39, {"resource_provider_generation": 2, "inventories": {"vcpu": {"total": 1}}}
        ),
    ]
    reshaping = [
        # Providers are looked at in the order of the request.
        _reshape({_NEXT: 9, _TOP: 9, _NOBODY: 0}),
        _reshape({_NOBODY: 0, _TOP: 9}),
        # A provider that is left without inventories advances once.
        _reshape({_TOP: 2}),
        Step("GET", top),
    ]
    names = [
        # A new name for a class is seen wherever the class is.
        Step("POST", "/resource_classes", 39, {"name": "CUSTOM_FINDING"}),
        Step("PUT", f"{next_}/inventories", 39, _stock(0, CUSTOM_FINDING={"total": 3}, VCPU={"total": 4})),
        Step("GET", "/allocation_candidates?resources=CUSTOM_FINDING:1"),
        Step("PUT", "/resource_classes/CUSTOM_FINDING", 6, {"name": "CUSTOM_FOUND"}),
        Step("GET", "/allocation_candidates?resources=CUSTOM_FOUND:1"),
        Step("GET", "/allocation_candidates?resources=CUSTOM_FINDING:1"),
        Step("GET", "/resource_providers?resources=CUSTOM_FOUND:1"),
        # A group that asks for nothing, not even a trait, is served by nobody.
        Step(
            "GET",
            f"/allocation_candidates?resources1=CUSTOM_FOUND:1&in_tree2={_NEXT}&group_policy=none&same_subtree=1,2",
        ),
        Step(
            "GET",
            "/allocation_candidates?resources1=CUSTOM_FOUND:1&required2=!HW_CPU_X86_VMX&group_policy=none&same_subtree=1,2",
        ),
        # Of two lists of resources the last counts, and only there a class without a name is missed.
        Step("GET", "/allocation_candidates?resources=:1&resources=CUSTOM_FOUND:1"),
        Step("GET", "/allocation_candidates?resources=:1"),
        Step("GET", "/resource_providers?resources=:1"),
        # Of two limits the first counts.
        Step("GET", "/allocation_candidates?resources=CUSTOM_FOUND:1&limit=1000&limit=1"),
        Step("GET", "/allocation_candidates?resources=CUSTOM_FOUND:1&limit=1&limit=x"),
        # Of two policies the first counts, and an empty one is none.
        *(
            Step("GET", f"/allocation_candidates?resources1=CUSTOM_FOUND:1&resources2=CUSTOM_FOUND:1&{policies}")
            for policies in (
                "group_policy=&group_policy=none",
                "group_policy=isolate&group_policy=none",
                "group_policy=none&group_policy=isolate",
            )
        ),
        # A provider can be left without a name.
        Step("PUT", top, 39, {"name": ""}),
        Step("PUT", top, 39, {"name": "finding"}),
    ]
    undone = [
        Step("DELETE", f"{next_}/inventories"),
        Step("DELETE", "/resource_classes/CUSTOM_FOUND"),
        *(Step("DELETE", where) for where in (top, next_)),
    ]
    return [*made, *framing, *capacities, *reshaping, *names, *undone]
