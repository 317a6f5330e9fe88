# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Tables of the resource database. Names follow Placement's."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Double, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from accelsched.db.base import TABLE_ARGS, Base, id_key, moment, name_text, utcnow, uuid_text


class ResourceClass(Base):
    """A kind of resource: a standard one of os-resource-classes, or CUSTOM_*."""

    __tablename__ = "resource_classes"
    __table_args__ = TABLE_ARGS

    id: Mapped[id_key]
    name: Mapped[name_text] = mapped_column(unique=True)
    updated_at: Mapped[moment] = mapped_column(default=utcnow)


class Trait(Base):
    """A quality that providers have or have not: a standard one of os-traits, or CUSTOM_*."""

    __tablename__ = "traits"
    __table_args__ = TABLE_ARGS

    id: Mapped[id_key]
    name: Mapped[name_text] = mapped_column(unique=True)
    updated_at: Mapped[moment] = mapped_column(default=utcnow)


class ResourceProvider(Base):
    """Something that has resources: a host (a root) or a device below one."""

    __tablename__ = "resource_providers"
    __table_args__ = TABLE_ARGS

    id: Mapped[id_key]
    uuid: Mapped[uuid_text] = mapped_column(unique=True)
    name: Mapped[name_text] = mapped_column(unique=True)
    generation: Mapped[int] = mapped_column(BigInteger, default=0)
    # A root is its own root; set right after the row is there, hence nullable.
    root_id: Mapped[int | None] = mapped_column(ForeignKey("resource_providers.id"), index=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("resource_providers.id"), index=True)
    created_at: Mapped[moment] = mapped_column(default=utcnow)
    updated_at: Mapped[moment] = mapped_column(default=utcnow)


class Inventory(Base):
    """How much of one class a provider has.

    ``used`` is the sum of its allocations; ``ceiling`` the most that may be used just now under the provider's capacity
    rule, null when no rule is about this class. Both are kept in the transaction that changes what they depend on.
    ``operator_reserved`` is what an operator had reserved of a device before it was closed, see
    ``placement.device_status``.
    """

    __tablename__ = "inventories"
    __table_args__ = TABLE_ARGS

    provider_id: Mapped[int] = mapped_column(ForeignKey("resource_providers.id"), primary_key=True)
    class_id: Mapped[int] = mapped_column(ForeignKey("resource_classes.id"), primary_key=True, index=True)
    total: Mapped[int] = mapped_column(BigInteger)
    reserved: Mapped[int] = mapped_column(BigInteger, default=0)
    min_unit: Mapped[int] = mapped_column(BigInteger, default=1)
    max_unit: Mapped[int] = mapped_column(BigInteger)
    step_size: Mapped[int] = mapped_column(BigInteger, default=1)
    allocation_ratio: Mapped[float] = mapped_column(Double, default=1.0)
    used: Mapped[int] = mapped_column(BigInteger, default=0)
    ceiling: Mapped[int | None] = mapped_column(BigInteger)
    operator_reserved: Mapped[int | None] = mapped_column(BigInteger)
    updated_at: Mapped[moment] = mapped_column(default=utcnow)


class CapacityRule(Base):
    """How the classes of a provider share it: a document of :data:`accelsched.placement.partitioning.SCHEMA`."""

    __tablename__ = "capacity_rules"
    __table_args__ = TABLE_ARGS

    provider_id: Mapped[int] = mapped_column(ForeignKey("resource_providers.id"), primary_key=True, autoincrement=False)
    rule: Mapped[dict[str, Any]] = mapped_column(JSON)
    updated_at: Mapped[moment] = mapped_column(default=utcnow)


class InstancePosition(Base):
    """Where a consumer's unit sits on a provider whose rule has positions. It goes with its consumer."""

    __tablename__ = "instance_positions"
    __table_args__ = TABLE_ARGS

    provider_id: Mapped[int] = mapped_column(ForeignKey("resource_providers.id"), primary_key=True)
    start: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    class_id: Mapped[int] = mapped_column(ForeignKey("resource_classes.id"), index=True)
    consumer_id: Mapped[int] = mapped_column(ForeignKey("consumers.id", ondelete="CASCADE"), index=True)


class NumaTopology(Base):
    """The NUMA nodes of a host, by its root provider: a wire.NumaTopology."""

    __tablename__ = "numa_topologies"
    __table_args__ = TABLE_ARGS

    provider_id: Mapped[int] = mapped_column(ForeignKey("resource_providers.id"), primary_key=True, autoincrement=False)
    topology: Mapped[dict[str, Any]] = mapped_column(JSON)
    updated_at: Mapped[moment] = mapped_column(default=utcnow)


class NumaPlacement(Base):
    """What a consumer holds of its host's NUMA nodes. It goes with its consumer."""

    __tablename__ = "numa_placements"
    __table_args__ = TABLE_ARGS

    consumer_id: Mapped[int] = mapped_column(
        ForeignKey("consumers.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    provider_id: Mapped[int] = mapped_column(ForeignKey("resource_providers.id", ondelete="CASCADE"), index=True)
    placement: Mapped[list[dict[str, Any]]] = mapped_column(JSON)  # wire.NumaPlacedNode


class ProviderTrait(Base):
    """A trait that a provider has."""

    __tablename__ = "provider_traits"
    __table_args__ = TABLE_ARGS

    provider_id: Mapped[int] = mapped_column(ForeignKey("resource_providers.id"), primary_key=True)
    trait_id: Mapped[int] = mapped_column(ForeignKey("traits.id"), primary_key=True, index=True)


class Aggregate(Base):
    """A set of providers, known by its uuid only."""

    __tablename__ = "aggregates"
    __table_args__ = TABLE_ARGS

    id: Mapped[id_key]
    uuid: Mapped[uuid_text] = mapped_column(unique=True)


class ProviderAggregate(Base):
    """Membership of a provider in an aggregate."""

    __tablename__ = "provider_aggregates"
    __table_args__ = TABLE_ARGS

    provider_id: Mapped[int] = mapped_column(ForeignKey("resource_providers.id"), primary_key=True)
    aggregate_id: Mapped[int] = mapped_column(ForeignKey("aggregates.id"), primary_key=True, index=True)


class Consumer(Base):
    """Something that holds allocations: a server, most often."""

    __tablename__ = "consumers"
    __table_args__ = (Index(None, "project_id", "user_id"), TABLE_ARGS)

    id: Mapped[id_key]
    uuid: Mapped[uuid_text] = mapped_column(unique=True)
    project_id: Mapped[name_text]
    user_id: Mapped[name_text]
    consumer_type: Mapped[str | None] = mapped_column(String(255))
    generation: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[moment] = mapped_column(default=utcnow)
    updated_at: Mapped[moment] = mapped_column(default=utcnow)


class Allocation(Base):
    """An amount of one class that a consumer holds from a provider's inventory."""

    __tablename__ = "allocations"
    __table_args__ = TABLE_ARGS

    consumer_id: Mapped[int] = mapped_column(ForeignKey("consumers.id"), primary_key=True)
    provider_id: Mapped[int] = mapped_column(ForeignKey("resource_providers.id"), primary_key=True, index=True)
    class_id: Mapped[int] = mapped_column(ForeignKey("resource_classes.id"), primary_key=True, index=True)
    used: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[moment] = mapped_column(default=utcnow)
