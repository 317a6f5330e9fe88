# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Put the fleet into a server's own tables: over HTTP ten thousand hosts take Placement twenty minutes."""

from __future__ import annotations

import contextlib
import datetime
import io
import itertools
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy

from harness import fleet

Copy = Callable[[str, Sequence[str], Iterable[Sequence[Any]]], None]

_AT_A_TIME = 50_000  # rows


def fill_ours(url: str, hosts: int) -> None:
    """Fill the tables of accelsched, which are there and hold no provider.

    :param hosts: number of vGPU hosts
    """
    now = _now()
    provider = ("id", "uuid", "name", "generation", "root_id", "parent_id", "created_at", "updated_at")
    amounts = ("total", "reserved", "min_unit", "max_unit", "step_size", "allocation_ratio")
    consumer = ("id", "uuid", "project_id", "user_id", "generation", "created_at", "updated_at")
    with _filling(url, ("resource_providers", "consumers")) as (copy, ids):
        classes, traits = ids("resource_classes"), ids("traits", fleet.CUSTOM_TRAITS, updated_at=now)
        for some in _some_hosts(hosts):
            copy(
                "resource_providers",
                provider,
                [(p.id, p.it.uuid, p.it.name, 1, p.root, p.parent, now, now) for p in some.providers],
            )
            copy(
                "inventories",
                ("provider_id", "class_id", *amounts, "used", "updated_at"),
                [
                    (p.id, classes[name], *_amounts(stock), stock.used, now)
                    for p in some.providers
                    for name, stock in p.it.inventories.items()
                ],
            )
            copy(
                "provider_traits",
                ("provider_id", "trait_id"),
                [(p.id, traits[name]) for p in some.providers for name in p.it.traits],
            )
            copy(
                "consumers",
                consumer,
                [(id_, it.uuid, fleet.PROJECT, fleet.USER, 1, now, now) for id_, it in some.consumers],
            )
            copy(
                "allocations",
                ("consumer_id", "provider_id", "class_id", "used", "updated_at"),
                [
                    (id_, some.ids[uuid], classes[name], amount, now)
                    for id_, it in some.consumers
                    for uuid, held in it.allocations.items()
                    for name, amount in held.items()
                ],
            )


def fill_placement(url: str, hosts: int) -> None:
    """Fill the tables of openstack-placement 16, which are there and hold no provider.

    :param hosts: number of vGPU hosts
    """
    now = _now()
    provider = ("id", "uuid", "name", "generation", "root_provider_id", "parent_provider_id", "created_at")
    amounts = ("total", "reserved", "min_unit", "max_unit", "step_size", "allocation_ratio")
    with _filling(url, ("resource_providers", "consumers")) as (copy, ids):
        classes, traits = ids("resource_classes"), ids("traits", fleet.CUSTOM_TRAITS, created_at=now)
        copy("projects", ("external_id", "created_at"), [(fleet.PROJECT, now)])
        copy("users", ("external_id", "created_at"), [(fleet.USER, now)])
        project = ids("projects", name="external_id")[fleet.PROJECT]
        user = ids("users", name="external_id")[fleet.USER]
        for some in _some_hosts(hosts):
            copy(
                "resource_providers",
                provider,
                [(p.id, p.it.uuid, p.it.name, 1, p.root, p.parent, now) for p in some.providers],
            )
            copy(
                "inventories",
                ("resource_provider_id", "resource_class_id", *amounts, "created_at"),
                [
                    (p.id, classes[name], *_amounts(stock), now)
                    for p in some.providers
                    for name, stock in p.it.inventories.items()
                ],
            )
            copy(
                "resource_provider_traits",
                ("resource_provider_id", "trait_id", "created_at"),
                [(p.id, traits[name], now) for p in some.providers for name in p.it.traits],
            )
            copy(
                "consumers",
                ("id", "uuid", "project_id", "user_id", "generation", "created_at"),
                [(id_, it.uuid, project, user, 1, now) for id_, it in some.consumers],
            )
            copy(
                "allocations",
                ("consumer_id", "resource_provider_id", "resource_class_id", "used", "created_at"),
                [
                    (it.uuid, some.ids[uuid], classes[name], amount, now)
                    for _, it in some.consumers
                    for uuid, held in it.allocations.items()
                    for name, amount in held.items()
                ],
            )


