# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What meets each tolerance, and what meets each kind of question that Placement answers wrongly, as small as can be.

The last step of each dialogue is the one about it; asked again, it is answered as before.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from placement_exchange import Step
from placement_model import SHARES


def _provider(
    index: int,
    parent: str | None = None,
    traits: tuple[str, ...] = (),
    aggregates: tuple[str, ...] = (),
    **totals: int,
) -> list[Step]:
    where, generation = f"/resource_providers/<p{index}>", f"<generation p{index}>"
    name = {"name": f"n{index}", "uuid": f"<p{index}>", "parent_provider_uuid": parent}
    parts: dict[str, Any] = {
        "inventories": {name: {"total": total} for name, total in totals.items()},
        "traits": list(traits),
        "aggregates": list(aggregates),
    }
    return [
        Step("POST", "/resource_providers", body=name),
        *(
            Step("PUT", f"{where}/{part}", body={"resource_provider_generation": generation, part: value})
            for part, value in parts.items()
            if value
        ),
    ]


def _stock(**inventories: Any) -> Step:
    body = {"resource_provider_generation": "<generation p0>", "inventories": inventories}
    return Step("PUT", "/resource_providers/<p0>/inventories", body=body)


def _candidates(query: str, minor: int = 39) -> Step:
    return Step("GET", f"/allocation_candidates?{query}", minor)


_CONSUMER_AT_7 = {
    "allocations": {"<p0>": {"resources": {"VCPU": 1}}},
    "project_id": "p1",
    "user_id": "u1",
    "consumer_generation": 7,
    "consumer_type": "INSTANCE",
}
_NO_CLASS = {"resource_provider_generation": 0, "inventories": {"CUSTOM_NONE": {"total": 1}}}
_WRONG_GENERATION = {"resource_provider_generation": 7, "inventories": {"x": {"total": "x"}}}
_RESHAPE = {"inventories": {"<p0>": _NO_CLASS}, "allocations": {"<c0>": _CONSUMER_AT_7}}
_ODD = {"resource_provider_generation": 0, "inventories": {"x": None}}
# One shares from inside a tree that has not all that is asked for.
_SHARING_INSIDE = [
    *_provider(0),
    *_provider(1, "<p0>", (SHARES,), ("<a0>",), VGPU=4),
    *_provider(2, None, (), ("<a0>",), VCPU=4),
]

TOLERATED: dict[str, list[list[Step]]] = {
    "a number beyond SQLite's": [
        [_candidates(f"resources=VCPU:{10**25}")],
        [*_provider(0, VCPU=4), Step("GET", f"/resource_providers?resources=VCPU:{10**25}")],
    ],
    "inventories of what is no class, in odd forms": [
        [*_provider(0), _stock(x={"total": "x"})],
        [*_provider(0), dataclasses.replace(_stock(x={"total": "x"}), headers={"Accept": "text/html"})],
        [*_provider(0), _stock(VCPU={"total": 1}, x=[[]])],
        [*_provider(0), Step("POST", "/reshaper", body={**_RESHAPE, "inventories": {"<p0>": _ODD}})],
        [
            *_provider(0),
            *_provider(1),
            Step("POST", "/reshaper", body={**_RESHAPE, "inventories": {"<p0>": _ODD, "<p1>": _WRONG_GENERATION}}),
        ],
        [*_provider(0), Step("POST", "/reshaper", body={**_RESHAPE, "inventories": {"<p0>": _ODD, "<p5>": _NO_CLASS}})],
    ],
    "Placement fails to list candidates": [
        [*_SHARING_INSIDE, _candidates("resources=VCPU:1,VGPU:1")],
        [*_SHARING_INSIDE, _candidates("resources=VCPU:1,VGPU:1", 10)],
        [*_SHARING_INSIDE, _candidates("resources=VCPU:1,VGPU:1&limit=1", 29)],
    ],
    "a name that Placement never looked at": [
        [_candidates("resources1=VCPU:1&resources2=CUSTOM_NONE:1&group_policy=none")],
        [_candidates("resources1=VCPU:1&resources2=VCPU:1&required2=!CUSTOM_NONE&group_policy=none", 25)],
    ],
    "errors in HTML": [
        [Step("GET", "/resource_providers/<p0>", headers={"Accept": "text/html"})],
        [Step("GET", "/traits", headers={"Accept": "application/json;q=0"})],
    ],
    "last-modified of what never changed": [
        [
            *_provider(0),
            *_provider(1, "<p0>"),
            Step("PUT", "/resource_providers/<p1>", body={"name": "n1", "parent_provider_uuid": "<p0>"}),
        ],
    ],
    "a malformed limit before a good one": [[_candidates("resources=VCPU:1&limit=x&limit=1")]],
    "two mistakes in the inventories of one request": [
        [*_provider(0), Step("POST", "/reshaper", body=_RESHAPE)],
        [*_provider(0), Step("PUT", "/resource_providers/<p0>/inventories", body=_WRONG_GENERATION)],
    ],
    "an absurd allocation_ratio": [[*_provider(0), _stock(VCPU={"total": 2, "allocation_ratio": 10.0**25})]],
    "a provider whose uuid nobody gave": [[Step("POST", "/resource_providers", body={"name": "n0"})]],
    "wildcards in a prefix": [
        [Step("GET", "/traits?name=startswith:CUSTOM_%25")],
        [Step("GET", "/traits?name=startswith:HW_CPU_X86_____&associated=false")],
    ],
    "a media type in capitals": [
        [
            Step(
                "PUT",
                "/resource_providers/<p0>/traits",
                body={"resource_provider_generation": 0, "traits": []},
                headers={"Content-Type": "APPLICATION/JSON"},
            )
        ],
        [
            *_provider(0, VCPU=4),
            Step(
                "PUT",
                "/resource_providers/<p0>/inventories/VCPU",
                body={"resource_provider_generation": 1, "total": 2, "allocation_ratio": 10.0**25},
                headers={"Content-Type": "APPLICATION/JSON"},
            ),
        ],
    ],
    "a NUL in a path": [[Step("GET", "/resource_providers/<p0>%00")]],
    "a newline at the end of a name": [[_candidates("resources%0A=VCPU:1")], [Step("PUT", "/traits/CUSTOM_X0%0A")]],
    "what is no JSON": [
        [
            *_provider(0),
            Step(
                "PUT",
                "/resource_providers/<p0>/inventories/VCPU",
                raw=b'{"resource_provider_generation": 0, "total": 1, "allocation_ratio": NaN}',
                headers={"Content-Type": "application/json"},
            ),
        ]
    ],
}

