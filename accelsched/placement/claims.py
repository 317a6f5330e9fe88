# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The one place that decides about allocations.

Claims lock the providers they draw from, in the order of their ids (so two transactions never wait for each other in a
circle), check every amount against what is free now, and write consumers, allocations, the inventories' ``used`` and
the generations in the caller's transaction. Whoever changes inventories changes the provider's generation first and
so queues at the same lock.

Many claims may share a transaction (:func:`replace_each`): what they need is read together, each is decided on top of
those before it, and what was admitted is written together (:mod:`accelsched.placement.claim_rows`).
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db import feed
from accelsched.db.base import utcnow
from accelsched.placement import capacity_rules, claim_rows, classes
from accelsched.placement.claim_rows import Holding, Key, KnownConsumer, Stock, capacity

__all__ = [
    "ANY_GENERATION",
    "AnyGeneration",
    "Claim",
    "ConsumerAllocation",
    "capacity",
    "fitting",
    "hand_over",
    "release",
    "replace",
    "replace_each",
]


class AnyGeneration(enum.Enum):
    """The type of :data:`ANY_GENERATION`."""

    token = 0


ANY_GENERATION: Final = AnyGeneration.token
"""Do not check the consumer's generation."""


@dataclasses.dataclass(frozen=True)
class ConsumerAllocation:
    """All that one consumer shall hold from now on.

    ``generation`` is the consumer's expected one: a number, None when it must be new, or ANY_GENERATION.
    ``allocations`` maps provider uuid to amounts by resource class; empty removes everything.
    ``consumer_type`` None leaves the type of a known consumer as it is.
    """

    consumer_uuid: str
    project_id: str
    user_id: str
    allocations: Mapping[str, Mapping[str, int]]
    consumer_type: str | None = None
    generation: int | AnyGeneration | None = ANY_GENERATION


@dataclasses.dataclass(frozen=True)
class Claim:
    """Changes to several consumers that are made all or none.

    ``advance`` tells whether the providers' generations grow; Placement's DELETE leaves them.
    """

    changes: Sequence[ConsumerAllocation]
    advance: bool = True

    @property
    def subjects(self) -> Collection[str]:
        """The consumers."""
        return {change.consumer_uuid for change in self.changes}


def replace(session: Session, changes: Sequence[ConsumerAllocation], *, advance: bool = True) -> None:
    """Make every consumer hold just what its change says, or change nothing.

    Generations grow as Placement's do: those of the providers that a consumer holds from afterwards, or that one held
    from which now holds nothing.

    :param advance: see :class:`Claim`
    :raises accelsched.errors.InvalidError: a provider or class does not exist
    :raises accelsched.errors.ConcurrentUpdateError: a consumer's generation is another, or two writers met
    :raises accelsched.errors.ConflictError: a provider has no inventory of a class
    :raises accelsched.errors.CapacityExceededError: an amount does not fit, or a capacity rule does not allow it
    """
    (refusal,) = replace_each(session, [Claim(changes, advance)])
    if refusal is not None:
        raise refusal


def replace_each(session: Session, claims: Sequence[Claim]) -> list[errors.AccelschedError | None]:
    """Decide several claims, each as if it came alone after those before it. One that is refused changes nothing.

    :param claims: no consumer is in two of them
    :returns: for each claim None, or why it was refused: what :func:`replace` raises
    :raises accelsched.errors.LostRaceError: another transaction was quicker with one of the consumers
    """
    drafts, refusals = _drafts(session, claims)
    stocks = claim_rows.stocks(session, set().union(*(draft.providers for draft in drafts)))
    ruled = _ruled(stocks)
    together, apart = _parted(session, drafts, ruled) if ruled and len(claims) > 1 else (drafts, [])
    admitted: list[_Draft] = []
    for draft in together:
        try:
            _admit(draft, stocks)
        except errors.AccelschedError as exc:
            refusals[draft.number] = exc
        else:
            admitted.append(draft)
    if admitted:
        _write(session, admitted)
        _keep_rules(session, admitted, stocks, ruled)
    for draft in apart:
        try:
            with session.begin_nested():
                replace(session, draft.claim.changes, advance=draft.claim.advance)
        except errors.LostRaceError:
            raise
        except errors.AccelschedError as exc:
            refusals[draft.number] = exc
    return refusals


