# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Sorted pages of a table: the page after a marker, by the marker's own values (no offsets)."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, and_, func, or_
from sqlalchemy.orm import InstrumentedAttribute

Direction = Literal["asc", "desc"]
Sort = Sequence[tuple[str, Direction]]

_EPOCH = datetime.datetime(1, 1, 1)


def page(
    query: Select[Any],
    columns: Mapping[str, InstrumentedAttribute[Any]],
    sort: Sort,
    marker: object | None,
    limit: int | None,
) -> Select[Any]:
    """Return the query sorted, begun after the marker and cut at the limit.

    :param columns: column by sort key; the last key of ``sort`` must be unique
    :param marker: the last row of the page before
    """
    terms = [(_comparable(columns[key]), key, direction) for key, direction in sort]
    for term, _key, direction in terms:
        query = query.order_by(term.desc() if direction == "desc" else term.asc())
    if marker is not None:
        equal: list[ColumnElement[bool]] = []
        after: list[ColumnElement[bool]] = []
        for term, key, direction in terms:
            value = _value(columns[key], getattr(marker, columns[key].key))
            after.append(and_(*equal, term < value if direction == "desc" else term > value))
            equal.append(term == value)
        query = query.where(or_(*after))
    return query if limit is None else query.limit(limit)


def _comparable(column: InstrumentedAttribute[Any]) -> ColumnElement[Any]:
    # Databases differ in where they sort NULL, and it compares with nothing.
    return func.coalesce(column, _null_stand_in(column)) if column.nullable else column.expression


def _value(column: InstrumentedAttribute[Any], value: object) -> object:
    return _null_stand_in(column) if value is None else value


def _null_stand_in(column: InstrumentedAttribute[Any]) -> object:
    return _EPOCH if column.type.python_type is datetime.datetime else ""
