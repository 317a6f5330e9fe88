# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Where hosts, their devices and what both have to give are in a fleet picture.

Servers come and go all the time, hosts and devices seldom. What does not change when something is claimed is worked
out once here and serves every decision until a host, a device, a trait or an inventory changes.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsched.placement.picture import NONE, Floats, Ints, Mask, Picture

# Of the questions that plug-ins ask about a layout, as many answers are kept: a row for each host each.
_MOST_FIXED = 32


class Layout:
    """The places of one table's hosts in one picture.

    :ivar at: index in the table of each host that the picture has, int64[hosts]
    :ivar slots: of their root providers, int64[hosts]
    """

    def __init__(self, picture: Picture, slots: Ints) -> None:
        """
        :param slots: of the root provider of each host of the table, NONE without one
        """
        self._picture = picture
        self._version = picture.layout
        self.at: Ints = np.flatnonzero(slots != NONE)
        self.slots: Ints = slots[self.at]
        self._own: dict[str, Ints] = {}
        self._devices: dict[str, Ints] = {}
        self._on_roots: dict[str, tuple[bool, bool]] = {}
        self._fixed: OrderedDict[object, npt.NDArray[Any]] = OrderedDict()

    def is_of(self, picture: Picture) -> bool:
        """Tell whether everything here still holds for a picture."""
        return self._picture is picture and self._version == picture.layout

    def own_rows(self, resource_class: str) -> Ints:
        """Return the row of each host's own inventory in the columns of a class, NONE without one: int64[hosts]."""
        if resource_class not in self._own:
            columns = self._picture.classes.get(resource_class)
            none = np.full(len(self.slots), NONE, dtype=np.int64)
            self._own[resource_class] = none if columns is None else columns.rows_of(self.slots)
        return self._own[resource_class]

    def device_rows(self, resource_class: str) -> Ints:
        """Return the rows of the inventories that each host's devices have of a class: int64[hosts, most on a host].

        Hosts with fewer are filled up with NONE. A host's devices are in the order of their slots.
        """
        if resource_class not in self._devices:
            columns = self._picture.classes.get(resource_class)
            rows = np.zeros(0, dtype=np.int64)
            if columns is not None:
                rows = np.flatnonzero(columns.slot[: columns.size] != NONE)
            slots = rows if columns is None else columns.slot[rows]
            self._devices[resource_class] = self._by_host(slots, rows)
        return self._devices[resource_class]

    def device_slots(self, classes: frozenset[str]) -> Ints:
        """Return the slots of each host's devices that have some of the classes: int64[hosts, most on a host].

        Hosts with fewer are filled up with NONE.
        """

        def find() -> Ints:
            having = np.zeros(self._picture.slots + 1, dtype=np.bool_)  # one place more, for unused rows of slot NONE
            for name in classes & self._picture.classes.keys():
                having[self._picture.classes[name].slot] = True
            slots = np.flatnonzero(having[:-1])
            return self._by_host(slots, slots)

        return self.fixed(("device slots", classes), find)

    def on_roots(self, resource_class: str) -> tuple[bool, bool]:
        """Tell whether any inventory of a class is a tree's root's, and whether all are."""
        if resource_class not in self._on_roots:
            columns = self._picture.classes[resource_class]
            slots = columns.slot[: columns.size]
            slots = slots[slots != NONE]
            are = self._picture.root[slots] == slots
            self._on_roots[resource_class] = bool(are.any()), bool(are.all())
        return self._on_roots[resource_class]

    def fixed(self, key: object, compute: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Return an array with a row for each host, computed when the key was not asked for lately."""
        if key not in self._fixed:
            self._fixed[key] = compute()
            if len(self._fixed) > _MOST_FIXED:
                self._fixed.popitem(last=False)
        self._fixed.move_to_end(key)
        return self._fixed[key]

    def _by_host(self, slots: Ints, values: Ints) -> Ints:
        """Return the values of devices, a row for each host, in the order of their slots, filled up with NONE.

        :param slots: of providers; roots, and what is in the tree of no host, are left out
        """
        host_at = np.full(self._picture.slots, NONE, dtype=np.int64)
        host_at[self.slots] = np.arange(len(self.slots))
        roots = self._picture.root[slots]
        host = host_at[roots]
        device = (host != NONE) & (roots != slots)
        order = np.lexsort((slots[device], host[device]))
        host, values = host[device][order], values[device][order]
        counts = np.bincount(host, minlength=len(self.slots))
        place = np.arange(len(host)) - np.repeat(np.cumsum(counts) - counts, counts)
        table = np.full((len(self.slots), int(counts.max(initial=0))), NONE, dtype=np.int64)
        table[host, place] = values
        return table


# Numpy reduces rows of a few columns one by one; for as many rows, going by columns is several times as fast.
_MANY = 1000


def any_device(table: Mask) -> Mask:
    """Tell which hosts have a true device: bool[hosts], from bool[hosts, devices]."""
    some: Mask = functools.reduce(np.logical_or, table.T) if _by_columns(table) else np.logical_or.reduce(table, axis=1)
    return some


def summed(table: Ints | Mask) -> Ints:
    """Add up the devices of each host: int64[hosts], from [hosts, devices]."""
    none = np.zeros(len(table), dtype=np.int64)
    sums: Ints = functools.reduce(np.add, table.T, none) if _by_columns(table) else table.sum(axis=1)
    return sums


def largest(table: Floats) -> Floats:
    """Return the largest value of each host's devices: float64[hosts], from float64[hosts, devices]."""
    if _by_columns(table):
        return functools.reduce(np.maximum, table.T)
    most: Floats = np.maximum.reduce(table, axis=1, initial=-np.inf)
    return most


def _by_columns(table: npt.NDArray[Any]) -> bool:
    return len(table) >= _MANY and table.shape[1] > 0
