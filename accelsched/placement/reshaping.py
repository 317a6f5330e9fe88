# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Inventories that move between providers, together with what is allocated from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from sqlalchemy.orm import Session

from accelsched.placement import claims, inventories, provider_changes, providers
from accelsched.placement.claims import ConsumerAllocation
from accelsched.placement.inventories import Amounts


@dataclasses.dataclass(frozen=True)
class Replacement:
    """All the inventories that a provider shall have, and its generation as the caller saw it."""

    generation: int
    inventories: Mapping[str, Amounts]


def reshape(session: Session, wanted: Mapping[str, Replacement], changes: Sequence[ConsumerAllocation]) -> None:
    """Give providers just these inventories, and consumers just these allocations, or change nothing.

    Inventories in use cannot go and allocations need inventories, so for a moment every provider has the inventories
    of before and after.

    :raises accelsched.placement.providers.ProviderNotFoundError: a provider of ``wanted`` does not exist
    :raises accelsched.errors.ConcurrentUpdateError: a generation is another
    :raises accelsched.errors.InvalidError: a provider or class does not exist
    :raises accelsched.placement.inventories.InventoryInUseError: an inventory that would go is still in use
    :raises accelsched.errors.ConflictError: an allocation does not fit
    """
    # What is wrong is looked for in the caller's order.
    for uuid, replacement in wanted.items():
        providers.check_generation(providers.get(session, uuid), replacement.generation)
    # Locks are taken in one order everywhere, so that two reshapes never wait for each other in a circle.
    for uuid in sorted(wanted):
        provider = providers.lock(session, uuid)
        providers.check_generation(provider, wanted[uuid].generation)
    for uuid, replacement in wanted.items():
        if not replacement.inventories:
            # Nothing to add, and so nothing to make the generation grow, just as in Placement.
            continue
        provider = providers.get(session, uuid)
        before = {name: stock.amounts for name, stock in inventories.of_provider(session, provider.id).items()}
        merged = {**before, **replacement.inventories}
        provider_changes.apply(session, inventories.Replacement(uuid, merged))
    claims.replace(session, changes)
    for uuid, replacement in wanted.items():
        provider_changes.apply(session, inventories.Replacement(uuid, replacement.inventories))
