# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""One dialogue with two Placement servers, and every answer compared."""

from __future__ import annotations

import collections
import dataclasses
import json
import re
import time
import uuid
from collections.abc import Iterator, Sequence

import placement_candidates_compared as candidates
import placement_names as names
import placement_tolerated as tolerated
from placement_exchange import Answer, Client, Step

_PLACE = re.compile(r"<([pca])(\d)( upper| bare)?>")
_GENERATION = re.compile(r'"<generation ([pc])(\d)>"')
_KINDS = {"p": "a", "c": "c", "a": "d"}
_START = [
    *(Step("PUT", f"/traits/{name}", 39) for name in names.CUSTOM_TRAITS),
    *(Step("PUT", f"/resource_classes/{name}", 39) for name in names.CUSTOM_CLASSES),
]


class Difference(AssertionError):  # noqa: N818 - what is looked for
    """Two servers answered differently, and nobody said that they may."""

    def __init__(self, what: str, said: Sequence[Step], theirs: object, ours: object) -> None:
        """Keep what was said up to it."""
        self.what, self.said, self.theirs, self.ours = what, list(said), theirs, ours
        lines = ",\n".join(f"    {step!r}" for step in said)
        super().__init__(f"{what}\nPlacement: {theirs}\nours:      {ours}\nthe dialogue, to run again:\n[\n{lines},\n]")

    @property
    def kind(self) -> str:
        """Return what tells this difference from others, roughly."""
        step = self.said[-1]
        path = _route(step)
        theirs, ours = self.theirs, self.ours
        if isinstance(theirs, Answer) and isinstance(ours, Answer):
            parts = [
                field.name
                for field in dataclasses.fields(Answer)
                if field.compare and getattr(theirs, field.name) != getattr(ours, field.name)
            ]
            return f"{path} {theirs.status}/{ours.status} {','.join(parts)}"
        return f"{path} {self.what}"


@dataclasses.dataclass
class Count:
    """What was compared so far."""

    requests: int = 0
    dialogues: int = 0
    statuses: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    routes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    candidates: int = 0
    tolerated: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    ask_seconds: list[float] = dataclasses.field(default_factory=lambda: [0.0, 0.0])

    def summary(self, seconds: float) -> str:
        """Return one line about them."""
        theirs, ours = self.ask_seconds
        return (
            f"{self.dialogues} dialogues, {self.requests} requests compared ({self.requests / seconds:.0f} a second), "
            f"{self.candidates} candidates, waited {theirs:.0f} s for Placement and {ours:.0f} s for ours"
        )

    def details(self) -> str:
        """Return all that was counted."""
        return "\n".join(
            [
                f"{self.dialogues} dialogues, {self.requests} requests, {self.candidates} candidates",
                "statuses: " + ", ".join(f"{status}: {times}" for status, times in sorted(self.statuses.items())),
                "tolerated: " + ", ".join(f"{name}: {times}" for name, times in self.tolerated.most_common()),
                "requests: " + ", ".join(f"{route}: {times}" for route, times in self.routes.most_common()),
            ]
        )


