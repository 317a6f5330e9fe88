# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The rows that claims read, lock and write, each kind in one statement for all claims of a transaction.

Only :mod:`accelsched.placement.claims` decides what is written. Everything here works on plain tables: on this path
mapped classes would cost more than the database.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from oslo_db import exception as db_exception
from sqlalchemy import BindParameter, Connection, bindparam, delete, insert, or_, select, text, update
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db.base import table_of
from accelsched.db.placement import Allocation, Consumer, Inventory, ResourceProvider

T = TypeVar("T")

Key = tuple[int, int]
"""Ids of a provider and of a resource class."""

# Databases bound the number of parameters of one statement; SQLite's bound is the lowest, 32,766.
_MOST_IN_ONE_STATEMENT = 10_000

_allocations = table_of(Allocation)
_consumers = table_of(Consumer)
_inventories = table_of(Inventory)
_providers = table_of(ResourceProvider)


CONSUMER_RACE = "another request changed the consumer's allocations; read them and try again"


@dataclasses.dataclass(frozen=True)
class KnownConsumer:
    """A consumer's row, and how much it holds by provider and class."""

    id: int
    uuid: str
    project_id: str
    user_id: str
    consumer_type: str | None
    generation: int
    held: dict[Key, int]


class Holding(NamedTuple):
    """How much a consumer shall hold of a class from a provider. ``consumer_id`` is None for a new consumer."""

    consumer_uuid: str
    consumer_id: int | None
    provider_id: int
    class_id: int
    used: int


@dataclasses.dataclass
class Stock:
    """An inventory. ``used`` moves along as claims are admitted; the row follows when they are written."""

    total: int
    reserved: int
    min_unit: int
    max_unit: int
    step_size: int
    allocation_ratio: float
    used: int
    ceiling: int | None

    @property
    def capacity(self) -> int:
        """How many units can be allocated, whatever a capacity rule says."""
        return capacity(self.total, self.reserved, self.allocation_ratio)

    def allows_unit(self, amount: int) -> bool:
        """Tell whether one consumer may hold just this amount."""
        return self.min_unit <= amount <= self.max_unit and amount % self.step_size == 0


def capacity(total: int, reserved: int, allocation_ratio: float) -> int:
    """Return how many units of an inventory can be allocated: Placement's ``int((total - reserved) * ratio)``."""
    return int((total - reserved) * allocation_ratio)


# Statements are made once: making one costs more than running it. "some" and "others" are lists of ids or uuids.
_SOME: BindParameter[Any] = bindparam("some", expanding=True)
_OTHERS: BindParameter[Any] = bindparam("others", expanding=True)

_KNOWN = (
    select(
        _consumers.c.uuid,
        _consumers.c.id,
        _consumers.c.project_id,
        _consumers.c.user_id,
        _consumers.c.consumer_type,
        _consumers.c.generation,
        _allocations.c.provider_id,
        _allocations.c.class_id,
        _allocations.c.used,
    )
    .outerjoin(_allocations, _allocations.c.consumer_id == _consumers.c.id)
    .where(_consumers.c.uuid.in_(_SOME))
)


def known(session: Session, uuids: Collection[str]) -> dict[str, KnownConsumer]:
    """Return those consumers that exist, by uuid."""
    found: dict[str, KnownConsumer] = {}
    connection = session.connection()
    for some in _chunks(uuids):
        for row in connection.execute(_KNOWN, {"some": some}):
            uuid, id_, project_id, user_id, consumer_type, generation, provider_id, class_id, used = row
            consumer = found.get(uuid)
            if consumer is None:
                consumer = KnownConsumer(id_, uuid, project_id, user_id, consumer_type, generation, {})
                found[uuid] = consumer
            if provider_id is not None:
                consumer.held[provider_id, class_id] = used
    return found


_NAMED = (
    select(_providers.c.uuid, _providers.c.id)
    .where(or_(_providers.c.uuid.in_(_SOME), _providers.c.id.in_(_OTHERS)))
    .order_by(_providers.c.id)
)
_LOCKED = select(_providers.c.id).where(_providers.c.id.in_(_SOME)).order_by(_providers.c.id).with_for_update()


