# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Inventories: how much of which class a provider has.

Every write takes the provider's lock first and so queues with claims (:mod:`accelsched.placement.claims`). A new one
gets its ceiling, if the provider has a capacity rule about its class (:mod:`accelsched.placement.capacity_rules`).
An inventory may shrink below what is allocated from it, as in Placement: nothing more is taken then.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db.base import table_of
from accelsched.db.placement import Inventory, ResourceClass
from accelsched.placement import capacity_rules, classes, providers
from accelsched.placement.claims import capacity
from accelsched.placement.provider_changes import Change, Finish
from accelsched.placement.provider_rows import Draft, Needs, NewInventory, State
from accelsched.placement.providers import LockedProvider

MAX_UNIT = 0x7FFFFFFF

# An absurd allocation_ratio must not make a number that the fleet picture's 64-bit columns cannot hold.
_MAX_CAPACITY = 1 << 62


class InventoryInUseError(errors.InUseError):
    """Something is allocated from the inventory that is to go."""


@dataclasses.dataclass(frozen=True)
class Amounts:
    """What an inventory says; the defaults are Placement's."""

    total: int
    reserved: int = 0
    min_unit: int = 1
    max_unit: int = MAX_UNIT
    step_size: int = 1
    allocation_ratio: float = 1.0

    @property
    def capacity(self) -> int:
        """How many units can be allocated."""
        return capacity(self.total, self.reserved, self.allocation_ratio)


_FIELDS = (
    Inventory.total,
    Inventory.reserved,
    Inventory.min_unit,
    Inventory.max_unit,
    Inventory.step_size,
    Inventory.allocation_ratio,
)


_inventories = table_of(Inventory)


@dataclasses.dataclass(frozen=True)
class Stock:
    """An inventory as it stands."""

    amounts: Amounts
    used: int
    updated_at: datetime.datetime


def of_provider(session: Session, provider_id: int) -> dict[str, Stock]:
    """Return a provider's inventories by class."""
    rows = session.execute(
        select(ResourceClass.name, Inventory.used, Inventory.updated_at, *_FIELDS)
        .join(ResourceClass, ResourceClass.id == Inventory.class_id)
        .where(Inventory.provider_id == provider_id)
        .order_by(Inventory.class_id)
    )
    return {row[0]: Stock(Amounts(*row[3:]), row[1], row[2]) for row in rows}


@dataclasses.dataclass(frozen=True)
class Replacement(Change[tuple[LockedProvider, dict[str, Stock]]]):
    """Just these inventories for a provider. Its result is the provider as it is then, and its inventories by class.

    :ivar expected: the generation that the caller saw; None when it does not matter
    :ivar least_capacity: refuse an inventory with less; None lets everything through
    """

    provider_uuid: str
    inventories: Mapping[str, Amounts]
    expected: int | None = None
    least_capacity: int | None = None

    @property
    def subjects(self) -> Collection[str]:
        """The provider."""
        return (self.provider_uuid,)

    def ask(self, needs: Needs) -> None:
        """Find out what there is, and which classes there are."""
        needs.providers.add(self.provider_uuid)
        needs.stocked.add(self.provider_uuid)
        needs.classes.update(self.inventories)

    def decide(self, session: Session, state: State, draft: Draft) -> Finish[tuple[LockedProvider, dict[str, Stock]]]:
        """Replace them.

        :raises accelsched.errors.NotFoundError: the provider does not exist
        :raises accelsched.errors.ConcurrentUpdateError: its generation is another
        :raises accelsched.errors.InvalidError: a class does not exist, or a capacity is too small
        :raises InventoryInUseError: one that would go is in use
        """
        provider = providers.locked(state, self.provider_uuid, self.expected)
        _check_capacity(provider, self.inventories, self.least_capacity)
        classes.require(state.classes, self.inventories)
        used = state.used.get(provider.id, {})
        class_ids = {state.classes[name]: name for name in self.inventories}
        gone = [class_id for class_id in used if class_id not in class_ids]
        _check_unused(session, provider, {class_id: used[class_id] for class_id in gone})
        draft.advanced.append(provider.id)
        draft.sold += [(provider.id, class_id) for class_id in gone]
        for class_id, name in class_ids.items():
            kind = draft.restocked if class_id in used else draft.stocked
            kind.append(NewInventory(provider.id, class_id, *dataclasses.astuple(self.inventories[name])))
        now = dataclasses.replace(provider, generation=provider.generation + 1, updated_at=draft.now)
        stocks = {
            class_ids[id_]: Stock(self.inventories[class_ids[id_]], used.get(id_, 0), draft.now)
            for id_ in sorted(class_ids)
        }
        return lambda _ids: (now, stocks)

    def settle(self, session: Session, state: State) -> None:
        """Work out the new inventories' ceilings, where a rule is about them."""
        provider = state.providers[self.provider_uuid]
        if provider.id in state.ruled:
            capacity_rules.settle(session, [provider.id])