class _Numbered:
    """A provider and the ids of its row, its root's and its parent's."""

    __slots__ = ("id", "it", "parent", "root")

    def __init__(self, id_: int, it: fleet.Provider, root: int, parent: int | None) -> None:
        self.id, self.it, self.root, self.parent = id_, it, root, parent


class _Some:
    """Some hosts with the ids of their rows."""

    def __init__(self) -> None:
        self.providers: list[_Numbered] = []
        self.consumers: list[tuple[int, fleet.Consumer]] = []
        self.ids: dict[str, int] = {}


def _some_hosts(hosts: int) -> Iterator[_Some]:
    provider_ids, consumer_ids = itertools.count(1), itertools.count(1)
    remaining = fleet.generate(hosts)
    while batch := list(itertools.islice(remaining, 5000)):
        some = _Some()
        for host in batch:
            root = next(provider_ids)
            some.providers.append(_Numbered(root, host.root, root, None))
            some.providers += [_Numbered(next(provider_ids), device, root, root) for device in host.devices]
            some.consumers += [(next(consumer_ids), consumer) for consumer in host.consumers]
        some.ids = {provider.it.uuid: provider.id for provider in some.providers}
        yield some


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def _amounts(stock: fleet.Stock) -> tuple[int, int, int, int, int, float]:
    return stock.total, stock.reserved, 1, stock.total, 1, stock.allocation_ratio


class _Ids:
    """Ids of a table by name, with names added that are not there yet."""

    def __init__(self, connection: sqlalchemy.Connection) -> None:
        self._connection = connection

    def __call__(self, table: str, wanted: Iterable[str] = (), *, name: str = "name", **rest: Any) -> dict[str, int]:
        rows = sqlalchemy.table(table, *(sqlalchemy.column(column) for column in ("id", name, *rest)))
        query = sqlalchemy.select(rows.c[name], rows.c.id)
        known = dict(self._connection.execute(query).all())
        if missing := [{name: each, **rest} for each in wanted if each not in known]:
            self._connection.execute(sqlalchemy.insert(rows), missing)
            known = dict(self._connection.execute(query).all())
        return known


@contextlib.contextmanager
def _filling(url: str, numbered: Sequence[str]) -> Iterator[tuple[Copy, _Ids]]:
    """Give the two ways to fill a database, in one transaction.

    :param numbered: tables whose ids are given here, so that their sequences have to follow
    """
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.begin() as connection:
            yield _copy_into(connection), _Ids(connection)
            if connection.dialect.name == "postgresql":
                for table in numbered:
                    connection.exec_driver_sql(
                        f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))"
                    )
        with engine.connect() as connection:
            connection.exec_driver_sql("ANALYZE")
            connection.commit()
    finally:
        engine.dispose()


def _copy_into(connection: sqlalchemy.Connection) -> Copy:
    raw = connection.connection.dbapi_connection
    assert raw is not None

    def into_sqlite(table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        assert isinstance(raw, sqlite3.Connection)
        marks = ", ".join("?" * len(columns))
        raw.executemany(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})",
            ([str(value) if isinstance(value, datetime.datetime) else value for value in row] for row in rows),
        )

    def into_postgresql(table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        remaining = iter(rows)
        with raw.cursor() as cursor:
            while batch := list(itertools.islice(remaining, _AT_A_TIME)):
                lines = "\n".join("\t".join("\\N" if v is None else str(v) for v in row) for row in batch)
                cursor.copy_expert(f"COPY {table} ({', '.join(columns)}) FROM STDIN", io.StringIO(lines + "\n"))

    return into_sqlite if connection.dialect.name == "sqlite" else into_postgresql