def lock(session: Session, uuids: Collection[str], ids: Collection[int] = ()) -> dict[str, int]:
    """Keep every other writer of some providers waiting until the transaction ends.

    Locks are taken in order of ids, as far as one statement holds them all; a deadlock beyond that is repeated.

    :param uuids: of providers that may exist
    :param ids: of further ones
    :returns: ids by uuid of all that exist
    """
    connection = session.connection()
    # MariaDB locks rows as it finds them, by uuid, before it sorts.
    in_order = connection.dialect.name not in ("mysql", "mariadb")
    query = _NAMED.with_for_update() if in_order else _NAMED
    found: dict[str, int] = {}
    for some, others in itertools.zip_longest(_chunks(sorted(uuids)), _chunks(sorted(ids))):
        found.update(connection.execute(query, {"some": some or [], "others": others or []}).all())
    if not in_order:
        for some in _chunks(sorted(found.values())):
            connection.execute(_LOCKED, {"some": some}).all()
    return found


_STOCKS = select(
    _inventories.c.provider_id,
    _inventories.c.class_id,
    *(_inventories.c[field.name] for field in dataclasses.fields(Stock)),
).where(_inventories.c.provider_id.in_(_SOME))


def stocks(session: Session, ids: Iterable[int]) -> dict[Key, Stock]:
    """Return the inventories of providers that are locked."""
    connection = session.connection()
    return {
        (row[0], row[1]): Stock(*row[2:])
        for some in _chunks(sorted(ids))
        for row in connection.execute(_STOCKS, {"some": some})
    }


def change_consumer(session: Session, consumer: KnownConsumer, values: Mapping[str, Any]) -> None:
    """Write to a consumer's row, if it is still as it was read; what it holds is the caller's to change from here on.

    :raises accelsched.errors.LostRaceError: it is not
    """
    statement = (
        update(_consumers)
        .where(_consumers.c.id == consumer.id, _consumers.c.generation == consumer.generation)
        .values(values)
    )
    if session.connection().execute(statement).rowcount != 1:
        raise errors.LostRaceError(CONSUMER_RACE)


_REMOVE_ALLOCATIONS = delete(_allocations).where(_allocations.c.consumer_id.in_(_SOME))
_REMOVE_CONSUMERS = delete(_consumers).where(_consumers.c.id.in_(_SOME))


def remove_allocations(session: Session, consumer_ids: Iterable[int]) -> None:
    """Delete everything that consumers hold."""
    for some in _chunks(consumer_ids):
        session.connection().execute(_REMOVE_ALLOCATIONS, {"some": some})


def remove_consumers(session: Session, consumer_ids: Iterable[int]) -> None:
    """Delete consumers that hold nothing."""
    for some in _chunks(consumer_ids):
        session.connection().execute(_REMOVE_CONSUMERS, {"some": some})


def write(
    session: Session,
    *,
    consumers: Sequence[Mapping[str, Any]],
    holdings: Sequence[Holding],
    growth: Mapping[Key, int],
    advances: Mapping[int, int],
    now: datetime.datetime,
) -> None:
    """Write what claims add to the tables.

    :param consumers: rows of new consumers, but for their moments
    :param holdings: what consumers hold from now on; what those that are known held was removed before
    :param growth: by how much what is used of inventories moves, either way
    :param advances: how many times the generations of providers grow
    :raises accelsched.errors.LostRaceError: another transaction inserted one of the consumers
    """
    connection = session.connection()
    moved = sorted((*key, amount) for key, amount in growth.items() if amount)
    times = sorted(advances.items())
    together = connection.dialect.name == "postgresql"
    try:
        (_write_at_once if together else _write_each)(connection, consumers, holdings, moved, times, now)
    except db_exception.DBDuplicateEntry as exc:
        raise errors.LostRaceError(CONSUMER_RACE) from exc


_Moved = Sequence[tuple[int, int, int]]
_Times = Sequence[tuple[int, int]]

