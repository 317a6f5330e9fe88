# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The rows that changes of providers lock, read and write, each kind in one statement for all changes of a transaction.

Only :mod:`accelsched.placement.provider_changes` and the changes themselves decide what is written. As with claims,
everything here works on plain tables, and on PostgreSQL all that is written goes into one statement.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from oslo_db import exception as db_exception
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Connection,
    DateTime,
    Select,
    bindparam,
    cast,
    delete,
    insert,
    literal_column,
    null,
    or_,
    select,
    text,
    union,
    union_all,
    update,
)

from accelsched import errors
from accelsched.db.base import table_of
from accelsched.db.placement import CapacityRule, Inventory, ProviderTrait, ResourceProvider, Trait

# SQLite's bound of one statement's parameters, 32,766, is the lowest; only traits can be that many.
_MOST_NAMES = 10_000
_RACE = "another request changed the resource provider's tree, its name or its traits; try again"

_inventories = table_of(Inventory)
_provider_traits = table_of(ProviderTrait)
_providers = table_of(ResourceProvider)
_rules = table_of(CapacityRule)
_traits = table_of(Trait)
_root = _providers.alias("root")


@dataclasses.dataclass(frozen=True)
class LockedProvider:
    """What a writer of a resource provider has to know of it."""

    id: int
    uuid: str
    generation: int
    updated_at: datetime.datetime


@dataclasses.dataclass(frozen=True)
class Provider(LockedProvider):
    """A resource provider and its place in its tree."""

    name: str
    root_id: int
    root_uuid: str
    parent_uuid: str | None


class Known(NamedTuple):
    """A provider that a new one would be the child of, or the namesake."""

    id: int
    uuid: str
    name: str
    root_id: int
    root_uuid: str


@dataclasses.dataclass
class Needs:
    """What changes have to know before they can be decided."""

    providers: set[str] = dataclasses.field(default_factory=set)  # uuids, to be locked
    parents: set[str] = dataclasses.field(default_factory=set)  # uuids, whose trees are to keep their shape
    new: dict[str, str] = dataclasses.field(default_factory=dict)  # names of providers to be, by uuid
    stocked: set[str] = dataclasses.field(default_factory=set)  # uuids, whose inventories matter
    classes: set[str] = dataclasses.field(default_factory=set)
    marked: set[str] = dataclasses.field(default_factory=set)  # uuids, whose traits matter
    traits: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass
class State:
    """What there is, as far as :class:`Needs` asked: it stays so until the transaction ends."""

    providers: dict[str, LockedProvider] = dataclasses.field(default_factory=dict)
    known: dict[str, Known] = dataclasses.field(default_factory=dict)  # by uuid
    taken: set[str] = dataclasses.field(default_factory=set)  # names
    used: dict[int, dict[int, int]] = dataclasses.field(default_factory=lambda: defaultdict(dict))
    ruled: set[int] = dataclasses.field(default_factory=set)  # have a capacity rule
    classes: dict[str, int] = dataclasses.field(default_factory=dict)
    traits: dict[str, tuple[int, datetime.datetime]] = dataclasses.field(default_factory=dict)
    had: dict[int, set[int]] = dataclasses.field(default_factory=lambda: defaultdict(set))


class NewProvider(NamedTuple):
    """A provider to be. Without a parent it is its own root."""

    uuid: str
    name: str
    parent_id: int | None
    root_id: int | None


class NewInventory(NamedTuple):
    """All that an inventory says, of a class that a provider has or is to have."""

    provider_id: int
    class_id: int
    total: int
    reserved: int
    min_unit: int
    max_unit: int
    step_size: int
    allocation_ratio: float


Pair = tuple[int, int]
"""Ids of a provider, and of a class or a trait."""


@dataclasses.dataclass
class Draft:
    """What decided changes come to. No provider is in two of them."""

    now: datetime.datetime
    created: list[NewProvider] = dataclasses.field(default_factory=list)
    advanced: list[int] = dataclasses.field(default_factory=list)  # whose generations grow by one
    stocked: list[NewInventory] = dataclasses.field(default_factory=list)
    restocked: list[NewInventory] = dataclasses.field(default_factory=list)  # those that are there already
    sold: list[Pair] = dataclasses.field(default_factory=list)
    marked: list[Pair] = dataclasses.field(default_factory=list)
    unmarked: list[Pair] = dataclasses.field(default_factory=list)


def _some(name: str) -> BindParameter[Any]:
    return bindparam(name, expanding=True)


