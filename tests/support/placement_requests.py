# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Random dialogues with a Placement server, for hypothesis: a small fleet is made, then anything is asked of it.

What is drawn is symbolic, so that every request stands by itself and a dialogue can be shrunk by leaving requests
out. In paths and bodies ``<p2>`` stands for the uuid of the third provider, ``<c0>`` for a consumer's, ``<a1>`` for an
aggregate's, each also as ``<p2 upper>`` and ``<p2 bare>`` (no dashes); in bodies ``"<generation p2>"`` and
``"<generation c0>"``, quotes included, for the generation that it has when the request is sent.
:mod:`placement_comparison` fills in.
"""

from __future__ import annotations

import dataclasses
import urllib.parse
from collections.abc import Callable
from typing import Any

import placement_candidate_requests as wishes
import placement_names as names
from hypothesis import strategies as st
from placement_breaking import broken_body, broken_query
from placement_draws import Draw
from placement_exchange import Step

Query = list[tuple[str, str]]

_VERSIONS = (*[39] * 25, *range(40))


@st.composite
def dialogues(draw: Callable[[st.SearchStrategy[Any]], Any], requests: int) -> list[Step]:
    """Return what makes a fleet, and then requests of every kind, about so many."""
    number = Draw(draw).pick([1, 2, 3, 3, 4, 4, 5, 5, 5])
    made = [draw(_provider(index)) for index in range(number)]
    fleet = names.Fleet(tuple(stock for stock, _ in made))
    holding = draw(st.lists(_holding(fleet), max_size=4))
    # Hypothesis makes lists shorter than we want them; so this has a fixed length, and holes where it is shrunk.
    asked = draw(st.lists(_request(fleet), min_size=requests, max_size=requests))
    making = [step for _, steps in made for step in steps]
    return [*making, *holding, *(step for step in asked if step is not None)]


@st.composite
def _provider(draw: Callable[[st.SearchStrategy[Any]], Any], index: int) -> tuple[tuple[str, ...], list[Step]]:
    """Return the classes of one provider, and what makes and furnishes it."""
    d = Draw(draw)
    me = f"<p{index}>"
    parent = f"<p{d.number(0, index - 1)}>" if index and d.chance(60) else None
    steps = [Step("POST", "/resource_providers", 39, {"name": f"n{index}", "uuid": me, "parent_provider_uuid": parent})]
    where = f"/resource_providers/{me}"
    stock = d.some(names.CLASSES, 4, 1)
    traits = d.some(names.TRAITS, d.pick([0, 1, 1, 2, 3]))
    if names.SHARING and d.chance(15):
        traits = sorted({*traits, names.SHARES})
    parts: list[tuple[str, Any]] = [
        ("inventories", {} if d.chance(10) else {name: _inventory(d) for name in stock}),
        ("traits", traits),
        ("aggregates", d.some([f"<a{number}>" for number in range(names.AGGREGATES)], d.pick([0, 0, 1, 1, 2]))),
    ]
    steps += [
        Step("PUT", f"{where}/{name}", 39, {"resource_provider_generation": f"<generation p{index}>", name: value})
        for name, value in parts
        if value
    ]
    return tuple(stock), steps


@st.composite
def _holding(draw: Callable[[st.SearchStrategy[Any]], Any], fleet: names.Fleet) -> Step:
    d = Draw(draw)
    index = d.number(0, names.CONSUMERS - 1)
    return Step("PUT", f"/allocations/<c{index}>", 39, _claim(d, 39, fleet, f"c{index}"))


@st.composite
def _request(draw: Callable[[st.SearchStrategy[Any]], Any], fleet: names.Fleet) -> Step | None:
    """Return any request, about one in four of them broken; rarely none."""
    d = Draw(draw)
    make = d.pick(_KINDS)
    if make is None:
        return None
    step = make(d, d.pick(_VERSIONS), fleet)
    if d.chance(22) and step.body is not None:
        body = broken_body(d, step.body)
        step = (
            dataclasses.replace(step, body=None, raw=body, headers={"Content-Type": "application/json"})
            if isinstance(body, bytes)
            else dataclasses.replace(step, body=body)
        )
    return _with_odd_frame(d, step) if d.chance(4) else step


def _with_odd_frame(d: Draw, step: Step) -> Step:
    how = d.number(0, 4)
    if how == 0:
        return dataclasses.replace(step, method=d.pick(["PATCH", "OPTIONS", "POST", "PUT", "DELETE", "GET", "HEAD"]))
    if how == 1:
        accept = d.pick(
            [
                "text/html",
                "*/*",
                "application/*",
                "application/json;q=0",
                "text/plain, application/json",
                "nonsense",
                "",
            ]
        )
        return dataclasses.replace(step, headers={**step.headers, "Accept": accept})
    if how == 2:
        kind = d.pick(
            ["text/plain", "application/json; charset=utf-8", "APPLICATION/JSON", "application/json-patch+json", ""]
        )
        return dataclasses.replace(step, headers={**step.headers, "Content-Type": kind})
    if how == 3:
        roles = d.pick(["admin", "service", "reader", "member,reader", "", "Admin,service"])
        return dataclasses.replace(
            step, token=d.pick(["bob", "bob:p1", "admin:p2"]), headers={**step.headers, "X-Roles": roles}
        )
    version = d.pick(
        [
            "placement 1.40",
            "placement latest",
            "placement 2.0",
            "placement 1.-1",
            "placement 1.010",
            "placement 1",
            "compute 2.1",
            "compute 2.1, placement 1.30",
            "placement 1.3,placement 1.39",
            "1.39",
            "placement  1.39",
            "Placement 1.39",
            "placement",
            "latest",
        ]
    )
    return dataclasses.replace(step, headers={**step.headers, "OpenStack-API-Version": version})


def _asked(d: Draw, path: str, minor: int, query: Query, broken: int = 12) -> Step:
    if d.chance(broken):
        query = broken_query(d, query)
    text = "&".join(f"{_quote(name)}={_quote(value)}" for name, value in query)
    return Step("GET", path + ("?" + text if text else ""), minor)


def _quote(text: str) -> str:
    # What stands for a uuid is filled in later and needs no quoting then.
    return urllib.parse.quote(text, safe="<>!:,").replace("%20upper>", " upper>").replace("%20bare>", " bare>")


def _generation(d: Draw, what: str) -> Any:
    return d.pick([0, 1, 7, -1]) if d.chance(7) else f"<generation {what}>"


def _inventory(d: Draw) -> dict[str, Any]:
    total = d.pick([4, 8, 8, 16, 16, 2, 1])
    record: dict[str, Any] = {"total": total}
    if d.chance(20):
        record["reserved"] = d.pick([0, 1, 1, 2, total])
    if d.chance(12):
        record["min_unit"] = d.pick([1, 2, 3])
    if d.chance(12):
        record["max_unit"] = d.pick([1, 2, 4, total])
    if d.chance(10):
        record["step_size"] = d.pick([1, 2, 3])
    if d.chance(30):
        record["allocation_ratio"] = d.pick([1.0, 1.5, 2, 0.5, 16.0, 0.1, 1.1, 0.7])
    return record


def _shares(d: Draw, fleet: names.Fleet, at_least: int) -> dict[str, dict[str, int]]:
    providers = [names.provider(d, fleet) for _ in range(d.pick([1, 1, 2, 3]) if at_least or not d.chance(15) else 0)]
    return {
        provider: {
            names.stocked_class(d, fleet, provider): d.pick([1, 1, 1, 1, 2, 2, 4]) for _ in range(d.pick([1, 1, 2]))
        }
        for provider in providers
    }


def _claim(d: Draw, minor: int, fleet: names.Fleet, of: str) -> dict[str, Any]:
    """Return what one consumer shall hold, in the form of a version."""
    shares = _shares(d, fleet, at_least=int(minor < 28))
    if minor < 12:
        listed = [{"resource_provider": {"uuid": uuid}, "resources": amounts} for uuid, amounts in shares.items()]
        body: dict[str, Any] = {"allocations": listed}
    else:
        body = {"allocations": {uuid: {"resources": amounts} for uuid, amounts in shares.items()}}
        if shares and d.chance(10):
            next(iter(body["allocations"].values()))["generation"] = d.number(0, 5)
    if minor >= 8:
        body |= {"project_id": d.pick(names.PROJECTS), "user_id": d.pick(names.USERS)}
    if minor >= 28:
        body["consumer_generation"] = d.pick([None, 0, 1, 2]) if d.chance(8) else f"<generation {of}>"
    if minor >= 34 and d.chance(20):
        body["mappings"] = {d.pick(["1", "_a", ""]): [names.provider(d, fleet)]}
    if minor >= 38:
        body["consumer_type"] = d.pick(names.TYPES)
    return body


def _index_of(what: str, default: str) -> str:
    """Return which placeholder a reference is about: ``c1`` of ``<c1 upper>``."""
    return what[1:3] if what.startswith("<") else default


def _put_claim(d: Draw, minor: int, fleet: names.Fleet) -> Step:
    consumer = names.consumer(d)
    return Step("PUT", f"/allocations/{consumer}", minor, _claim(d, minor, fleet, _index_of(consumer, "c0")))


def _post_claims(d: Draw, minor: int, fleet: names.Fleet) -> Step:
    consumers = {names.consumer(d) for _ in range(d.pick([1, 2, 2, 3]))}
    body = {consumer: _claim(d, max(minor, 12), fleet, _index_of(consumer, "c0")) for consumer in sorted(consumers)}
    if 13 <= minor < 28 and d.chance(25):
        next(iter(body.values()))["allocations"] = {}
    return Step("POST", "/allocations", minor, body)


def _reshape(d: Draw, minor: int, fleet: names.Fleet) -> Step:
    minor = max(minor, d.pick([30, 30, 34, 38, 0]))
    inventories = {
        provider: {
            "resource_provider_generation": _generation(d, _index_of(provider, "p0")),
            "inventories": {names.resource_class(d): _inventory(d) for _ in range(d.number(0, 2))},
        }
        for provider in (names.provider(d, fleet) for _ in range(d.pick([1, 1, 2])))
    }
    consumers = sorted({names.consumer(d) for _ in range(d.pick([0, 1, 1, 2]))})
    claims = {consumer: _claim(d, max(minor, 28), fleet, _index_of(consumer, "c0")) for consumer in consumers}
    return Step("POST", "/reshaper", minor, {"inventories": inventories, "allocations": claims})


def _put_inventories(d: Draw, minor: int, fleet: names.Fleet) -> Step:
    provider = names.provider(d, fleet)
    body = {
        "resource_provider_generation": _generation(d, _index_of(provider, "p0")),
        "inventories": {names.resource_class(d): _inventory(d) for _ in range(d.pick([0, 1, 2, 2, 3]))},
    }
    return Step("PUT", f"/resource_providers/{provider}/inventories", minor, body)


def _post_inventory(d: Draw, minor: int, fleet: names.Fleet) -> Step:
    body = {"resource_class": names.resource_class(d), **_inventory(d)}
    if d.chance(30):
        body["resource_provider_generation"] = d.number(0, 3)
    return Step("POST", f"/resource_providers/{names.provider(d, fleet)}/inventories", minor, body)


def _put_inventory(d: Draw, minor: int, fleet: names.Fleet) -> Step:
    provider = names.provider(d, fleet)
    body = {"resource_provider_generation": _generation(d, _index_of(provider, "p0")), **_inventory(d)}
    return Step(
        "PUT",
        f"/resource_providers/{provider}/inventories/{_path(names.stocked_class(d, fleet, provider))}",
        minor,
        body,
    )


def _path(name: str) -> str:
    return urllib.parse.quote(name)


def _put_traits(d: Draw, minor: int, fleet: names.Fleet) -> Step:
    provider = names.provider(d, fleet)
    body = {
        "resource_provider_generation": _generation(d, _index_of(provider, "p0")),
        "traits": [names.trait(d) for _ in range(d.number(0, 3))],
    }
    return Step("PUT", f"/resource_providers/{provider}/traits", minor, body)


def _put_aggregates(d: Draw, minor: int, fleet: names.Fleet) -> Step:
    provider = names.provider(d, fleet)
    aggregates = [names.aggregate(d) for _ in range(d.number(0, 3))]
    body: Any = aggregates
    if minor >= 19 or d.chance(5):
        body = {"aggregates": aggregates, "resource_provider_generation": _generation(d, _index_of(provider, "p0"))}
    return Step("PUT", f"/resource_providers/{provider}/aggregates", minor, body)


def _post_provider(d: Draw, minor: int, fleet: names.Fleet) -> Step:
    body: dict[str, Any] = {"name": d.pick(["n5", "n6", "n0", "ünïcode", "", " ", "n5 "]) if d.chance(30) else "n5"}
    if not d.chance(10):
        body["uuid"] = d.pick(["<p5>", "<p5>", "<p5>", "<p5 upper>", "<p5 bare>", "<p0>"])
    if (minor >= 14 and d.chance(50)) or d.chance(3):
        body["parent_provider_uuid"] = None if d.chance(20) else names.provider(d, fleet)
    return Step("POST", "/resource_providers", minor, body)


def _put_provider(d: Draw, minor: int, fleet: names.Fleet) -> Step:
    body: dict[str, Any] = {"name": f"n{d.number(0, 6)}"}
    if (minor >= 14 and d.chance(75)) or d.chance(3):
        body["parent_provider_uuid"] = None if d.chance(25) else names.provider(d, fleet)
    return Step("PUT", f"/resource_providers/{names.provider(d, fleet)}", minor, body)


def _delete(d: Draw, minor: int, fleet: names.Fleet) -> Step:
    provider = f"/resource_providers/{names.provider(d, fleet)}"
    path = d.pick(
        [
            f"/allocations/{names.consumer(d)}",
            f"/allocations/{names.consumer(d)}",
            provider,
            provider,
            f"{provider}/inventories",
            f"{provider}/inventories/{_path(names.resource_class(d))}",
            f"{provider}/inventories/{_path(names.resource_class(d))}",
            f"{provider}/traits",
            f"/traits/{_path(names.trait(d))}",
            f"/resource_classes/{_path(names.resource_class(d))}",
        ]
    )
    return Step("DELETE", path, minor)


def _name(d: Draw, minor: int, fleet: names.Fleet) -> Step:
    """Make a trait or a class, or rename a class."""
    name = d.pick(
        [
            "CUSTOM_X0",
            "CUSTOM_X0",
            "CUSTOM_X1",
            "CUSTOM_",
            "CUSTOM_x",
            "CUSTOM",
            "VCPU",
            "CUSTOM_C0",
            "CUSTOM_T0",
            "É",
            "X-1",
            "CUSTOM_A%0A",
            "CUSTOM_" + "X" * 248,
            "CUSTOM_" + "X" * 249,
        ]
    )
    how = d.number(0, 3)
    if how == 0:
        return Step("PUT", f"/traits/{_path(name)}", minor)
    if how == 1:
        return Step("POST", "/resource_classes", minor, {"name": name})
    if how == 2:
        return Step("PUT", f"/resource_classes/{_path(name)}", minor, {"name": name} if d.chance(20) else None)
    return Step(
        "PUT",
        f"/resource_classes/{d.pick(['CUSTOM_X0', 'CUSTOM_C0', 'VCPU', 'CUSTOM_NONE'])}",
        d.number(2, 7),
        {"name": name},
    )


def _candidates(d: Draw, minor: int, fleet: names.Fleet) -> Step:
    minor = max(minor, d.pick([10, 10, 16, 25, 34, 0]))
    return _asked(d, "/allocation_candidates", minor, wishes.candidate_query(d, minor, fleet))


def _providers(d: Draw, minor: int, fleet: names.Fleet) -> Step:
    query: Query = []
    if d.chance(20):
        query.append(("name", d.pick(["n0", "n1", "n5", "ünïcode", ""])))
    if d.chance(20):
        query.append(("uuid", names.provider(d, fleet)))
    if minor >= 3 and d.chance(30):
        query += [
            ("member_of", wishes.member_of(d, forbidden=minor >= 32))
            for _ in range(2 if minor >= 24 and d.chance(30) else 1)
        ]
    if minor >= 4 and d.chance(40):
        query.append(("resources", wishes.amounts(d)))
    if minor >= 14 and d.chance(20):
        query.append(("in_tree", names.provider(d, fleet)))
    if minor >= 18 and d.chance(40):
        query += [
            ("required", wishes.traits(d, forbidden=minor >= 22, any_of=minor >= 39))
            for _ in range(2 if d.chance(25) else 1)
        ]
    return _asked(d, "/resource_providers", minor, query)


def _about_provider(d: Draw, minor: int, fleet: names.Fleet) -> Step:
    part = d.pick(["", "/inventories", "/traits", "/aggregates", "/usages", "/allocations", "one"])
    if part == "one":
        part = f"/inventories/{_path(names.resource_class(d))}"
    return Step("GET", f"/resource_providers/{names.provider(d, fleet)}{part}", minor)


def _allocations(d: Draw, minor: int, fleet: names.Fleet) -> Step:
    return Step("GET", f"/allocations/{names.consumer(d)}", minor)


def _usages(d: Draw, minor: int, fleet: names.Fleet) -> Step:
    query: Query = [("project_id", d.pick([*names.PROJECTS, "00000000-0000-0000-0000-000000000000", "nobody"]))]
    if d.chance(40):
        query.append(("user_id", d.pick([*names.USERS, "nobody"])))
    if (minor >= 38 and d.chance(60)) or d.chance(3):
        query.append(("consumer_type", d.pick([*names.TYPES, "all", "unfleet", "UNKNOWN", "ALL", "NO_SUCH", "lower"])))
    return _asked(d, "/usages", minor, query)


def _names(d: Draw, minor: int, fleet: names.Fleet) -> Step:
    how = d.number(0, 3)
    if how == 0:
        return Step("GET", f"/traits/{_path(names.trait(d))}", minor)
    if how == 1:
        return Step("GET", f"/resource_classes/{_path(names.resource_class(d))}", minor)
    if how == 2:
        return Step("GET", "/resource_classes", minor)
    wanted = d.pick(
        [
            "startswith:CUSTOM",
            "startswith:HW_GPU_API",
            "in:CUSTOM_T0,HW_CPU_X86_AVX,NONE",
            "in:",
            "startswith:",
            "is:X",
            "CUSTOM_T0",
            "startswith:custom",
            "startswith:CUSTOM_%",
            "startswith:_",
            "in:é",
        ]
    )
    query: Query = [("name", wanted)]
    if d.chance(40):
        query.append(("associated", d.pick(["true", "false", "True", "1", ""])))
        if "CUSTOM" not in wanted and not d.chance(10):
            query[1] = ("associated", "true")
    return _asked(d, "/traits", minor, query)


def _odd_path(d: Draw, minor: int, fleet: names.Fleet) -> Step:
    path = d.pick(
        [
            "",
            "/",
            "//",
            "/nothing",
            "/resource_providers/",
            "/resource_providers/<p0>/",
            "/resource_providers/<p0>/nothing",
            "/allocations",
            "/allocations/<c0>/x",
            "/traits/CUSTOM_T0/",
            "/reshaper",
            "/usages",
            "/allocation_candidates",
            "/resource_providers/<p0>/inventories/",
            "/resource_providers//inventories",
            "/resource_providers/<p0>//traits",
            "/traits/a%2Fb",
            "/%2e%2e/traits",
            "/resource_providers/<p0>%00",
        ]
    )
    return Step(d.pick(["GET", "GET", "POST", "PUT", "DELETE"]), path, minor)


_Kind = Callable[[Draw, int, names.Fleet], Step]
_WEIGHTS: tuple[tuple[_Kind, int], ...] = (
    (_candidates, 16),
    (_providers, 7),
    (_about_provider, 5),
    (_put_claim, 9),
    (_post_claims, 5),
    (_reshape, 4),
    (_put_inventories, 4),
    (_post_inventory, 2),
    (_put_inventory, 4),
    (_put_traits, 3),
    (_put_aggregates, 3),
    (_post_provider, 3),
    (_put_provider, 4),
    (_delete, 6),
    (_name, 3),
    (_allocations, 2),
    (_usages, 4),
    (_names, 2),
    (_odd_path, 1),
)
_KINDS = [None, *(kind for kind, weight in _WEIGHTS for _ in range(weight))]
