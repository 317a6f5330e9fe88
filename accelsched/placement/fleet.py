# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A process's picture of the fleet, brought up to date from the change feed before each use.

So a read sees every write that was acknowledged before it began, on whichever process either ran, and what it costs
grows with what changed since the last read, not with the fleet.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from sqlalchemy import ARRAY, BigInteger, Select, any_, bindparam, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from accelsched.db import feed
from accelsched.db.engine import Database
from accelsched.db.placement import (
    Aggregate,
    CapacityRule,
    InstancePosition,
    Inventory,
    NumaPlacement,
    NumaTopology,
    ProviderAggregate,
    ProviderTrait,
    ResourceClass,
    ResourceProvider,
    Trait,
)
from accelsched.placement import partitioning
from accelsched.placement.columns import NO_CEILING
from accelsched.placement.numa import topology
from accelsched.placement.numa.topology import HostNuma
from accelsched.placement.partitioning import Partition, Position
from accelsched.placement.picture import NONE, Floats, Ints, InventoryTable, Picture, ProviderTable

_MOST_IN_ONE_STATEMENT = 5000
# As many rows are rows at one time; the others are arrays already, or still in the database.
_CHUNK = 20_000

_Column = npt.NDArray[Any]


class Fleet:
    """The picture and the number of the newest change in it."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._picture = Picture()
        self._seq: int | None = None
        self._as_of = 0.0

    @property
    def position(self) -> int:
        """The number of the newest change in the picture; within a block of :meth:`reading` only."""
        if self._seq is None:
            raise AssertionError("nothing was read yet")
        return self._seq

    def warm_up(self) -> None:
        """Read the fleet now, so that no request waits for it, and have the garbage collector leave it alone."""
        with self.reading():
            pass
        gc.freeze()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Picture]:
        """Give the picture, up to date, to this thread alone until the block ends. Keep the block short."""
        began = time.monotonic()
        with self._lock:
            # Those who waited together need one look at the feed: it has only to be later than their own beginning.
            if self._as_of <= began:
                self._as_of = time.monotonic()
                try:
                    self._catch_up()
                except BaseException:
                    self._as_of = 0.0
                    raise
            yield self._picture

    def _catch_up(self) -> None:
        if self._seq is not None:
            with self._db.reading() as session:
                if feed.head(session) == self._seq:
                    return
        with self._db.snapshot() as session:
            changed = None if self._seq is None else feed.changed_since(session, self._seq)
            if changed is None:
                newest, picture = feed.head(session), Picture()
                with _no_collection():
                    picture.apply((), read_providers(session, None))
                self._picture, self._seq = picture, newest
                return
            newest, ids = changed
            # Nothing of the picture changes before everything was read: a lost connection leaves it as it was.
            table = read_providers(session, ids)
            self._picture.apply(ids, table)
            self._seq = newest


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from looking through millions of new rows again and again: no row is in a cycle."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Statement:
    """Reads of all providers, or of some. Made once: that costs more than to read a few rows.

    :ivar every: reads of all
    """

    def __init__(self, key: InstrumentedAttribute[int], query: Select[*tuple[Any, ...]]) -> None:
        self.every = query.execution_options(yield_per=_CHUNK)
        self._in = self.every.where(key.in_(bindparam("ids", expanding=True)))
        # One text for any number of them, which PostgreSQL prepares.
        self._any = self.every.where(key == any_(bindparam("ids", type_=ARRAY(BigInteger))))

    def some(self, session: Session) -> Select[*tuple[Any, ...]]:
        """Return what reads of those whose ids are the parameter ``ids``."""
        return self._any if session.get_bind().dialect.name == "postgresql" else self._in


_PROVIDERS = _Statement(
    ResourceProvider.id,
    select(
        ResourceProvider.id,
        ResourceProvider.uuid,
        ResourceProvider.name,
        ResourceProvider.generation,
        ResourceProvider.root_id,
        func.coalesce(ResourceProvider.parent_id, NONE),
        ResourceProvider.updated_at,
        NumaTopology.topology,
    ).outerjoin(NumaTopology, NumaTopology.provider_id == ResourceProvider.id),
)
_TRAITS = _Statement(
    ProviderTrait.provider_id,
    select(ProviderTrait.provider_id, Trait.name).join(Trait, Trait.id == ProviderTrait.trait_id),
)
_AGGREGATES = _Statement(
    ProviderAggregate.provider_id,
    select(ProviderAggregate.provider_id, Aggregate.uuid).join(
        Aggregate, Aggregate.id == ProviderAggregate.aggregate_id
    ),
)
_INVENTORIES = _Statement(
    Inventory.provider_id,
    select(
        ResourceClass.name,
        Inventory.provider_id,
        Inventory.total,
        Inventory.reserved,
        Inventory.min_unit,
        Inventory.max_unit,
        Inventory.step_size,
        Inventory.used,
        func.coalesce(Inventory.ceiling, NO_CEILING),
        Inventory.allocation_ratio,
    ).join(ResourceClass, ResourceClass.id == Inventory.class_id),
)
_POSITIONS = _Statement(
    InstancePosition.provider_id,
    select(InstancePosition.provider_id, ResourceClass.name, InstancePosition.start).join(
        ResourceClass, ResourceClass.id == InstancePosition.class_id
    ),
)
_RULES = _Statement(CapacityRule.provider_id, select(CapacityRule.provider_id, CapacityRule.rule))
_PLACEMENTS = _Statement(NumaPlacement.provider_id, select(NumaPlacement.provider_id, NumaPlacement.placement))


def read_providers(session: Session, ids: Sequence[int] | None) -> ProviderTable:
    """Read providers with all that hangs on them.

    :param session: a snapshot, or the parts may not fit together
    :param ids: which; all when None
    """
    id_, uuid, name, generation, root_id, parent_id, updated_us, told = _columns(
        session, _PROVIDERS, (_ints, _objects, _objects, _ints, _ints, _ints, _microseconds, _objects), ids
    )
    inventories = _inventories(session, ids)
    return ProviderTable(
        id=id_,
        uuid=uuid.tolist(),
        name=name.tolist(),
        generation=generation,
        root_id=root_id,
        parent_id=parent_id,
        updated_us=updated_us,
        traits=_having(session, _TRAITS, ids),
        aggregates=_having(session, _AGGREGATES, ids),
        inventories=inventories,
        partitions=_partitions(session, inventories, ids),
        numa=_numa(
            session, {one: nodes for one, nodes in zip(id_.tolist(), told, strict=True) if nodes is not None}, ids
        ),
    )


def _columns(
    session: Session,
    statement: _Statement,
    makers: Sequence[Callable[[Sequence[Any]], _Column]],
    ids: Sequence[int] | None,
) -> list[_Column]:
    """Return the columns of a statement's rows, of all providers or of some.

    :param makers: of each column: what makes an array of some of its values
    """
    connection = session.connection()
    if ids is None:
        results = iter([connection.execute(statement.every)])
    else:
        query = statement.some(session)
        starts = range(0, len(ids), _MOST_IN_ONE_STATEMENT)
        results = (connection.execute(query, {"ids": ids[start : start + _MOST_IN_ONE_STATEMENT]}) for start in starts)
    parts = [[make(())] for make in makers]
    for rows in results:
        for chunk in rows.partitions():
            for part, make, values in zip(parts, makers, zip(*chunk, strict=True), strict=True):
                part.append(make(values))
    return [np.concatenate(part) for part in parts]


def _ints(values: Sequence[Any]) -> Ints:
    return np.array(values, dtype=np.int64)


def _floats(values: Sequence[Any]) -> Floats:
    return np.array(values, dtype=np.float64)


def _objects(values: Sequence[Any]) -> _Column:
    # Not np.array: values that are lists would become rows of it.
    return np.fromiter(values, dtype=object, count=len(values))


def _microseconds(values: Sequence[Any]) -> Ints:
    return np.array(values, dtype="datetime64[us]").astype(np.int64)


class _Names:
    """Makes numbers of names, so that those millions of which few differ are not kept."""

    def __init__(self) -> None:
        self._number_of: dict[str, int] = defaultdict(itertools.count().__next__)

    def __call__(self, values: Sequence[Any]) -> Ints:
        return np.fromiter(map(self._number_of.__getitem__, values), np.int64, len(values))

    def places(self, numbers: Ints) -> dict[str, Ints]:
        """Return where in a column of such numbers each name stands."""
        order = np.argsort(numbers, kind="stable")
        ends = np.cumsum(np.bincount(numbers, minlength=len(self._number_of)))
        return dict(zip(self._number_of, np.split(order, ends)[:-1], strict=True))


def _having(session: Session, statement: _Statement, ids: Sequence[int] | None) -> dict[str, Ints]:
    """Return which providers have each name."""
    names = _Names()
    provider_id, name = _columns(session, statement, (_ints, names), ids)
    return {text: provider_id[at] for text, at in names.places(name).items()}


def _inventories(session: Session, ids: Sequence[int] | None) -> dict[str, InventoryTable]:
    names = _Names()
    name, *columns = _columns(session, _INVENTORIES, (names, *[_ints] * 8, _floats), ids)
    return {text: InventoryTable(*(column[at] for column in columns)) for text, at in names.places(name).items()}


def _partitions(
    session: Session, inventories: Mapping[str, InventoryTable], ids: Sequence[int] | None
) -> dict[int, Partition]:
    """Return the rules of providers with ceilings; where there are none, nothing is asked."""
    if not any((table.ceiling != NO_CEILING).any() for table in inventories.values()):
        return {}
    positions: dict[int, set[Position]] = defaultdict(set)
    for provider_id, name, start in zip(
        *_columns(session, _POSITIONS, (_objects, _objects, _objects), ids), strict=True
    ):
        positions[provider_id].add(Position(name, start))
    ruled, documents = _columns(session, _RULES, (_objects, _objects), ids)
    return {
        provider_id: Partition(partitioning.parse(document), frozenset(positions.get(provider_id, ())))
        for provider_id, document in zip(ruled, documents, strict=True)
    }


def _numa(session: Session, told: Mapping[int, Any], ids: Sequence[int] | None) -> dict[int, HostNuma]:
    """Return the NUMA nodes of hosts and what is held of them; where nobody told any, nothing more is asked.

    :param told: topologies by provider
    """
    if not told:
        return {}
    held: dict[int, list[topology.Placement]] = defaultdict(list)
    columns = _columns(session, _PLACEMENTS, (_objects, _objects), ids)
    for provider_id, placement in zip(*columns, strict=True):
        held[provider_id].append(tuple(topology.PlacedNode.of(node) for node in placement))
    # Hosts of one kind tell the same: it is understood once.
    known: dict[bytes, tuple[topology.Node, ...]] = {}
    hosts: dict[int, HostNuma] = {}
    for provider_id, document in told.items():
        key = orjson.dumps(document)
        if key not in known:
            known[key] = topology.parse(document)
        hosts[provider_id] = topology.state(known[key], held.get(provider_id, ()))
    return hosts