def add(
    session: Session, provider_uuid: str, name: str, amounts: Amounts, *, least_capacity: int | None = None
) -> LockedProvider:
    """Give a provider an inventory of a class that it has none of yet.

    :returns: the provider as it is now
    :raises accelsched.errors.NotFoundError: the provider does not exist
    :raises accelsched.errors.InvalidError: the class does not exist, or the capacity is too small
    :raises accelsched.errors.ConcurrentUpdateError: there is one already, which the caller cannot have seen
    """
    provider = providers.lock(session, provider_uuid)
    _check_capacity(provider, {name: amounts}, least_capacity)
    class_id = classes.ids(session, [name])[name]
    if _used(session, provider.id, class_id) is not None:
        raise errors.ConcurrentUpdateError(f"resource provider {provider_uuid} has an inventory of {name} already")
    provider = providers.advance(session, provider)
    _insert(session, provider.id, {class_id: amounts}, provider.updated_at)
    capacity_rules.settle(session, [provider.id])
    return provider


def change(
    session: Session,
    provider_uuid: str,
    name: str,
    amounts: Amounts,
    *,
    expected: int,
    least_capacity: int | None = None,
) -> LockedProvider:
    """Change the inventory of one class.

    :returns: the provider as it is now
    :raises accelsched.errors.NotFoundError: the provider or the class does not exist
    :raises accelsched.errors.ConcurrentUpdateError: the provider's generation is not the one ``expected``
    :raises accelsched.errors.InvalidError: the capacity is too small, or there is no inventory of this class
    """
    provider = providers.lock(session, provider_uuid)
    providers.check_generation(provider, expected)
    _check_capacity(provider, {name: amounts}, least_capacity)
    class_id = classes.get(session, name).id
    if _used(session, provider.id, class_id) is None:
        raise errors.InvalidError(f"No inventory of class {name} on resource provider {provider_uuid}.")
    provider = providers.advance(session, provider)
    _update(session, provider.id, {class_id: amounts}, provider.updated_at)
    return provider


def remove(session: Session, provider_uuid: str, name: str) -> None:
    """Take the inventory of one class from a provider.

    :raises accelsched.errors.NotFoundError: the provider, the class or the inventory does not exist
    :raises InventoryInUseError: it is in use
    """
    provider = providers.lock(session, provider_uuid)
    class_id = classes.get(session, name).id
    used = _used(session, provider.id, class_id)
    if used is None:
        raise errors.NotFoundError(f"No inventory of class {name} found for delete")
    _check_unused(session, provider, {class_id: used})
    providers.advance(session, provider)
    session.execute(delete(Inventory).where(Inventory.provider_id == provider.id, Inventory.class_id == class_id))


def _check_capacity(provider: LockedProvider, inventories: Mapping[str, Amounts], least: int | None) -> None:
    for name, amounts in inventories.items():
        if abs(amounts.capacity) > _MAX_CAPACITY:
            raise errors.InvalidError(
                f"Invalid inventory for '{name}' on resource provider '{provider.uuid}': too large."
            )
        if least is None:
            continue
        if amounts.capacity < least:
            limit = "greater than total" if least == 0 else "greater than or equal to total"
            raise errors.InvalidError(
                f"Invalid inventory for '{name}' on resource provider '{provider.uuid}': its capacity is "
                f"{amounts.capacity}. The reserved value is {limit}, or the allocation_ratio too small."
            )


def _used(session: Session, provider_id: int, class_id: int) -> int | None:
    return session.scalar(
        select(Inventory.used).where(Inventory.provider_id == provider_id, Inventory.class_id == class_id)
    )


def _check_unused(session: Session, provider: LockedProvider, used: Mapping[int, int]) -> None:
    if busy := [class_id for class_id, amount in used.items() if amount]:
        names: Iterable[str] = classes.names(session, busy).values()
        raise InventoryInUseError(
            f"Inventory for '{', '.join(sorted(names))}' on resource provider '{provider.uuid}' in use."
        )


def _insert(session: Session, provider_id: int, wanted: Mapping[int, Amounts], now: datetime.datetime) -> None:
    if wanted:
        session.connection().execute(
            insert(_inventories),
            [
                {"provider_id": provider_id, "class_id": id_, "used": 0, "updated_at": now, **dataclasses.asdict(it)}
                for id_, it in wanted.items()
            ],
        )


def _update(session: Session, provider_id: int, wanted: Mapping[int, Amounts], now: datetime.datetime) -> None:
    if wanted:
        session.connection().execute(
            update(Inventory)
            .where(Inventory.provider_id == provider_id, Inventory.class_id == bindparam("id_"))
            .values({field.key: bindparam(f"new_{field.key}") for field in _FIELDS} | {"updated_at": now}),
            [
                {"id_": id_} | {f"new_{key}": value for key, value in dataclasses.asdict(amounts).items()}
                for id_, amounts in wanted.items()
            ],
        )