class Comparison:
    """Two servers that hold the same, most often nothing but standard names."""

    def __init__(self, theirs: Client, ours: Client) -> None:
        """Make the two alike: what they hold is deleted."""
        self.theirs, self.ours = theirs, ours
        self.count = Count()
        self._run = 0
        self.start()

    def start(self) -> None:
        """Delete all that both hold; symbols stand for something new from now on."""
        self._run += 1
        for client in (self.theirs, self.ours):
            _wipe(client)

    def run(self, dialogue: Sequence[Step]) -> None:
        """Start, say all of it to both, then compare all that both hold.

        :raises Difference: at the first one
        """
        self.start()
        self.count.dialogues += 1
        said: list[Step] = []
        for symbolic in dialogue:
            step = self.filled_in(symbolic)
            said.append(step)
            if not self._same(step, said):
                return
        for step in self._state():
            said.append(step)
            self._same(step, said)
            said.pop()

    def ask(self, step: Step) -> tuple[Answer, Answer]:
        """Return Placement's answer and ours."""
        begin = time.perf_counter()
        theirs = self.theirs.ask(step)
        middle = time.perf_counter()
        ours = self.ours.ask(step)
        self.count.ask_seconds[0] += middle - begin
        self.count.ask_seconds[1] += time.perf_counter() - middle
        return theirs, ours

    def _same(self, step: Step, said: Sequence[Step]) -> bool:
        """Ask both and compare. Returns whether the dialogue can go on."""
        theirs, ours = self.ask(step)
        self.count.requests += 1
        self.count.statuses[theirs.status] += 1
        self.count.routes[_route(step)] += 1
        if candidates.concerns(step, theirs) and candidates.concerns(step, ours):
            self.count.candidates += len(theirs.body["allocation_requests"])
            why = candidates.difference(step, theirs, ours, self.theirs.ask)
            if why is not None:
                raise Difference(why, said, theirs.body, ours.body)
            theirs, ours = (dataclasses.replace(answer, body=None) for answer in (theirs, ours))
        for amends in tolerated.left_behind(step, theirs):
            self.ours.ask(amends)
        if theirs == ours:
            return True
        tolerance = tolerated.why(step, theirs, ours, self.ask)
        if tolerance is None:
            raise Difference("different answers", said, theirs, ours)
        self.count.tolerated[tolerance.name] += 1
        return not tolerance.ends

    def _state(self) -> Iterator[Step]:
        """Yield what shows all that the servers hold."""
        yield Step("GET", "/resource_providers", 39)
        for provider in self.ours.ask(Step("GET", "/resource_providers", 39)).body["resource_providers"]:
            for part in ("inventories", "traits", "aggregates", "usages", "allocations"):
                yield Step("GET", f"/resource_providers/{provider['uuid']}/{part}", 39)
        for number in range(names.CONSUMERS):
            yield Step("GET", f"/allocations/{self._uuid('c', number)}", 39)
        for project in ("p1", "p2", "%C3%BCn%C3%AFcode", "00000000-0000-0000-0000-000000000000"):
            yield Step("GET", f"/usages?project_id={project}", 39)
        yield Step("GET", "/traits?name=startswith:CUSTOM_", 39)
        yield Step("GET", "/resource_classes", 39)

    def _uuid(self, kind: str, number: int) -> str:
        # Another in each run: what Placement remembers of consumers it remembers for ever.
        return str(uuid.UUID(f"{_KINDS[kind]}{self._run:07x}-0000-4000-8000-0000000000f{number}"))

    def filled_in(self, step: Step) -> Step:
        """Return a step with what its symbols stand for just now."""

        def place(match: re.Match[str]) -> str:
            text = self._uuid(match[1], int(match[2]))
            return text.upper() if match[3] == " upper" else text.replace("-", "") if match[3] else text

        def generation(match: re.Match[str]) -> str:
            return json.dumps(self._generation(match[1], int(match[2])))

        def fill(text: str) -> str:
            return _PLACE.sub(place, _GENERATION.sub(generation, text))

        raw = step.raw
        if raw is not None and raw.isascii():
            raw = fill(raw.decode()).encode()
        return dataclasses.replace(
            step,
            path=_PLACE.sub(place, step.path),
            body=None if step.body is None else json.loads(fill(json.dumps(step.body))),
            raw=raw,
        )

    def _generation(self, kind: str, number: int) -> int | None:
        """Return the present generation; 0 of a provider that is not there, null of such a consumer."""
        uuid_ = self._uuid(kind, number)
        if kind == "p":
            answer = self.ours.ask(Step("GET", f"/resource_providers/{uuid_}", 39))
            return int(answer.body["generation"]) if answer.status == 200 else 0
        answer = self.ours.ask(Step("GET", f"/allocations/{uuid_}", 39))
        generation: int | None = answer.body.get("consumer_generation")
        return generation


def _route(step: Step) -> str:
    path = step.path.partition("?")[0]
    path = re.sub(r"^/(resource_providers|allocations|traits|resource_classes)/[^/]*", r"/\1/*", path)
    return f"{step.method} " + re.sub(r"/inventories/.*", "/inventories/*", path)[:50]


def _wipe(client: Client) -> None:
    """Delete everything that can be deleted, and bring back the custom names that dialogues start with."""
    left = [item["uuid"] for item in client.ask(Step("GET", "/resource_providers", 39)).body["resource_providers"]]
    for provider in left:
        for holder in client.ask(Step("GET", f"/resource_providers/{provider}/allocations", 39)).body["allocations"]:
            client.ask(Step("DELETE", f"/allocations/{holder}", 39))
    while left:
        # A parent goes when its children are gone.
        remaining = [
            each for each in left if client.ask(Step("DELETE", f"/resource_providers/{each}", 39)).status != 204
        ]
        if len(remaining) == len(left):
            raise AssertionError(f"{client.url}: these cannot be deleted: {left}")
        left = remaining
    traits = set(client.ask(Step("GET", "/traits?name=startswith:CUSTOM_", 39)).body["traits"])
    listed = client.ask(Step("GET", "/resource_classes", 39)).body["resource_classes"]
    classes = {item["name"] for item in listed if item["name"].startswith("CUSTOM_")}
    for kind, found, wanted in (
        ("traits", traits, set(names.CUSTOM_TRAITS)),
        ("resource_classes", classes, set(names.CUSTOM_CLASSES)),
    ):
        for name in found - wanted:
            client.ask(Step("DELETE", f"/{kind}/{name}", 39))
        for name in sorted(wanted - found):
            client.ask(Step("PUT", f"/{kind}/{name}", 39))