_STATE = select(_providers.c.id, _providers.c.uuid, _providers.c.generation, _providers.c.updated_at)
_TO_LOCK = union(
    select(_providers.c.id).where(_providers.c.uuid.in_(_some("uuids"))),
    # Whoever changes the shape of a tree locks its root.
    select(_providers.c.root_id).where(_providers.c.uuid.in_(_some("parents"))),
)
_LOCK = _STATE.where(_providers.c.id.in_(_some("ids"))).order_by(_providers.c.id).with_for_update()
_LOCK_AT_ONCE = text("""
SELECT id, uuid, generation, updated_at FROM resource_providers
WHERE id = ANY(ARRAY(
    SELECT id FROM resource_providers WHERE uuid = ANY(CAST(:uuids AS text[]))
    UNION SELECT root_id FROM resource_providers WHERE uuid = ANY(CAST(:parents AS text[]))
))
ORDER BY id FOR UPDATE
""")


def read(connection: Connection, needs: Needs) -> State:
    """Lock providers in the order of their ids, then read what there is.

    :raises accelsched.errors.LostRaceError: a parent moved to another tree while this waited for its root
    """
    state = State()
    locked: set[int] = set()
    if needs.providers or needs.parents:
        for row in _lock(connection, needs):
            provider = LockedProvider(*row)
            locked.add(provider.id)
            state.providers[provider.uuid] = provider
    ids = {uuid: provider.id for uuid, provider in state.providers.items()}
    given = {
        "known": [*needs.new, *needs.parents],
        "names": list(needs.new.values()),
        "stocked": [ids[uuid] for uuid in needs.stocked if uuid in ids],
        "marked": [ids[uuid] for uuid in needs.marked if uuid in ids],
    }
    traits = sorted(needs.traits)
    parts = frozenset(
        part
        for part, wanted in ((_KNOWN, given["known"]), (_STOCK, given["stocked"]), (_MARKS, given["marked"]))
        if wanted
    )
    if parts or traits:
        first = parts | ({_TRAIT} if traits else set())
        _take(state, connection.execute(_reading(first), given | {"traits": traits[:_MOST_NAMES]}))
    for start in range(_MOST_NAMES, len(traits), _MOST_NAMES):
        some = traits[start : start + _MOST_NAMES]
        _take(state, connection.execute(_reading(frozenset({_TRAIT})), {"traits": some}))
    if needs.new:
        # MariaDB compares without the spaces at an end.
        padded = connection.dialect.name in ("mysql", "mariadb")
        names = {known.name.rstrip(" ") if padded else known.name for known in state.known.values()}
        state.taken = {it for it in needs.new.values() if (it.rstrip(" ") if padded else it) in names}
    if any(uuid in state.known and state.known[uuid].root_id not in locked for uuid in needs.parents):
        raise errors.LostRaceError(_RACE)
    return state


def _lock(connection: Connection, needs: Needs) -> Iterable[Any]:
    # The parents too: a new child refers to them, which waits for their locks when it is written.
    given: dict[str, Any] = {"uuids": sorted(needs.providers | needs.parents), "parents": sorted(needs.parents)}
    if connection.dialect.name == "postgresql":
        return connection.execute(_LOCK_AT_ONCE, given)
    # MariaDB locks rows as it finds them, by uuid, before it sorts.
    ids = [id_ for id_ in connection.execute(_TO_LOCK, given).scalars() if id_ is not None]
    return connection.execute(_LOCK, {"ids": ids}) if ids else ()


# What is read is one statement too: rows of a kind, three numbers, three texts and a moment.
_KNOWN: Final = 0
_STOCK: Final = 1
_RULED: Final = 2
_TRAIT: Final = 3
_MARKS: Final = 4


@functools.cache
def _reading(parts: frozenset[int]) -> Select[Any] | CompoundSelect[Any]:
    zero: ColumnElement[Any] = literal_column("0")
    empty: ColumnElement[Any] = literal_column("''")
    never = cast(null(), DateTime())

    def row(kind: int, *columns: Any) -> Select[Any]:
        return select(literal_column(str(kind)), *columns)

    of_kind: Mapping[int, Sequence[Select[Any]]] = {
        _KNOWN: [
            row(
                _KNOWN,
                _providers.c.id,
                _root.c.id,
                zero,
                _providers.c.uuid,
                _providers.c.name,
                _root.c.uuid,
                never,
            )
            .select_from(_providers)
            .join(_root, _providers.c.root_id == _root.c.id)
            .where(or_(_providers.c.uuid.in_(_some("known")), _providers.c.name.in_(_some("names"))))
        ],
        _STOCK: [
            row(
                _STOCK,
                _inventories.c.provider_id,
                _inventories.c.class_id,
                _inventories.c.used,
                empty,
                empty,
                empty,
                never,
            ).where(_inventories.c.provider_id.in_(_some("stocked"))),
            row(_RULED, _rules.c.provider_id, zero, zero, empty, empty, empty, never).where(
                _rules.c.provider_id.in_(_some("stocked"))
            ),
        ],
        _TRAIT: [
            row(_TRAIT, _traits.c.id, zero, zero, _traits.c.name, empty, empty, _traits.c.updated_at).where(
                _traits.c.name.in_(_some("traits"))
            )
        ],
        _MARKS: [
            row(
                _MARKS,
                _provider_traits.c.provider_id,
                _provider_traits.c.trait_id,
                zero,
                empty,
                empty,
                empty,
                never,
            ).where(_provider_traits.c.provider_id.in_(_some("marked")))
        ],
    }
    return union_all(*itertools.chain.from_iterable(of_kind[part] for part in sorted(parts)))


