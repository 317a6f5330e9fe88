# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Usages: how much is held, by provider and by project."""

from __future__ import annotations

import dataclasses

from sqlalchemy import ColumnElement, distinct, func, select
from sqlalchemy.orm import Session

from accelsched.db.placement import Allocation, Consumer, Inventory, ResourceClass
from accelsched.placement import consumers

ALL_TYPES = "all"


@dataclasses.dataclass
class TypeUsage:
    """What the consumers of one type hold together."""

    consumer_count: int
    resources: dict[str, int] = dataclasses.field(default_factory=dict)


def of_provider(session: Session, provider_id: int) -> dict[str, int]:
    """Return what is held of each class that a provider has an inventory of."""
    return dict(
        session.execute(
            select(ResourceClass.name, Inventory.used)
            .join(ResourceClass, ResourceClass.id == Inventory.class_id)
            .where(Inventory.provider_id == provider_id)
            .order_by(Inventory.class_id)
        ).all()
    )


def of_project(session: Session, project_id: str, user_id: str | None = None) -> dict[str, int]:
    """Return what a project, or one user of it, holds of each class."""
    conditions = _conditions(project_id, user_id)
    rows = session.execute(
        select(ResourceClass.name, func.sum(Allocation.used))
        .join(Allocation, Allocation.class_id == ResourceClass.id)
        .join(Consumer, Consumer.id == Allocation.consumer_id)
        .where(*conditions)
        .group_by(ResourceClass.name)
    )
    return {name: int(used) for name, used in rows}


def of_project_by_type(
    session: Session, project_id: str, user_id: str | None = None, consumer_type: str | None = None
) -> dict[str, TypeUsage]:
    """Return what a project, or one user of it, holds, grouped by consumer type.

    :param consumer_type: only this one; ``all`` puts every type into one group of that name; ``unknown`` stands for
        consumers without a type
    """
    conditions = _conditions(project_id, user_id)
    if consumer_type == consumers.UNKNOWN_TYPE:
        conditions.append(Consumer.consumer_type.is_(None))
    elif consumer_type not in (None, ALL_TYPES):
        conditions.append(Consumer.consumer_type == consumer_type)
    # A literal could be any consumer's type; grouping by nothing is what "all" means.
    keys = [] if consumer_type == ALL_TYPES else [Consumer.consumer_type]
    counted = session.execute(
        select(func.count(distinct(Allocation.consumer_id)), *keys)
        .join(Consumer, Consumer.id == Allocation.consumer_id)
        .where(*conditions)
        .group_by(*keys)
    )
    groups = {_label(consumer_type, key): TypeUsage(count) for count, *key in counted if count}
    rows = session.execute(
        select(ResourceClass.name, func.sum(Allocation.used), *keys)
        .join(Allocation, Allocation.class_id == ResourceClass.id)
        .join(Consumer, Consumer.id == Allocation.consumer_id)
        .where(*conditions)
        .group_by(ResourceClass.name, *keys)
    )
    for name, used, *key in rows:
        groups.setdefault(_label(consumer_type, key), TypeUsage(0)).resources[name] = int(used)
    return groups


def _conditions(project_id: str, user_id: str | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [Consumer.project_id == project_id]
    if user_id:
        conditions.append(Consumer.user_id == user_id)
    return conditions


def _label(asked: str | None, key: list[str | None]) -> str:
    if asked == ALL_TYPES:
        return ALL_TYPES
    return key[0] or consumers.UNKNOWN_TYPE