def release(session: Session, consumer_uuids: Iterable[str]) -> None:
    """Take everything from consumers; those that are not known hold nothing already.

    :raises accelsched.errors.LostRaceError: another transaction changed one of them meanwhile
    """
    known = claim_rows.known(session, list(consumer_uuids)).values()
    replace(
        session,
        [ConsumerAllocation(consumer.uuid, consumer.project_id, consumer.user_id, {}) for consumer in known],
    )


def hand_over(session: Session, from_uuid: str, to_uuid: str, consumer_type: str) -> None:
    """Have a new consumer hold all that another held, positions and NUMA nodes too; the other holds nothing then.

    :raises accelsched.errors.LostRaceError: another transaction changed the consumer meanwhile
    """
    known = claim_rows.known(session, [from_uuid]).get(from_uuid)
    if known is not None:
        values = {"uuid": to_uuid, "consumer_type": consumer_type, "generation": known.generation + 1}
        claim_rows.change_consumer(session, known, {**values, "updated_at": utcnow()})


def fitting(session: Session, changes: Sequence[ConsumerAllocation]) -> list[ConsumerAllocation]:
    """Return those of some new consumers' allocations that fit together, earlier ones first.

    Their providers are locked for the rest of the transaction, so :func:`replace` will take what is returned.

    :raises accelsched.errors.InvalidError: a provider or class does not exist
    """
    names = _lock(session, changes)
    stocks = claim_rows.stocks(session, names.providers.values())
    sharers = capacity_rules.sharers(
        session, {provider for (provider, _), it in stocks.items() if it.ceiling is not None}
    )
    kept: list[ConsumerAllocation] = []
    for change in changes:
        amounts = names.keyed(change)
        has_room = all(_has_room(stocks.get(key), amount) for key, amount in amounts.items())
        if has_room and capacity_rules.take(sharers, change.allocations):
            for key, amount in amounts.items():
                stocks[key].used += amount
            kept.append(change)
    return kept


def _parted(session: Session, drafts: Sequence[_Draft], ruled: set[int]) -> tuple[list[_Draft], list[_Draft]]:
    """Return the claims that capacity rules let go together, and those to be decided when these are written.

    The former only add to what the providers with a rule carry, and all of it is allowed at once. What a rule makes
    of any other is known only once those before it are written.
    """
    sharers = capacity_rules.sharers(session, ruled)
    together: list[_Draft] = []
    apart: list[_Draft] = []
    for draft in drafts:
        fits = not draft.providers & ruled or all(
            not part.held and capacity_rules.take(sharers, part.change.allocations) for part in draft.parts
        )
        (together if fits else apart).append(draft)
    return together, apart


def _ruled(stocks: Mapping[Key, Stock]) -> set[int]:
    """Return the providers that have a capacity rule: those with a ceiling somewhere."""
    return {provider for (provider, _), stock in stocks.items() if stock.ceiling is not None}


def _has_room(stock: Stock | None, amount: int) -> bool:
    return stock is not None and stock.allows_unit(amount) and stock.used + amount <= stock.capacity


@dataclasses.dataclass(frozen=True)
class _Names:
    """Ids of the providers and classes that claims name, as far as they exist."""

    providers: Mapping[str, int]
    classes: Mapping[str, int]

    def keyed(self, change: ConsumerAllocation) -> dict[Key, int]:
        """Return a change's amounts by ids.

        :raises accelsched.errors.InvalidError: a provider or class does not exist
        """
        if missing := change.allocations.keys() - self.providers.keys():
            raise errors.InvalidError(f"Allocation for resource provider '{min(missing)}' that does not exist.")
        wanted: dict[Key, int] = {}
        for provider, amounts in change.allocations.items():
            for name, amount in amounts.items():
                if name not in self.classes:
                    raise errors.InvalidError(f"No such resource class {name}.")
                wanted[self.providers[provider], self.classes[name]] = amount
        return wanted

    def of(self, key: Key) -> tuple[str, str]:
        """Return the uuid of a provider and the name of a class."""
        provider = next(uuid for uuid, id_ in self.providers.items() if id_ == key[0])
        class_ = next(name for name, id_ in self.classes.items() if id_ == key[1])
        return provider, class_


