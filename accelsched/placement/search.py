# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Resource providers by what they have, from the fleet picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import os_resource_classes
import os_traits

from accelsched.db.engine import Database
from accelsched.placement import classes as classes_
from accelsched.placement import traits as traits_
from accelsched.placement.picture import NONE, Ints, Mask, Picture

_STANDARD_CLASSES = frozenset(os_resource_classes.STANDARDS)
_STANDARD_TRAITS = frozenset(os_traits.get_traits())


@dataclasses.dataclass(frozen=True)
class ProviderFilter:
    """Which providers to list. Every part narrows the list.

    ``required`` and ``member_of`` are ANDs of ORs; ``resources`` asks that each class be free in that amount.
    """

    name: str | None = None
    uuid: str | None = None
    in_tree: str | None = None
    resources: Mapping[str, int] = dataclasses.field(default_factory=dict)
    required: Sequence[frozenset[str]] = ()
    forbidden: frozenset[str] = frozenset()
    member_of: Sequence[frozenset[str]] = ()
    forbidden_aggregates: frozenset[str] = frozenset()


def check_names(db: Database, *, classes: Collection[str], traits: Collection[str]) -> None:
    """Refuse names that nobody gave to anything.

    :raises accelsched.errors.InvalidError: a trait or resource class does not exist
    """
    # Standard ones are always there, and most requests name no other.
    custom_classes = frozenset(classes) - _STANDARD_CLASSES
    custom_traits = frozenset(traits) - _STANDARD_TRAITS
    if custom_classes or custom_traits:
        with db.reading() as session:
            classes_.ids(session, custom_classes)
            traits_.named(session, custom_traits)


def find(picture: Picture, wanted: ProviderFilter) -> Ints:
    """Return the slots of the providers that the filter lets through, oldest first: int64[n]."""
    n = picture.slots
    fit: Mask = picture.ids[:n] != NONE
    if wanted.name:
        fit &= np.fromiter((name == wanted.name for name in picture.name), dtype=np.bool_, count=n)
    if wanted.uuid:
        fit &= _only(picture.slot_of_uuid.get(wanted.uuid, NONE), n)
    if wanted.in_tree:
        slot = picture.slot_of_uuid.get(wanted.in_tree)
        fit &= _only(NONE, n) if slot is None else picture.root[:n] == picture.root[slot]
    for alternatives in wanted.required:
        fit &= picture.traits.having_any(alternatives, n)
    if wanted.forbidden:
        fit &= ~picture.traits.having_any(wanted.forbidden, n)
    for aggregates in wanted.member_of:
        fit &= picture.aggregates.having_any(aggregates, n)
    if wanted.forbidden_aggregates:
        fit &= ~picture.aggregates.having_any(wanted.forbidden_aggregates, n)
    for name, amount in wanted.resources.items():
        fit &= picture.having_free(name, amount)
    found = np.flatnonzero(fit)
    oldest_first: Ints = found[np.argsort(picture.ids[found])]
    return oldest_first


def _only(slot: int, slots: int) -> Mask:
    mask = np.zeros(slots, dtype=np.bool_)
    if slot != NONE:
        mask[slot] = True
    return mask