_TWO_IN_A_TREE = [*_provider(0, VGPU=4), *_provider(1, "<p0>", VGPU=4)]
_SHARING = [
    *_provider(0, None, (SHARES,), ("<a0>",), VCPU=4, VGPU=4),
    *_provider(1, None, (), ("<a0>",), VCPU=4, VGPU=4),
    *_provider(2, "<p0>", VGPU=4),
]
_TWO_TREES = [*_provider(0, None, ("CUSTOM_T0",), VCPU=4), *_provider(1)]

WRONG: dict[str, list[Step]] = {
    "amounts added to what candidates share": [*_TWO_IN_A_TREE, _candidates("resources=VGPU:1&resources1=VGPU:1")],
    "amounts added under isolate": [
        *_TWO_IN_A_TREE,
        _candidates("resources=VGPU:1&resources1=VGPU:1&resources2=VGPU:1&group_policy=isolate"),
    ],
    "amounts added under isolate, without mappings": [
        *_TWO_IN_A_TREE,
        _candidates("resources=VGPU:1&resources1=VGPU:1&resources2=VGPU:1&group_policy=isolate", 30),
    ],
    "a tree lost": [*_SHARING, _candidates("resources=VCPU:1&resources1=VGPU:1")],
    "a tree lost, without mappings": [*_SHARING, _candidates("resources=VCPU:1&resources1=VGPU:1", 30)],
    "the tree of a group without resources": [
        *_TWO_TREES,
        _candidates("resources1=VCPU:1&required2=CUSTOM_T0&in_tree2=<p1>&group_policy=none&same_subtree=1,2"),
    ],
}


def _claims(*consumers: str, provider: str = "<p0>") -> dict[str, Any]:
    claim = {**_CONSUMER_AT_7, "allocations": {provider: {"resources": {"VCPU": 1}}}, "consumer_generation": None}
    return dict.fromkeys(consumers, claim)


_ONE_CLAIM = Step("PUT", "/allocations/<c0>", body=_claims("<c0>")["<c0>"])

LEFT_BEHIND: dict[str, list[Step]] = {
    "a consumer": [
        *_provider(0, VCPU=4),
        Step("POST", "/allocations", body=_claims("<c0>", provider="<p5>")),
        _ONE_CLAIM,
    ],
    "a consumer named in capitals": [
        *_provider(0, VCPU=4),
        Step("POST", "/allocations", body=_claims("<c0 upper>", provider="<p5>")),
        _ONE_CLAIM,
        Step("POST", "/allocations", body=_claims("<c0 upper>")),
    ],
    "a consumer named in capitals in a path": [
        *_provider(0, VCPU=4),
        Step("PUT", "/allocations/<c0 upper>", body=_claims("<c0>", provider="<p5>")["<c0>"]),
        _ONE_CLAIM,
    ],
}
"""What Placement leaves behind when it refuses allocations; each dialogue then asks for it."""