def _lock(session: Session, changes: Iterable[ConsumerAllocation], known: Iterable[KnownConsumer] = ()) -> _Names:
    """Lock every provider that some consumers hold from or shall hold from."""
    allocations = [change.allocations for change in changes]
    held_from = {provider for consumer in known for provider, _ in consumer.held}
    return _Names(
        claim_rows.lock(session, {uuid for some in allocations for uuid in some}, held_from),
        classes.known_ids(session, {name for some in allocations for amounts in some.values() for name in amounts}),
    )


@dataclasses.dataclass
class _Part:
    """One consumer of a claim: what it holds and what it shall hold."""

    change: ConsumerAllocation
    known: KnownConsumer | None
    wanted: dict[Key, int]

    @property
    def held(self) -> Mapping[Key, int]:
        return self.known.held if self.known is not None else {}

    @property
    def leaves(self) -> bool:
        """Whether it held something and shall hold nothing."""
        return bool(self.held) and not self.change.allocations


@dataclasses.dataclass
class _Draft:
    """A claim that makes sense; whether it fits is to be seen."""

    number: int
    claim: Claim
    parts: list[_Part]
    names: _Names
    growth: dict[Key, int] = dataclasses.field(default_factory=lambda: defaultdict(int))

    @property
    def providers(self) -> set[int]:
        """Every provider that is drawn from, before or after."""
        return {provider for part in self.parts for rows in (part.held, part.wanted) for provider, _ in rows}

    @property
    def advanced(self) -> set[int]:
        """The providers whose generations grow."""
        if not self.claim.advance:
            return set()
        return {provider for part in self.parts for provider, _ in (part.held if part.leaves else part.wanted)}


def _drafts(session: Session, claims: Sequence[Claim]) -> tuple[list[_Draft], list[errors.AccelschedError | None]]:
    """Lock what the claims are about; return those that make sense, and why the others do not."""
    changes = [change for claim in claims for change in claim.changes]
    known = claim_rows.known(session, {change.consumer_uuid for change in changes})
    names = _lock(session, changes, known.values())
    # What is held may have changed while this waited; what is free must not be judged by what was held before.
    if known and claim_rows.known(session, list(known)) != known:
        raise errors.LostRaceError(claim_rows.CONSUMER_RACE)
    drafts: list[_Draft] = []
    refusals: list[errors.AccelschedError | None] = [None] * len(claims)
    for number, claim in enumerate(claims):
        try:
            _check_consumers(claim, known)
            parts = [_Part(it, known.get(it.consumer_uuid), names.keyed(it)) for it in claim.changes]
        except errors.AccelschedError as exc:
            refusals[number] = exc
        else:
            drafts.append(_Draft(number, claim, parts, names))
    return drafts, refusals


def _check_consumers(claim: Claim, known: Mapping[str, KnownConsumer]) -> None:
    if len({change.consumer_uuid for change in claim.changes}) != len(claim.changes):
        raise errors.InvalidError("a consumer appears more than once in one request")
    for change in claim.changes:
        if change.generation is ANY_GENERATION:
            continue
        consumer = known.get(change.consumer_uuid)
        present = None if consumer is None else consumer.generation
        if present != change.generation:
            expected, given = ("null" if value is None else value for value in (present, change.generation))
            raise errors.ConcurrentUpdateError(f"consumer generation conflict - expected {expected} but got {given}")


