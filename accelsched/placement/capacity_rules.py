# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Capacity rules: set, shown, and kept by every transaction that changes what a provider carries.

:func:`settle` is the one place that keeps them. It looks at what a transaction has written: it gives positions to
units that have none, refuses what a rule does not allow, and writes each class's *ceiling* into its inventory, so that
whoever searches sees ``min(capacity, ceiling)`` and needs to know nothing of rules. Callers hold the providers' locks.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db.base import table_of, utcnow
from accelsched.db.placement import (
    Allocation,
    CapacityRule,
    Consumer,
    InstancePosition,
    Inventory,
    ResourceClass,
    ResourceProvider,
)
from accelsched.placement import classes, partitioning, providers
from accelsched.placement.partitioning import Held, Position, Rule, Slices
from accelsched.placement.providers import LockedProvider, Provider

_rules_table = table_of(CapacityRule)
_RULES = select(_rules_table.c.provider_id, _rules_table.c.rule).where(
    _rules_table.c.provider_id.in_(bindparam("of_ids", expanding=True))
)


@dataclasses.dataclass(frozen=True)
class Stored:
    """A provider's rule, if it has one, and what comes of it just now."""

    provider: Provider
    rule: Rule | None
    ceilings: Mapping[str, int]  # of the rule's classes that the provider has an inventory of
    positions: tuple[tuple[str, Position], ...]  # consumer uuid and where its unit sits, by start


@dataclasses.dataclass
class Sharer:
    """A provider with a rule, and what it would carry: for trying several claims one after the other."""

    uuid: str
    rule: Rule
    held: Held


def get(session: Session, provider_uuid: str) -> Stored:
    """Return a provider's rule.

    :param session: a snapshot, or the parts may not fit together
    :raises accelsched.errors.NotFoundError: the provider does not exist
    """
    provider = providers.get(session, provider_uuid)
    document = session.scalar(select(CapacityRule.rule).where(CapacityRule.provider_id == provider.id))
    ceilings = session.execute(
        select(ResourceClass.name, Inventory.ceiling)
        .join(ResourceClass, ResourceClass.id == Inventory.class_id)
        .where(Inventory.provider_id == provider.id, Inventory.ceiling.is_not(None))
        .order_by(ResourceClass.name)
    )
    positions = session.execute(
        select(Consumer.uuid, ResourceClass.name, InstancePosition.start)
        .join(Consumer, Consumer.id == InstancePosition.consumer_id)
        .join(ResourceClass, ResourceClass.id == InstancePosition.class_id)
        .where(InstancePosition.provider_id == provider.id)
        .order_by(InstancePosition.start)
    )
    return Stored(
        provider,
        None if document is None else partitioning.parse(document),
        {name: ceiling for name, ceiling in ceilings if ceiling is not None},
        tuple((uuid, Position(name, start)) for uuid, name, start in positions),
    )


def put(session: Session, provider_uuid: str, rule: Rule, *, expected: int) -> LockedProvider:
    """Give a provider a rule in place of the one it has.

    Units that are there already and need positions get them, as if they were claimed now.

    :param expected: the provider's generation as the caller saw it
    :returns: the provider as it is now
    :raises accelsched.errors.NotFoundError: the provider does not exist
    :raises accelsched.errors.InvalidError: a class does not exist
    :raises accelsched.errors.ConcurrentUpdateError: its generation is another
    :raises accelsched.errors.ConflictError: what the provider carries breaks the rule already
    """
    provider = providers.lock(session, provider_uuid)
    providers.check_generation(provider, expected)
    classes.ids(session, rule.classes)
    provider = providers.advance(session, provider)
    _write(session, provider.id, rule)
    settle(session, [provider.id], refuse=[provider.id])
    return provider


def remove(session: Session, provider_uuid: str) -> LockedProvider:
    """Take a provider's rule away; its inventories alone say then what fits.

    :returns: the provider as it is now
    :raises accelsched.errors.NotFoundError: the provider does not exist, or has no rule
    """
    provider = providers.lock(session, provider_uuid)
    if not _drop(session, provider.id):
        raise errors.NotFoundError(f"resource provider {provider_uuid} has no capacity rule")
    return providers.advance(session, provider)


def report(
    session: Session, provider_id: int, told: Mapping[str, Any] | None, before: Mapping[str, Any] | None
) -> bool:
    """Take over what an agent says of a provider's rule; what an operator set instead stays until the agent says anew.

    An agent is right about its hardware: a rule that is broken already holds nevertheless, and nothing is added until
    it is kept again.

    :param told: the rule's document; None when there is none
    :param before: what the agent said last
    :returns: whether the rule is another one now
    :raises accelsched.errors.InvalidError: the document makes no sense
    """
    stored = session.scalar(select(CapacityRule.rule).where(CapacityRule.provider_id == provider_id))
    if told is None:
        return before is not None and stored == partitioning.parse(before).document() and _drop(session, provider_id)
    rule = partitioning.parse(told)
    if told == before or stored == rule.document():
        return False
    _write(session, provider_id, rule)
    return True


