# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Many clients at work on one fleet through several processes of the API, who write down what they are answered."""

from __future__ import annotations

import dataclasses
import http.client
import itertools
import json
import random
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import history
import patience
from history import ALWAYS, NEVER, Claim, Offer, Read, Sight, Use, Write

CLASS = "VGPU"
CAPACITY = 4
TRAITS = tuple(f"CUSTOM_HAMMER_{n}" for n in range(4))
AGGREGATES = tuple(str(uuid.UUID(int=n + 1)) for n in range(3))
PARTS = ("inventory", "traits", "aggregates", *TRAITS, *AGGREGATES)

_STEADY, _CHANGING, _RULED = 7, 4, 3
_RULE = {
    "type": "slices",
    "memory_slices": 2 * CAPACITY,
    "compute_slices": 2 * CAPACITY,
    "profiles": {CLASS: {"memory_slices": 1, "compute_slices": 1, "starts": list(range(2 * CAPACITY))}},
}
_NO_ROOM = "Unable to allocate inventory"
_NOBODY = 0  # the status of a request that got no answer
_HEADERS = {"X-Auth-Token": "admin", "OpenStack-API-Version": "placement 1.39", "Content-Type": "application/json"}

Holding = tuple[str, tuple[tuple[str, int], ...]]  # who wrote it, and how much of which provider


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a request got, and when; ``status`` 0 and ``ended`` NEVER when nobody answered."""

    status: int
    body: Any
    began: float
    ended: float

    @property
    def is_lost(self) -> bool:
        """Whether nobody knows if it happened."""
        return self.ended == NEVER


@dataclasses.dataclass
class Record:
    """What clients wrote down; see :mod:`history`."""

    writes: list[Write] = dataclasses.field(default_factory=list)
    reads: list[Read] = dataclasses.field(default_factory=list)
    sights: list[Sight] = dataclasses.field(default_factory=list)
    lost: list[Sight] = dataclasses.field(default_factory=list)
    held: list[Write] = dataclasses.field(default_factory=list)
    capacities: list[Write] = dataclasses.field(default_factory=list)
    uses: list[Use] = dataclasses.field(default_factory=list)
    offers: list[Offer] = dataclasses.field(default_factory=list)
    claims: list[Claim] = dataclasses.field(default_factory=list)
    surprises: list[str] = dataclasses.field(default_factory=list)
    statuses: dict[str, int] = dataclasses.field(default_factory=dict)

    def extend(self, other: Record) -> None:
        """Add what another client wrote down."""
        for field in dataclasses.fields(self):
            if field.name == "statuses":
                for name, count in other.statuses.items():
                    self.statuses[name] = self.statuses.get(name, 0) + count
            else:
                getattr(self, field.name).extend(getattr(other, field.name))

    def anomalies(self) -> list[str]:
        """Return all that cannot be true."""
        holdings = history.Holdings(self.held, self.capacities)
        return [
            *self.surprises,
            *history.registers(self.writes, self.reads),
            *history.generations(self.sights),
            *history.contents(self.sights, self.lost, PARTS),
            *holdings.uses(self.uses),
            *holdings.offers(self.offers),
            *holdings.claims(self.claims),
        ]


class Hammer:
    """The fleet that is hammered, as the clients know it, and the clients.

    :param urls: of the API's processes
    :param seed: of all that is random
    """

    def __init__(self, urls: Sequence[str], seed: int, clients: int = 16) -> None:
        self.urls = urls
        self.steady = [str(uuid.uuid4()) for _ in range(_STEADY)]
        self.changing = [str(uuid.uuid4()) for _ in range(_CHANGING)]
        self.lock = threading.Lock()
        self.numbers = itertools.count(1)
        self.generation: dict[str, int] = {}  # of providers, as last seen
        self.consumers: dict[str, int] = {}  # their generation as last seen
        self.passing: dict[str, str] = {}  # providers that come and go, with a parent or ""
        self.traits: list[str] = []  # that come and go
        self.gone: set[str] = set()  # those of them that are known to have gone
        self._rounds = 0
        self._seed = seed
        self._clients = clients

    @property
    def providers(self) -> list[str]:
        """Those that stay and are drawn from."""
        return [*self.steady, *self.changing]

    def build(self) -> None:
        """Make the fleet."""
        client = Client(self, random.Random(self._seed))
        for name in TRAITS:
            client.expect("PUT", f"/placement/traits/{name}")
        for provider in self.providers:
            client.expect("POST", "/placement/resource_providers", {"uuid": provider, "name": provider})
            body = {"resource_provider_generation": 0, "inventories": {CLASS: {"total": CAPACITY}}}
            client.expect("PUT", f"/placement/resource_providers/{provider}/inventories", body)
            self.generation[provider] = 1
        # Every unit of these has a position, for which there is always room: rows that come and go with consumers.
        for provider in self.steady[:_RULED]:
            body = {"resource_provider_generation": 1, "capacity_rule": _RULE}
            answer = client.expect("PUT", f"/v1/resource_providers/{provider}/capacity_rule", body)
            self.generation[provider] = answer["resource_provider_generation"]

    def run(self, seconds: float, before: Record, disturb: Callable[[], None] | None = None) -> Record:
        """Hammer for a time and return what was written down.

        :param before: what was true when it began
        :param disturb: called in the middle
        """
        self._rounds += 1
        deadline = time.monotonic() + seconds
        clients = [
            Client(self, random.Random(f"{self._seed} {self._rounds} {number}")) for number in range(self._clients)
        ]
        threads = [threading.Thread(target=client.work, args=(deadline,)) for client in clients]
        for thread in threads:
            thread.start()
        if disturb is not None:
            time.sleep(seconds / 2)
            disturb()
        for thread in threads:
            thread.join(patience.LIMIT_S)
            assert not thread.is_alive(), "a client hangs"
        for client in clients:
            before.extend(client.record)
        return before


class Client:
    """One client: its requests one after the other, each to any of the processes."""

    def __init__(self, hammer: Hammer, rnd: random.Random) -> None:
        self.record = Record()
        self._hammer = hammer
        self._random = rnd
        self._actions: list[tuple[Callable[[], None], int]] = [
            (self._claim_new, 16),
            (self._claim_again, 12),
            (self._move, 8),
            (self._release, 12),
            (self._set_inventory, 6),
            (self._set_traits, 5),
            (self._set_aggregates, 4),
            (self._come, 3),
            (self._go, 3),
            (self._make_trait, 2),
            (self._remove_trait, 2),
            (self._read_consumer, 8),
            (self._read_usages, 6),
            (self._read_inventory, 3),
            (self._read_traits, 3),
            (self._list, 6),
            (self._list_all, 3),
            (self._list_traits, 2),
            (self._candidates, 8),
            (self._picture, 6),
        ]

    def work(self, deadline: float) -> None:
        """Do this and that until the time has come."""
        actions = [action for action, _ in self._actions]
        weights = [weight for _, weight in self._actions]
        while time.monotonic() < deadline:
            action = self._random.choices(actions, weights)[0]
            try:
                action()
            except Exception as exc:  # an answer of another form than the API's
                self.record.surprises.append(f"{action.__name__}: {exc!r}")

    def expect(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request that has to work; return the answer's body."""
        answer = self.send(method, path, body)
        assert 200 <= answer.status < 300, f"{method} {path}: {answer.status} {answer.body}"
        return answer.body

    def send(self, method: str, path: str, body: Any = None, url: str | None = None) -> Answer:
        """Send a request to one of the processes, each time over a connection of its own."""
        netloc = urllib.parse.urlsplit(url or self._random.choice(self._hammer.urls)).netloc
        connection = http.client.HTTPConnection(netloc, timeout=patience.LIMIT_S)
        began = time.monotonic()
        try:
            connection.request(method, path, None if body is None else json.dumps(body), _HEADERS)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            answer = Answer(_NOBODY, None, began, NEVER)
        else:
            # The database was away in the middle of it: whether it took is not known either.
            ended = NEVER if response.status == 503 else time.monotonic()
            answer = Answer(response.status, json.loads(text) if text else None, began, ended)
        finally:
            connection.close()
        name = f"{method} {answer.status}"
        self.record.statuses[name] = self.record.statuses.get(name, 0) + 1
        return answer

    # --- claims ---------------------------------------------------------------------------------------------------

    def _claim_new(self) -> None:
        self._put(str(uuid.UUID(int=self._random.getrandbits(128))), None)

    def _claim_again(self) -> None:
        known = self._some_consumers(1)
        if known:
            self._put(*known[0])

    def _put(self, consumer: str, generation: int | None) -> None:
        tag, amounts = self._tag(), self._amounts()
        answer = self.send("PUT", f"/placement/allocations/{consumer}", _claim(tag, amounts, generation))
        self._claimed({consumer: (tag, amounts, generation)}, answer)

    def _move(self) -> None:
        """Change what two consumers hold, or what one does and a new one shall, at once."""
        known: list[tuple[str, int | None]] = list(self._some_consumers(2))
        if self._random.random() < 0.3:
            known[1:] = [(str(uuid.UUID(int=self._random.getrandbits(128))), None)]
        wanted = {consumer: (self._tag(), self._amounts(), generation) for consumer, generation in known}
        if not wanted:
            return
        answer = self.send(
            "POST", "/placement/allocations", {consumer: _claim(*claim) for consumer, claim in wanted.items()}
        )
        self._claimed(wanted, answer)

    def _claimed(self, wanted: Mapping[str, tuple[str, dict[str, int], int | None]], answer: Answer) -> None:
        detail = _detail(answer)
        if not answer.is_lost and not self._is_one_of(answer, 204, 409):
            return
        if answer.status == 204 or answer.is_lost:
            for consumer, (tag, amounts, generation) in wanted.items():
                held = (tag, tuple(sorted(amounts.items())))
                self.record.writes.append(Write(("consumer", consumer), held, answer.began, answer.ended))
                self.record.held.append(Write(consumer, dict(amounts), answer.began, answer.ended))
                with self._hammer.lock:
                    self._hammer.consumers[consumer] = 1 if generation is None else generation + 1
        if answer.status == 204 or _NO_ROOM in detail:
            asked = {consumer: amounts for consumer, (_, amounts, _) in wanted.items()}
            self.record.claims.append(Claim(asked, answer.status == 204, answer.began, answer.ended))
        elif answer.status == 409:  # its generation was another
            for consumer in wanted:
                self._look_at(consumer)

    def _release(self) -> None:
        for consumer, _ in self._some_consumers(1):
            answer = self.send("DELETE", f"/placement/allocations/{consumer}")
            if answer.status == 404:
                self.record.reads.append(Read(("consumer", consumer), None, answer.began, answer.ended))
            elif answer.is_lost or self._is_one_of(answer, 204):
                self.record.writes.append(Write(("consumer", consumer), None, answer.began, answer.ended))
                self.record.held.append(Write(consumer, None, answer.began, answer.ended))
            if not answer.is_lost:
                with self._hammer.lock:
                    self._hammer.consumers.pop(consumer, None)

    def _read_consumer(self) -> None:
        for consumer, _ in self._some_consumers(1):
            self._look_at(consumer)

    def _look_at(self, consumer: str) -> None:
        answer = self.send("GET", f"/placement/allocations/{consumer}")
        if answer.is_lost or not self._is_one_of(answer, 200):
            return
        held = answer.body["allocations"]
        amounts = tuple(sorted((provider, part["resources"][CLASS]) for provider, part in held.items()))
        value = (answer.body["user_id"], amounts) if held else None
        self.record.reads.append(Read(("consumer", consumer), value, answer.began, answer.ended))
        for provider, part in held.items():
            self._saw(provider, part["generation"], answer)
        if held:
            with self._hammer.lock:
                self._hammer.consumers[consumer] = answer.body["consumer_generation"]

    def _some_consumers(self, count: int) -> list[tuple[str, int]]:
        with self._hammer.lock:
            known = list(self._hammer.consumers.items())
        return self._random.sample(known, min(count, len(known)))

    def _amounts(self) -> dict[str, int]:
        some = self._random.sample(self._hammer.providers, self._random.choice((1, 1, 1, 2)))
        return {provider: self._random.randint(1, 2) for provider in some}

    def _tag(self) -> str:
        return f"user-{next(self._hammer.numbers)}"

    # --- providers ------------------------------------------------------------------------------------------------

    def _set_inventory(self) -> None:
        provider = self._random.choice(self._hammer.providers)
        capacity = CAPACITY if provider in self._hammer.steady else self._random.randint(1, 2 * CAPACITY)
        reserved = next(self._hammer.numbers)
        inventory = {"total": capacity + reserved, "reserved": reserved}
        answer, made = self._change(
            provider, "inventories", {"inventories": {CLASS: inventory}}, {"inventory": (capacity + reserved, reserved)}
        )
        if made:
            self.record.capacities.append(Write(provider, capacity, answer.began, answer.ended))

    def _set_traits(self) -> None:
        traits = sorted(self._random.sample(TRAITS, self._random.randint(0, 3)))
        provider = self._random.choice(self._hammer.providers)
        self._change(provider, "traits", {"traits": traits}, _traits_part(traits))

    def _set_aggregates(self) -> None:
        aggregates = sorted(self._random.sample(AGGREGATES, self._random.randint(0, 2)))
        provider = self._random.choice(self._hammer.providers)
        self._change(provider, "aggregates", {"aggregates": aggregates}, _aggregates_part(aggregates))

    def _change(self, provider: str, what: str, body: dict[str, Any], parts: dict[str, Any]) -> tuple[Answer, bool]:
        expected = self._hammer.generation[provider]
        body = {**body, "resource_provider_generation": expected}
        answer = self.send("PUT", f"/placement/resource_providers/{provider}/{what}", body)
        made = Sight(provider, expected + 1, answer.began, answer.ended, made=True, parts=parts)
        if answer.is_lost:
            self.record.lost.append(made)
            return answer, True
        if self._is_one_of(answer, 200, 409) and answer.status == 409:
            self._read_usages(provider)
            return answer, False
        generation = answer.body["resource_provider_generation"]
        if what == "traits" and generation == expected:  # they were these already
            self._saw(provider, generation, answer, parts)
            return answer, False
        self.record.sights.append(made)
        if generation != expected + 1:
            self.record.surprises.append(f"{provider}: {what} made {generation} of {expected}")
        with self._hammer.lock:
            self._hammer.generation[provider] = max(self._hammer.generation[provider], generation)
        return answer, True

    def _read_usages(self, provider: str | None = None) -> None:
        provider = provider or self._random.choice(self._hammer.providers)
        answer = self._read(f"/placement/resource_providers/{provider}/usages")
        if answer is not None:
            self._saw(provider, answer.body["resource_provider_generation"], answer)
            self._uses(provider, answer.body["usages"][CLASS], answer)

    def _read_inventory(self) -> None:
        provider = self._random.choice(self._hammer.providers)
        answer = self._read(f"/placement/resource_providers/{provider}/inventories")
        if answer is not None:
            inventory = answer.body["inventories"][CLASS]
            part = {"inventory": (inventory["total"], inventory["reserved"])}
            self._saw(provider, answer.body["resource_provider_generation"], answer, part)

    def _read_traits(self) -> None:
        provider = self._random.choice(self._hammer.providers)
        what, part = self._random.choice((("traits", _traits_part), ("aggregates", _aggregates_part)))
        answer = self._read(f"/placement/resource_providers/{provider}/{what}")
        if answer is not None:
            self._saw(provider, answer.body["resource_provider_generation"], answer, part(answer.body[what]))

    def _list(self) -> None:
        """Ask who has so much free, with or without a trait or in an aggregate."""
        amount = self._random.randint(1, CAPACITY)
        trait, aggregate = self._random.choice(TRAITS), self._random.choice(AGGREGATES)
        more, part = self._random.choice(
            (
                ("", {}),
                ("", {}),
                (f"&required={trait}", {trait: True}),
                (f"&required=!{trait}", {trait: False}),
                (f"&member_of={aggregate}", {aggregate: True}),
            )
        )
        answer = self._read(f"/placement/resource_providers?resources={CLASS}:{amount}{more}")
        if answer is None:
            return
        listed = {provider["uuid"]: provider["generation"] for provider in answer.body["resource_providers"]}
        for provider, generation in listed.items():
            self._saw(provider, generation, answer, part)
        self._offered(amount, listed.keys(), answer, everybody=not more)

    def _candidates(self) -> None:
        amount = self._random.randint(1, CAPACITY)
        answer = self._read(f"/placement/allocation_candidates?resources={CLASS}:{amount}&limit=1000")
        if answer is None:
            return
        offered = {provider for request in answer.body["allocation_requests"] for provider in request["allocations"]}
        self._offered(amount, offered, answer, everybody=True)
        for provider, summary in answer.body["provider_summaries"].items():
            if CLASS in summary["resources"]:
                self._uses(provider, summary["resources"][CLASS]["used"], answer)

    def _picture(self) -> None:
        some = self._random.sample(self._hammer.providers, 4)
        whole = self._random.random() < 0.3
        query = "" if whole else "?" + "&".join(f"uuid={provider}" for provider in some)
        answer = self._read(f"/v1/picture{query}")
        if answer is None:
            return
        rows = {row["uuid"]: row for row in answer.body["picture"]["resource_providers"]}
        for provider in self._hammer.providers if whole else some:
            row = rows[provider]
            self._saw(provider, row["generation"], answer, picture_parts(row))
            self._uses(provider, row["inventories"][CLASS]["used"], answer)
        if whole:
            self._exist("provider", self._hammer.passing, rows.keys(), answer)

    def _offered(self, amount: int, offered: Any, answer: Answer, *, everybody: bool) -> None:
        for provider in self._hammer.providers:
            if everybody or provider in offered:
                self.record.offers.append(Offer(provider, amount, provider in offered, answer.began, answer.ended))

    def _saw(self, provider: str, generation: int, answer: Answer, parts: Mapping[str, Any] | None = None) -> None:
        self.record.sights.append(Sight(provider, generation, answer.began, answer.ended, parts=parts or {}))
        with self._hammer.lock:
            known = self._hammer.generation.get(provider, 0)
            self._hammer.generation[provider] = max(known, generation)

    def _uses(self, provider: str, used: int, answer: Answer) -> None:
        self.record.uses.append(Use(provider, used, answer.began, answer.ended))

    # --- what comes and goes --------------------------------------------------------------------------------------

    def _come(self) -> None:
        provider = str(uuid.UUID(int=self._random.getrandbits(128)))
        parent = self._random.choice((None, self._random.choice(self._hammer.providers)))
        body = {"uuid": provider, "name": provider, "parent_provider_uuid": parent}
        answer = self.send("POST", "/placement/resource_providers", body)
        if answer.is_lost or self._is_one_of(answer, 200):
            self.record.writes.append(Write(("provider", provider), "there", answer.began, answer.ended))
            with self._hammer.lock:
                self._hammer.passing[provider] = parent or ""

    def _go(self) -> None:
        with self._hammer.lock:
            there = [provider for provider in self._hammer.passing if provider not in self._hammer.gone]
        if there:
            provider = self._random.choice(there)
            answer = self.send("DELETE", f"/placement/resource_providers/{provider}")
            self._removed("provider", provider, answer)

    def _make_trait(self) -> None:
        name = f"CUSTOM_PASSING_{next(self._hammer.numbers)}"
        answer = self.send("PUT", f"/placement/traits/{name}")
        if answer.is_lost or self._is_one_of(answer, 201):
            self.record.writes.append(Write(("trait", name), "there", answer.began, answer.ended))
            with self._hammer.lock:
                self._hammer.traits.append(name)

    def _remove_trait(self) -> None:
        with self._hammer.lock:
            there = [name for name in self._hammer.traits if name not in self._hammer.gone]
        if there:
            name = self._random.choice(there)
            self._removed("trait", name, self.send("DELETE", f"/placement/traits/{name}"))

    def _removed(self, kind: str, name: str, answer: Answer) -> None:
        if answer.status == 404:
            self.record.reads.append(Read((kind, name), None, answer.began, answer.ended))
        elif answer.is_lost or self._is_one_of(answer, 204):
            self.record.writes.append(Write((kind, name), None, answer.began, answer.ended))
        if not answer.is_lost:
            with self._hammer.lock:
                self._hammer.gone.add(name)

    def _list_all(self) -> None:
        answer = self._read("/placement/resource_providers")
        if answer is None:
            return
        listed = {provider["uuid"]: provider["generation"] for provider in answer.body["resource_providers"]}
        for provider in self._hammer.providers:
            self._saw(provider, listed[provider], answer)
        self._exist("provider", self._hammer.passing, listed, answer)

    def _list_traits(self) -> None:
        answer = self._read("/placement/traits?name=startswith:CUSTOM_PASSING_")
        if answer is not None:
            self._exist("trait", self._hammer.traits, set(answer.body["traits"]), answer)

    def _exist(self, kind: str, known: Any, seen: Any, answer: Answer) -> None:
        with self._hammer.lock:
            names = [*known]
        for name in names:
            value = "there" if name in seen else None
            self.record.reads.append(Read((kind, name), value, answer.began, answer.ended))

    # --- answers --------------------------------------------------------------------------------------------------

    def _read(self, path: str) -> Answer | None:
        answer = self.send("GET", path)
        return None if answer.is_lost or not self._is_one_of(answer, 200) else answer

    def _is_one_of(self, answer: Answer, *statuses: int) -> bool:
        if answer.status in statuses:
            return True
        self.record.surprises.append(f"{answer.status}: {answer.body}")
        return False