def _take(state: State, rows: Iterable[Any]) -> None:
    for kind, first, second, third, uuid, name, root_uuid, moment in rows:
        if kind == _KNOWN:
            state.known[uuid] = Known(first, uuid, name, second, root_uuid)
        elif kind == _STOCK:
            state.used[first][second] = third
        elif kind == _RULED:
            state.ruled.add(first)
        elif kind == _TRAIT:
            state.traits[uuid] = (first, moment)
        else:
            state.had[first].add(second)


def write(connection: Connection, draft: Draft) -> dict[str, int]:
    """Write what was decided.

    :returns: ids of the new providers, by uuid
    :raises accelsched.errors.LostRaceError: another transaction took a name, or removed what this refers to
    """
    try:
        if connection.dialect.name == "postgresql":
            return _write_at_once(connection, draft)
        return _write_each(connection, draft)
    except (db_exception.DBDuplicateEntry, db_exception.DBReferenceError) as exc:
        raise errors.LostRaceError(_RACE) from exc


_CREATE = insert(_providers).returning(_providers.c.uuid, _providers.c.id)
_ROOT_OF_ITSELF = update(_providers).where(_providers.c.id.in_(_some("ids"))).values(root_id=_providers.c.id)
_ADVANCE = (
    update(_providers)
    .where(_providers.c.id.in_(_some("ids")))
    .values(generation=_providers.c.generation + 1, updated_at=bindparam("now"))
)
_SELL = delete(_inventories).where(
    _inventories.c.provider_id == bindparam("first"), _inventories.c.class_id == bindparam("second")
)
_RESTOCK = (
    update(_inventories)
    .where(_inventories.c.provider_id == bindparam("of_provider"), _inventories.c.class_id == bindparam("of_class"))
    .values(
        {name: bindparam(f"new_{name}") for name in NewInventory._fields[2:]} | {"updated_at": bindparam("now")},
    )
)
_UNMARK = delete(_provider_traits).where(
    _provider_traits.c.provider_id == bindparam("first"), _provider_traits.c.trait_id == bindparam("second")
)


def _write_each(connection: Connection, draft: Draft) -> dict[str, int]:
    ids: dict[str, int] = {}
    if draft.created:
        made = {"generation": 0, "created_at": draft.now, "updated_at": draft.now}
        ids = dict(connection.execute(_CREATE, [new._asdict() | made for new in draft.created]).all())
        if roots := [ids[new.uuid] for new in draft.created if new.parent_id is None]:
            connection.execute(_ROOT_OF_ITSELF, {"ids": roots})
    if draft.advanced:
        connection.execute(_ADVANCE, {"ids": draft.advanced, "now": draft.now})
    if draft.sold:
        connection.execute(_SELL, _pairs(draft.sold))
    if draft.restocked:
        rows = [
            {f"new_{name}": value for name, value in it._asdict().items()}
            | {"of_provider": it.provider_id, "of_class": it.class_id, "now": draft.now}
            for it in draft.restocked
        ]
        connection.execute(_RESTOCK, rows)
    if draft.stocked:
        fresh = {"used": 0, "updated_at": draft.now}
        connection.execute(insert(_inventories), [it._asdict() | fresh for it in draft.stocked])
    if draft.unmarked:
        connection.execute(_UNMARK, _pairs(draft.unmarked))
    if draft.marked:
        marks = [{"provider_id": provider_id, "trait_id": trait_id} for provider_id, trait_id in draft.marked]
        connection.execute(insert(_provider_traits), marks)
    return ids


def _pairs(pairs: Iterable[Pair]) -> list[dict[str, int]]:
    return [{"first": first, "second": second} for first, second in pairs]