def settle(session: Session, provider_ids: Collection[int], *, refuse: Collection[int] = ()) -> None:
    """Keep the rules of providers after what the transaction wrote: positions, ceilings, refusals.

    :param provider_ids: those that changed; the ones without a rule are left alone
    :param refuse: those of them whose rule, if it is broken now, refuses the transaction: what only gives something
        back is never refused
    :raises accelsched.errors.CapacityExceededError: what is held now breaks such a rule
    """
    rules = _rules(session, provider_ids)
    if not rules:
        return
    stocks = _stocks(session, rules)
    held = {id_: Held({name: stock.used for name, stock in stocks[id_].items()}) for id_ in rules}
    held |= _arrange(session, {id_: rule for id_, rule in rules.items() if isinstance(rule, Slices)}, held)
    ceilings: list[dict[str, int | None]] = []
    for id_, rule in rules.items():
        if id_ in refuse and not rule.allows(held[id_]):
            raise errors.CapacityExceededError(_refusal(session, id_, rule, held[id_]))
        now = partitioning.ceilings(rule, held[id_])
        ceilings += [
            {"p": id_, "c": stock.class_id, "most": now.get(name)}
            for name, stock in stocks[id_].items()
            if stock.ceiling != now.get(name)
        ]
    if ceilings:
        session.connection().execute(
            update(Inventory)
            .where(Inventory.provider_id == bindparam("p"), Inventory.class_id == bindparam("c"))
            .values(ceiling=bindparam("most")),
            ceilings,
        )


def sharers(session: Session, provider_ids: Collection[int]) -> list[Sharer]:
    """Return those of some locked providers that have a rule."""
    rules = _rules(session, provider_ids)
    if not rules:
        return []
    stocks = _stocks(session, rules)
    positions: dict[int, set[Position]] = defaultdict(set)
    for provider_id, name, start in session.execute(
        select(InstancePosition.provider_id, ResourceClass.name, InstancePosition.start)
        .join(ResourceClass, ResourceClass.id == InstancePosition.class_id)
        .where(InstancePosition.provider_id.in_(rules))
    ):
        positions[provider_id].add(Position(name, start))
    uuids = session.execute(select(ResourceProvider.id, ResourceProvider.uuid).where(ResourceProvider.id.in_(rules)))
    return [
        Sharer(
            uuid,
            rules[id_],
            Held({name: stock.used for name, stock in stocks[id_].items()}, frozenset(positions[id_])),
        )
        for id_, uuid in uuids
    ]


def take(sharers_: Iterable[Sharer], allocations: Mapping[str, Mapping[str, int]]) -> bool:
    """Add one consumer's amounts, by provider uuid and class, to what is held, if every rule allows it.

    :returns: whether they were added
    """
    after = []
    for sharer in sharers_:
        wanted = allocations.get(sharer.uuid, {})
        held = sharer.held.plus({name: amount for name, amount in wanted.items() if name in sharer.rule.classes})
        if wanted and not sharer.rule.allows(held):
            return False
        after.append((sharer, held))
    for sharer, held in after:
        sharer.held = held
    return True


def positions_of(session: Session, consumer_uuids: Collection[str]) -> dict[str, dict[tuple[str, str], list[int]]]:
    """Return where consumers' units sit: by consumer, starts by provider uuid and class, ascending."""
    rows = session.execute(
        select(Consumer.uuid, ResourceProvider.uuid, ResourceClass.name, InstancePosition.start)
        .join(Consumer, Consumer.id == InstancePosition.consumer_id)
        .join(ResourceProvider, ResourceProvider.id == InstancePosition.provider_id)
        .join(ResourceClass, ResourceClass.id == InstancePosition.class_id)
        .where(Consumer.uuid.in_(consumer_uuids))
        .order_by(InstancePosition.start)
    )
    found: dict[str, dict[tuple[str, str], list[int]]] = defaultdict(lambda: defaultdict(list))
    for consumer, provider, name, start in rows:
        found[consumer][provider, name].append(start)
    return found


@dataclasses.dataclass(frozen=True)
class _Stock:
    class_id: int
    used: int
    ceiling: int | None


def _rules(session: Session, provider_ids: Collection[int]) -> dict[int, Rule]:
    rows = session.connection().execute(_RULES, {"of_ids": list(provider_ids)})
    return {provider_id: partitioning.parse(document) for provider_id, document in rows}