def _claim(tag: str, amounts: Mapping[str, int], generation: int | None) -> dict[str, Any]:
    return {
        "allocations": {provider: {"resources": {CLASS: amount}} for provider, amount in amounts.items()},
        "project_id": "hammer",
        "user_id": tag,
        "consumer_generation": generation,
        "consumer_type": "TEST",
    }


def _detail(answer: Answer) -> str:
    return str(answer.body["errors"][0]["detail"]) if answer.status == 409 else ""


def _traits_part(traits: Sequence[str]) -> dict[str, Any]:
    ours = sorted(set(traits) & set(TRAITS))
    return {"traits": tuple(ours), **{name: name in ours for name in TRAITS}}


def _aggregates_part(aggregates: Sequence[str]) -> dict[str, Any]:
    return {"aggregates": tuple(sorted(aggregates)), **{name: name in aggregates for name in AGGREGATES}}


def picture_parts(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a provider that a row of a picture shows."""
    inventory = row["inventories"][CLASS]
    return {
        "inventory": (inventory["total"], inventory["reserved"]),
        **_traits_part(row["traits"]),
        **_aggregates_part(row["aggregates"]),
    }


def state(
    hammer: Hammer,
    rows: Mapping[str, Mapping[str, Any]],
    held: Mapping[str, Holding],
    traits: Sequence[str],
    now: float,
) -> Record:
    """Return what the tables say as if it had been read at a moment, or, with ALWAYS, written before everything else.

    :param rows: providers by uuid, in the form of ``/v1/picture``
    :param held: what consumers hold
    :param traits: names of all custom traits
    """
    record = Record()
    first = now == ALWAYS

    def register(key: tuple[str, str], value: Any) -> None:
        if first:
            record.writes.append(Write(key, value, now, now))
        else:
            record.reads.append(Read(key, value, now, now))

    with hammer.lock:
        consumers = {*hammer.consumers, *held}
        passing, names = list(hammer.passing), list(hammer.traits)
    for consumer in consumers:
        register(("consumer", consumer), held.get(consumer))
        if first:
            amounts = dict(held[consumer][1]) if consumer in held else None
            record.held.append(Write(consumer, amounts, now, now))
    for provider in passing:
        register(("provider", provider), "there" if provider in rows else None)
    for name in names:
        register(("trait", name), "there" if name in traits else None)
    for provider in hammer.providers:
        row = rows[provider]
        record.sights.append(Sight(provider, row["generation"], now, now, made=first, parts=picture_parts(row)))
        inventory = row["inventories"][CLASS]
        if first:
            record.capacities.append(Write(provider, inventory["total"] - inventory["reserved"], now, now))
        else:
            record.uses.append(Use(provider, inventory["used"], now, now))
    return record