_ADD_CONSUMERS = insert(_consumers).returning(_consumers.c.uuid, _consumers.c.id)
_ADD_ALLOCATIONS = insert(_allocations)
_MOVE = (
    update(_inventories)
    .where(_inventories.c.provider_id == bindparam("p"), _inventories.c.class_id == bindparam("c"))
    .values(used=_inventories.c.used + bindparam("amount"))
)
_ADVANCE = (
    update(_providers).where(_providers.c.id.in_(_SOME)).values(generation=_providers.c.generation + bindparam("times"))
)


def _write_each(
    connection: Connection,
    consumers: Sequence[Mapping[str, Any]],
    holdings: Sequence[Holding],
    moved: _Moved,
    times: _Times,
    now: datetime.datetime,
) -> None:
    moments = {"created_at": now, "updated_at": now}
    ids: dict[str, int] = {}
    if consumers:
        ids = dict(connection.execute(_ADD_CONSUMERS, [{**row, **moments} for row in consumers]).all())
    rows = [
        {
            "consumer_id": ids[it.consumer_uuid] if it.consumer_id is None else it.consumer_id,
            "provider_id": it.provider_id,
            "class_id": it.class_id,
            "used": it.used,
            "updated_at": now,
        }
        for it in holdings
    ]
    if rows:
        connection.execute(_ADD_ALLOCATIONS, rows)
    if moved:
        connection.execute(_MOVE, [{"p": p, "c": c, "amount": amount} for p, c, amount in moved])
    alike: dict[int, list[int]] = defaultdict(list)
    for provider_id, count in times:
        alike[count].append(provider_id)
    for count, ids_ in alike.items():
        for some in _chunks(ids_):
            connection.execute(_ADVANCE, {"some": some, "times": count})


# One round trip where _write_each has four and more; foreign keys are checked at its end.
_WRITE = text("""
WITH added AS (
    INSERT INTO consumers (uuid, project_id, user_id, consumer_type, generation, created_at, updated_at)
    SELECT uuid, project_id, user_id, consumer_type, generation, :now, :now
    FROM unnest(
        CAST(:uuid AS text[]), CAST(:project_id AS text[]), CAST(:user_id AS text[]), CAST(:consumer_type AS text[]),
        CAST(:generation AS integer[])
    ) AS new (uuid, project_id, user_id, consumer_type, generation)
    RETURNING id, uuid
), holding AS (
    INSERT INTO allocations (consumer_id, provider_id, class_id, used, updated_at)
    SELECT coalesce(held.consumer_id, added.id), held.provider_id, held.class_id, held.used, :now
    FROM unnest(
        CAST(:holder AS text[]), CAST(:holder_id AS bigint[]), CAST(:held_from AS bigint[]), CAST(:held_of AS bigint[]),
        CAST(:held AS bigint[])
    ) AS held (uuid, consumer_id, provider_id, class_id, used)
    LEFT JOIN added ON added.uuid = held.uuid
), moving AS (
    UPDATE inventories SET used = inventories.used + moved.amount
    FROM unnest(CAST(:moved_at AS bigint[]), CAST(:moved_of AS bigint[]), CAST(:moved AS bigint[]))
        AS moved (provider_id, class_id, amount)
    WHERE inventories.provider_id = moved.provider_id AND inventories.class_id = moved.class_id
)
UPDATE resource_providers SET generation = resource_providers.generation + advanced.times
FROM unnest(CAST(:advanced AS bigint[]), CAST(:times AS integer[])) AS advanced (id, times)
WHERE resource_providers.id = advanced.id
""")
_CONSUMER_COLUMNS = ("uuid", "project_id", "user_id", "consumer_type", "generation")


def _write_at_once(
    connection: Connection,
    consumers: Sequence[Mapping[str, Any]],
    holdings: Sequence[Holding],
    moved: _Moved,
    times: _Times,
    now: datetime.datetime,
) -> None:
    columns: dict[str, Any] = {name: [row[name] for row in consumers] for name in _CONSUMER_COLUMNS}
    columns |= _columns(("holder", "holder_id", "held_from", "held_of", "held"), holdings)
    columns |= _columns(("moved_at", "moved_of", "moved"), moved)
    columns |= _columns(("advanced", "times"), times)
    connection.execute(_WRITE, {**columns, "now": now})


def _columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, _MOST_IN_ONE_STATEMENT)):
        yield chunk