def _stocks(session: Session, provider_ids: Iterable[int]) -> dict[int, dict[str, _Stock]]:
    rows = session.execute(
        select(Inventory.provider_id, ResourceClass.name, Inventory.class_id, Inventory.used, Inventory.ceiling)
        .join(ResourceClass, ResourceClass.id == Inventory.class_id)
        .where(Inventory.provider_id.in_(list(provider_ids)))
    )
    stocks: dict[int, dict[str, _Stock]] = defaultdict(dict)
    for provider_id, name, class_id, used, ceiling in rows:
        stocks[provider_id][name] = _Stock(class_id, used, ceiling)
    return stocks


def _write(session: Session, provider_id: int, rule: Rule) -> None:
    values = {"rule": rule.document(), "updated_at": utcnow()}
    known = session.scalar(select(CapacityRule.provider_id).where(CapacityRule.provider_id == provider_id))
    if known is None:
        session.execute(insert(CapacityRule).values(provider_id=provider_id, **values))
    else:
        session.execute(
            update(CapacityRule)
            .where(CapacityRule.provider_id == provider_id)
            .values(values)
            .execution_options(synchronize_session=False)
        )
    if not isinstance(rule, Slices):
        _drop_positions(session, provider_id)


def _drop(session: Session, provider_id: int) -> bool:
    if session.scalar(select(CapacityRule.provider_id).where(CapacityRule.provider_id == provider_id)) is None:
        return False
    session.execute(
        delete(CapacityRule).where(CapacityRule.provider_id == provider_id).execution_options(synchronize_session=False)
    )
    _drop_positions(session, provider_id)
    session.execute(
        update(Inventory)
        .where(Inventory.provider_id == provider_id)
        .values(ceiling=None)
        .execution_options(synchronize_session=False)
    )
    return True


def _drop_positions(session: Session, provider_id: int) -> None:
    session.execute(
        delete(InstancePosition)
        .where(InstancePosition.provider_id == provider_id)
        .execution_options(synchronize_session=False)
    )


def _refusal(session: Session, provider_id: int, rule: Rule, held: Held) -> str:
    uuid = session.scalar(select(ResourceProvider.uuid).where(ResourceProvider.id == provider_id))
    carried = ", ".join(f"{held.amounts[name]} {name}" for name in sorted(rule.classes) if held.amounts.get(name))
    return f"The capacity rule of resource provider '{uuid}', {rule}, does not allow {carried} together."


def _arrange(session: Session, rules: Mapping[int, Slices], held: Mapping[int, Held]) -> dict[int, Held]:
    """Make the positions of providers those of what is held: forget what went, place what came.

    A unit that has a position keeps it. When there is no way to place all that came, none of it gets a position.
    """
    if not rules:
        return {}
    class_ids = classes.ids(session, {name for id_ in rules for name in held[id_].amounts})
    owed: dict[int, Counter[tuple[int, str]]] = {id_: Counter() for id_ in rules}  # units by consumer and class
    for provider_id, consumer_id, name, used in session.execute(
        select(Allocation.provider_id, Allocation.consumer_id, ResourceClass.name, Allocation.used)
        .join(ResourceClass, ResourceClass.id == Allocation.class_id)
        .where(Allocation.provider_id.in_(rules))
    ):
        if name in rules[provider_id].classes:
            owed[provider_id][consumer_id, name] = used
    kept: dict[int, set[Position]] = {id_: set() for id_ in rules}
    gone: list[dict[str, int]] = []
    for provider_id, consumer_id, name, start in session.execute(
        select(InstancePosition.provider_id, InstancePosition.consumer_id, ResourceClass.name, InstancePosition.start)
        .join(ResourceClass, ResourceClass.id == InstancePosition.class_id)
        .where(InstancePosition.provider_id.in_(rules))
        .order_by(InstancePosition.start)
    ):
        position = Position(name, start)
        if owed[provider_id][consumer_id, name] and rules[provider_id].valid(position):
            owed[provider_id][consumer_id, name] -= 1
            kept[provider_id].add(position)
        else:
            gone.append({"p": provider_id, "s": start})
    if gone:
        session.connection().execute(
            delete(InstancePosition).where(
                InstancePosition.provider_id == bindparam("p"), InstancePosition.start == bindparam("s")
            ),
            gone,
        )
    arranged: dict[int, Held] = {}
    rows: list[dict[str, int]] = []
    for id_, rule in rules.items():
        before = Held(held[id_].amounts, frozenset(kept[id_]))
        placed = rule.place(before) or ()
        arranged[id_] = Held(before.amounts, before.positions | set(placed))
        free = sorted(placed)
        for (consumer_id, name), count in sorted(owed[id_].items()):
            mine = [position for position in free if position.resource_class == name][:count]
            free = [position for position in free if position not in mine]
            rows += [
                {"provider_id": id_, "start": start, "class_id": class_ids[name], "consumer_id": consumer_id}
                for _, start in mine
            ]
    if rows:
        session.execute(insert(InstancePosition), rows)
    return arranged
