# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Where ours may answer otherwise than OpenStack Placement, and why. Nothing else may."""

from __future__ import annotations

import dataclasses
import json
import re
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import placement_candidates_compared as candidates
import placement_model as model
from placement_exchange import Answer, Step

Ask = Callable[[Step], tuple[Answer, Answer]]
"""Asks Placement and ours something else, and returns both answers."""

_BEYOND_COLUMNS = 2**62
_LISTS = {"/allocation_candidates": "allocation_requests", "/resource_providers": "resource_providers"}
_IN_INVENTORIES = "Invalid input for field/attribute inventories."


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """A difference that is meant.

    ``holds`` tells whether two answers are it, and whether ours is then the right one.
    ``ends``: what the servers hold is different from here on, so the dialogue cannot be continued.
    """

    name: str
    holds: Callable[[Step, Answer, Answer, Ask], bool]
    ends: bool = False


def _document(step: Step) -> Any:
    """Return the body of a request, None where it is no JSON."""
    if step.raw is None:
        return step.body
    try:
        return json.loads(step.raw)
    except ValueError:
        return None


def _nodes(document: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a document."""
    if isinstance(document, dict):
        yield document
    for child in document.values() if isinstance(document, dict) else document if isinstance(document, list) else ():
        yield from _nodes(child)


def _refused(answer: Answer) -> bool:
    """Tell whether it is an error in the API's own form."""
    return 400 <= answer.status < 500 and isinstance(answer.body, dict) and "errors" in answer.body


def _a_number_beyond_sqlite(step: Step, theirs: Answer, ours: Answer, ask: Ask) -> bool:
    """It asks its database for any amount; ours lists nobody who has so much."""
    listed = _LISTS.get(step.path.partition("?")[0])
    return (
        theirs.status == 500
        and theirs.message == "Python int too large to convert to SQLite INTEGER"
        and listed is not None
        and ours.status == 200
        and ours.body.get(listed) == []
    )


def _of_no_class(step: Step, ask: Ask) -> set[str]:
    """Return what a request gives inventories of that is no class."""
    named = {name for stock in _stocks(step).values() for name in stock["inventories"]}

    def is_class(name: str) -> bool:
        quoted = urllib.parse.quote(name, safe="")
        return bool(name) and ask(Step("GET", f"/resource_classes/{quoted}", 39))[0].status == 200

    return {name for name in named if not is_class(name)}


def _stocks(step: Step) -> dict[str, dict[str, Any]]:
    """Return what a request gives providers as all their inventories, by the path of the provider."""
    body = _document(step)
    stocks: Any = {}
    if step.method == "PUT" and step.path.endswith("/inventories"):
        stocks = {step.path.removesuffix("/inventories"): body}
    elif step.path == "/reshaper" and isinstance(body, dict) and isinstance(body.get("inventories"), dict):
        stocks = {f"/resource_providers/{uuid}": stock for uuid, stock in body["inventories"].items()}
    well_formed = all(isinstance(each, dict) and isinstance(each.get("inventories"), dict) for each in stocks.values())
    return stocks if well_formed else {}


def _restocked(step: Step, stocks: dict[str, dict[str, Any]], **others: Any) -> Step:
    """Return a request with these in the place of its inventories, to be answered in JSON.

    :param others: more that it has in the place of its own
    """
    body: Any = next(iter(stocks.values()))
    if step.path == "/reshaper":
        by_uuid = {path.removeprefix("/resource_providers/"): stock for path, stock in stocks.items()}
        body = {**_document(step), "inventories": by_uuid, **others}
    headers = {name: value for name, value in step.headers.items() if name != "Accept"}
    return dataclasses.replace(step, body=body, raw=None, headers=headers)


def _inventories_of_no_class(step: Step, theirs: Answer, ours: Answer, ask: Ask) -> bool:
    """It has no schema for inventories of what is no class, and crashes on what is no object of numbers there.

    With good ones in their place both refuse alike. Allocations are left out of that: it would find out about mistakes
    in them first, and it crashed before it looked at them.
    """
    if theirs.status != 500 or ours.status != 400 or not _refused(ours) or not ours.message.startswith(_IN_INVENTORIES):
        return False
    of_no_class = _of_no_class(step, ask)
    good = {
        path: {
            **stock,
            "inventories": {
                name: {"total": 1} if name in of_no_class else record for name, record in stock["inventories"].items()
            },
        }
        for path, stock in _stocks(step).items()
    }
    if not of_no_class:
        return False
    refused, ours_refused = ask(_restocked(step, good, allocations={}))
    return refused == ours_refused and _refused(refused)


def _candidates_forgotten(step: Step, theirs: Answer, ours: Answer, ask: Ask) -> bool:
    """It forgets to read the tree of a provider that shares inside it, and then misses that by its number.

    Ours is what trying everything gives.
    """
    if not (theirs.status == 500 and theirs.message.isdigit() and candidates.concerns(step, ours)):
        return False
    query = candidates.query_of(step)
    providers = model.fleet(lambda question: ask(question)[0])
    minor = candidates.version_of(ours)
    right = candidates.as_of(
        minor,
        model.candidates(providers, query, minor),
        {uuid: provider.root for uuid, provider in providers.items()},
    )
    return candidates.difference_of_requests(query, right, ours.body["allocation_requests"]) is None


def _a_name_not_looked_at(step: Step, theirs: Answer, ours: Answer, ask: Ask) -> bool:
    """It looks at names in the order of the groups, and not any more when nothing is left.

    Asked for such a name alone, it answers what ours answered.
    """
    route = step.path.partition("?")[0]
    listed = _LISTS.get(route)
    if listed is None or step.method != "GET" or theirs.status != 200 or theirs.body.get(listed):
        return False
    if match := re.fullmatch(r"No such resource class (.*)\.", ours.message, re.DOTALL):
        alone = [f"{route}?resources={urllib.parse.quote(match[1])}:1"]
    elif match := re.fullmatch(r"No such trait\(s\): (.*)\.", ours.message, re.DOTALL):
        something = "resources=VCPU:1&" if listed == "allocation_requests" else ""
        alone = [f"{route}?{something}required={urllib.parse.quote(name)}" for name in match[1].split(", ")]
    else:
        return False
    return all(ask(dataclasses.replace(step, path=path)) == (ours, ours) for path in alone)


def _html(step: Step, theirs: Answer, ours: Answer, ask: Ask) -> bool:
    """It answers in HTML or plain text whom it believes to prefer that; ours says the same in the API's own form."""
    if theirs.status != ours.status or theirs.body != "not JSON" or not _refused(ours):
        return False
    error = ours.body["errors"][0]
    text = " ".join(theirs.message.split())
    return (
        f"{theirs.status} {error['title']}" in text
        and (error["general"] in text or theirs.status == 406)
        and {**theirs.headers, "content-type": "application/json"} == ours.headers
    )


def _moment_of_what_never_changed(step: Step, theirs: Answer, ours: Answer, ask: Ask) -> bool:
    """It knows no ``last-modified`` of a provider that nobody changed since it was made."""
    return (
        step.method == "PUT"
        and step.path.startswith("/resource_providers/")
        and theirs.status == ours.status == 200
        and theirs.body == ours.body
        and {**theirs.headers, "last-modified": True} == ours.headers
    )


def _two_limits(step: Step, theirs: Answer, ours: Answer, ask: Ask) -> bool:
    """It checks the last of several limits and uses the first; with the first alone it answers what ours answered."""
    path, _, query = step.path.partition("?")
    parts = query.split("&")
    limits = [part for part in parts if part.startswith("limit=")]
    if len(limits) < 2 or "the limit" not in ours.message:
        return False
    alone = [part for part in parts if not part.startswith("limit=")] + limits[:1]
    return ask(dataclasses.replace(step, path=f"{path}?{'&'.join(alone)}")) == (ours, ours)


def _two_mistakes(step: Step, theirs: Answer, ours: Answer, ask: Ask) -> bool:
    """It finds out last about inventories of what is no class, and does not look into them.

    Without them both answer as Placement did; with nothing but them, at the right generations, both as ours did, if it
    does not crash on them.
    """
    if not _refused(theirs) or ours.status != 400 or not _refused(ours):
        return False
    of_no_class = _of_no_class(step, ask)
    without, only = {}, {}
    for path, stock in _stocks(step).items():
        known = {name: record for name, record in stock["inventories"].items() if name not in of_no_class}
        without[path] = {**stock, "inventories": known}
        if len(known) < len(stock["inventories"]):
            generation = ask(Step("GET", path, 39))[0].body.get("generation", 0)
            odd = {name: record for name, record in stock["inventories"].items() if name in of_no_class}
            only[path] = {"resource_provider_generation": generation, "inventories": odd}
    if not only or ask(_restocked(step, without)) != (theirs, theirs):
        return False
    alone = _restocked(step, only, allocations={})
    theirs_alone, ours_alone = ask(alone)
    return ours_alone == ours and (
        theirs_alone == ours or _inventories_of_no_class(alone, theirs_alone, ours_alone, ask)
    )


def _beyond_columns(step: Step, theirs: Answer, ours: Answer, ask: Ask) -> bool:
    """A capacity beyond 62 bits has no room in the columns of ours."""
    return (
        theirs.status < 300
        and ours.status == 400
        and _refused(ours)
        and ours.message.endswith("too large.")
        and any(
            node["total"] * node["allocation_ratio"] >= _BEYOND_COLUMNS
            for node in _nodes(_document(step))
            if "total" in node and "allocation_ratio" in node
        )
    )


def _a_uuid_made_up(step: Step, theirs: Answer, ours: Answer, ask: Ask) -> bool:
    """Each makes up the uuid of a provider that nobody gave one."""
    if (step.method, step.path) != ("POST", "/resource_providers") or "uuid" in (_document(step) or {}):
        return False
    if theirs.status != ours.status or theirs.status not in (200, 201):
        return False
    theirs_made, ours_made = (answer.headers["location"].rpartition("/")[2] for answer in (theirs, ours))
    renamed = json.loads(json.dumps([ours.headers, ours.body]).replace(ours_made, theirs_made))
    return bool(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", ours_made)) and renamed == [
        theirs.headers,
        theirs.body,
    ]


def _wildcards(step: Step, theirs: Answer, ours: Answer, ask: Ask) -> bool:
    """To it "_" and "%" in a prefix match anything, as in SQL; of what it lists, ours lists what begins so."""
    query = dict(urllib.parse.parse_qsl(step.path.partition("?")[2]))
    prefix = query.get("name", "").removeprefix("startswith:")
    return (
        step.method == "GET"
        and step.path.startswith("/traits?")
        and theirs.status == ours.status == 200
        and theirs.headers == ours.headers
        and prefix != query.get("name", "")
        and ours.body.get("traits") == [name for name in theirs.body["traits"] if name.startswith(prefix)]
    )


def _a_media_type_in_capitals(step: Step, theirs: Answer, ours: Answer, ask: Ask) -> bool:
    """A media type is the same in capitals (RFC 9110).

    In small letters it answers what ours answered, or what may differ from that for another reason.
    """
    kind = step.headers.get("Content-Type", "")
    if theirs.status != 415 or not kind.isupper():
        return False
    small = dataclasses.replace(step, headers={**step.headers, "Content-Type": kind.lower()})
    in_small, _ = ask(small)
    return in_small == ours or why(small, in_small, ours, ask) is not None


def _a_nul(step: Step, theirs: Answer, ours: Answer, ask: Ask) -> bool:
    """No name has a NUL, and PostgreSQL stores none: a path with one is refused before it is routed."""
    return "%00" in step.path.partition("?")[0] and theirs.status >= 400 and ours.status == 400 and _refused(ours)


def _a_newline(step: Step, theirs: Answer, ours: Answer, ask: Ask) -> bool:
    """Its patterns end in "$", which lets a newline pass; without it, it answers well."""
    without = dataclasses.replace(step, path=step.path.replace("%0A", ""))
    return (
        "%0A" in step.path
        and theirs.status < 300
        and ours.status == 400
        and _refused(ours)
        and ask(without)[0].status < 300
    )


def _no_json(step: Step, theirs: Answer, ours: Answer, ask: Ask) -> bool:
    """JSON is UTF-8 (RFC 8259), without NaN and Infinity."""
    if step.raw is None or theirs.status < 400 or ours.status != 400 or not _refused(ours):
        return False

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(step.raw.decode(), parse_constant=refuse)
    except ValueError:
        return "Malformed JSON" in ours.message
    return False


TOLERATED: tuple[Tolerance, ...] = (
    Tolerance("a number beyond SQLite's", _a_number_beyond_sqlite),
    Tolerance("inventories of what is no class, in odd forms", _inventories_of_no_class),
    Tolerance("Placement fails to list candidates", _candidates_forgotten),
    Tolerance("a name that Placement never looked at", _a_name_not_looked_at),
    Tolerance("errors in HTML", _html),
    Tolerance("last-modified of what never changed", _moment_of_what_never_changed),
    Tolerance("a malformed limit before a good one", _two_limits),
    Tolerance("two mistakes in the inventories of one request", _two_mistakes),
    Tolerance("an absurd allocation_ratio", _beyond_columns, ends=True),
    Tolerance("a provider whose uuid nobody gave", _a_uuid_made_up, ends=True),
    Tolerance("wildcards in a prefix", _wildcards),
    Tolerance("a media type in capitals", _a_media_type_in_capitals, ends=True),
    Tolerance("a NUL in a path", _a_nul),
    Tolerance("a newline at the end of a name", _a_newline, ends=True),
    Tolerance("what is no JSON", _no_json),
)


def why(step: Step, theirs: Answer, ours: Answer, ask: Ask) -> Tolerance | None:
    """Return what allows two answers to differ, None when nothing does."""
    return next((each for each in TOLERATED if each.holds(step, theirs, ours, ask)), None)


def left_behind(step: Step, theirs: Answer) -> list[Step]:
    """Return what leaves at ours what Placement left behind.

    When it refuses allocations because a provider does not exist, it has made records of the new consumers already and
    forgets to delete them. They then are at generation 0, as if they had been given nothing.
    """
    if theirs.status != 400 or "Allocation for resource provider" not in theirs.message:
        return []
    body = step.body if step.raw is None else json.loads(step.raw)
    nobody = "00000000-0000-0000-0000-000000000000"

    def nothing(claim: dict[str, Any]) -> dict[str, Any]:
        return {
            "allocations": {},
            "project_id": claim.get("project_id", nobody),
            "user_id": claim.get("user_id", nobody),
            "consumer_generation": None,
            **({"consumer_type": claim["consumer_type"]} if "consumer_type" in claim else {}),
        }

    def version(claim: dict[str, Any]) -> int:
        return 38 if "consumer_type" in claim else 28

    if step.path.startswith("/allocations/"):
        return [Step("PUT", step.path, version(body), nothing(body))]
    claims: dict[str, Any] = body["allocations"] if step.path == "/reshaper" else body
    # In bodies the names of consumers are taken as they are written, in paths they are not.
    return [Step("POST", "/allocations", version(claim), {name: nothing(claim)}) for name, claim in claims.items()]