def _admit(draft: _Draft, stocks: Mapping[Key, Stock]) -> None:
    """Find that a claim fits, and count it as used.

    :raises accelsched.errors.ConflictError: it does not
    """
    for part in draft.parts:
        for key in part.held.keys() | part.wanted.keys():
            draft.growth[key] += part.wanted.get(key, 0) - part.held.get(key, 0)
        for key, amount in part.wanted.items():
            _check_unit(stocks.get(key), key, amount, draft.names)
    for key, amount in draft.growth.items():
        if amount > 0:
            _check_free(stocks[key], key, amount, draft.names)
    for key, amount in draft.growth.items():
        stocks[key].used += amount


def _check_unit(stock: Stock | None, key: Key, amount: int, names: _Names) -> None:
    if stock is None:
        provider, class_ = names.of(key)
        raise errors.ConflictError(
            f"Unable to allocate inventory: Inventory for '{class_}' on resource provider '{provider}' invalid."
        )
    if stock.allows_unit(amount):
        return
    provider, class_ = names.of(key)
    raise errors.CapacityExceededError(
        f"Unable to allocate inventory: Unable to create allocation for '{class_}' on resource provider "
        f"'{provider}'. The requested amount {amount} would violate inventory constraints: min_unit "
        f"{stock.min_unit}, max_unit {stock.max_unit}, step_size {stock.step_size}."
    )


def _check_free(stock: Stock, key: Key, amount: int, names: _Names) -> None:
    if stock.used + amount <= stock.capacity:
        return
    provider, class_ = names.of(key)
    raise errors.CapacityExceededError(
        f"Unable to allocate inventory: Unable to create allocation for '{class_}' on resource provider '{provider}'. "
        f"The requested amount would exceed the capacity: asked {amount}, free {stock.capacity - stock.used}."
    )


def _write(session: Session, drafts: Sequence[_Draft]) -> None:
    now = utcnow()
    parts = [part for draft in drafts for part in draft.parts]
    for part in parts:
        if part.known is not None:
            _write_known(session, part, part.known, now)
    emptied = [part.known.id for part in parts if part.known is not None and part.held]
    claim_rows.remove_allocations(session, emptied)
    claim_rows.remove_consumers(session, [part.known.id for part in parts if part.known is not None and part.leaves])
    growth: Counter[Key] = Counter()
    for draft in drafts:
        growth.update(draft.growth)
    claim_rows.write(
        session,
        consumers=[_new_consumer(part.change) for part in parts if part.known is None],
        holdings=[
            Holding(part.change.consumer_uuid, part.known.id if part.known is not None else None, *key, amount)
            for part in parts
            for key, amount in part.wanted.items()
        ],
        growth=growth,
        advances=Counter(provider for draft in drafts for provider in draft.advanced),
        now=now,
    )
    feed.touch(session, {provider for draft in drafts for provider in draft.providers})


def _write_known(session: Session, part: _Part, known: KnownConsumer, now: datetime.datetime) -> None:
    claim_rows.change_consumer(
        session,
        known,
        {
            # One that held nothing and goes on so has not changed.
            "generation": known.generation + (1 if part.change.allocations or part.held else 0),
            "project_id": part.change.project_id,
            "user_id": part.change.user_id,
            "consumer_type": part.change.consumer_type or known.consumer_type,
            "updated_at": now,
        },
    )


def _new_consumer(change: ConsumerAllocation) -> dict[str, Any]:
    return {
        "uuid": change.consumer_uuid,
        "project_id": change.project_id,
        "user_id": change.user_id,
        "consumer_type": change.consumer_type,
        # A consumer that holds nothing stays at generation 0, as Placement leaves it.
        "generation": 1 if change.allocations else 0,
    }


def _keep_rules(session: Session, drafts: Sequence[_Draft], stocks: Mapping[Key, Stock], ruled: set[int]) -> None:
    touched = ruled & set().union(*(draft.providers for draft in drafts))
    if touched:
        growth = ((key, amount) for draft in drafts for key, amount in draft.growth.items())
        grown = {key[0] for key, amount in growth if amount > 0 and stocks[key].ceiling is not None}
        capacity_rules.settle(session, touched, refuse=grown)