# One round trip where _write_each has one a kind of row; only the kinds that there are, for PostgreSQL plans each anew.
# Foreign keys are checked at its end.
_KINDS: Mapping[str, str] = {
    "created": """
    INSERT INTO resource_providers (id, uuid, name, generation, parent_id, root_id, created_at, updated_at)
    SELECT new.id, new.uuid, new.name, 0, new.parent_id, coalesce(new.root_id, new.id), :now, :now
    FROM (
        SELECT nextval(pg_get_serial_sequence('resource_providers', 'id')) AS id, given.*
        FROM unnest(
            CAST(:created_uuid AS text[]), CAST(:created_name AS text[]), CAST(:created_parent_id AS bigint[]),
            CAST(:created_root_id AS bigint[])
        ) AS given (uuid, name, parent_id, root_id)
    ) AS new
    RETURNING uuid, id""",
    "advanced": """
    UPDATE resource_providers SET generation = generation + 1, updated_at = :now
    WHERE id = ANY(CAST(:advanced_ids AS bigint[]))""",
    "sold": """
    DELETE FROM inventories
    USING unnest(CAST(:sold_first AS bigint[]), CAST(:sold_second AS bigint[])) AS pair (first, second)
    WHERE inventories.provider_id = pair.first AND inventories.class_id = pair.second""",
    "restocked": """
    UPDATE inventories SET (total, reserved, min_unit, max_unit, step_size, allocation_ratio, updated_at) =
        (new.total, new.reserved, new.min_unit, new.max_unit, new.step_size, new.allocation_ratio, :now)
    FROM unnest(
        CAST(:restocked_provider_id AS bigint[]), CAST(:restocked_class_id AS bigint[]),
        CAST(:restocked_total AS bigint[]), CAST(:restocked_reserved AS bigint[]),
        CAST(:restocked_min_unit AS bigint[]), CAST(:restocked_max_unit AS bigint[]),
        CAST(:restocked_step_size AS bigint[]), CAST(:restocked_allocation_ratio AS double precision[])
    ) AS new (provider_id, class_id, total, reserved, min_unit, max_unit, step_size, allocation_ratio)
    WHERE inventories.provider_id = new.provider_id AND inventories.class_id = new.class_id""",
    "stocked": """
    INSERT INTO inventories (
        provider_id, class_id, total, reserved, min_unit, max_unit, step_size, allocation_ratio, used, updated_at
    )
    SELECT new.*, 0, :now FROM unnest(
        CAST(:stocked_provider_id AS bigint[]), CAST(:stocked_class_id AS bigint[]),
        CAST(:stocked_total AS bigint[]), CAST(:stocked_reserved AS bigint[]),
        CAST(:stocked_min_unit AS bigint[]), CAST(:stocked_max_unit AS bigint[]),
        CAST(:stocked_step_size AS bigint[]), CAST(:stocked_allocation_ratio AS double precision[])
    ) AS new""",
    "unmarked": """
    DELETE FROM provider_traits
    USING unnest(CAST(:unmarked_first AS bigint[]), CAST(:unmarked_second AS bigint[])) AS pair (first, second)
    WHERE provider_traits.provider_id = pair.first AND provider_traits.trait_id = pair.second""",
    "marked": """
    INSERT INTO provider_traits (provider_id, trait_id)
    SELECT pair.* FROM unnest(CAST(:marked_first AS bigint[]), CAST(:marked_second AS bigint[])) AS pair""",
}
_COLUMNS: Mapping[str, Sequence[str]] = {
    "created": NewProvider._fields,
    "stocked": NewInventory._fields,
    "restocked": NewInventory._fields,
    "sold": ("first", "second"),
    "marked": ("first", "second"),
    "unmarked": ("first", "second"),
}


@functools.cache
def _writing(kinds: tuple[str, ...]) -> Any:
    parts = ", ".join(f"{kind} AS ({_KINDS[kind]}\n)" for kind in kinds)
    made = "uuid, id FROM created" if "created" in kinds else "NULL WHERE false"
    return text(f"WITH {parts} SELECT {made}")


def _write_at_once(connection: Connection, draft: Draft) -> dict[str, int]:
    kinds = tuple(kind for kind in _KINDS if getattr(draft, kind))
    if not kinds:
        return {}
    given: dict[str, Any] = {"now": draft.now, "advanced_ids": draft.advanced}
    for kind in kinds:
        for place, name in enumerate(_COLUMNS.get(kind, ())):
            given[f"{kind}_{name}"] = [row[place] for row in getattr(draft, kind)]
    return dict(connection.execute(_writing(kinds), given).all())
