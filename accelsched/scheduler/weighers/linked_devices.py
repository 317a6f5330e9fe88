# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Keep a server's devices where fast links join them, and joined devices together for those who want several."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsched import names
from accelsched.placement.picture import NONE, Ints, Mask
from accelsched.scheduler.hosts import Floats, Hosts
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.weighers.base import DeviceWeigher, Options

_APART = 0.5  # the most that devices weigh which no one partition holds
_LOOSE = 0.25  # what a partition loses that the server would leave nearly empty
_BY_PCIE = 0.75  # of a partition's weight, for devices that only a PCIe host bridge joins


class LinkedDevicesWeigher(DeviceWeigher):
    """Weighs devices by link partitions: sets of a host's devices that NVLink or an NVSwitch joins.

    Agents tell them by traits (what ``[devices] link_partitions`` or the GPUs' driver says); partitions may lie within
    others. A request for several devices is to get them from one partition, the smallest that has as many free, and of
    these the one that is left with fewest. Where no partition has enough, or there are none, devices below one PCIe
    host bridge are better than others, if there are several bridges. A request for one device is to leave whole
    partitions alone. Where there is neither, and without a device asked for, everything weighs the same.
    """

    @property
    def multiplier(self) -> float:
        """Return [scheduler] linked_devices_weight_multiplier."""
        return float(self.conf.scheduler.linked_devices_weight_multiplier)

    def counts(self, hosts: Hosts) -> bool:
        """Tell whether any device has links, or is told to be below a bridge."""
        traits = hosts.picture.traits
        return bool(traits.starting_with(names.LINK_PARTITION) or traits.starting_with(names.PCIE_ROOT))

    def weigh_options(self, hosts: Hosts, request: RequestSpec, options: Options) -> Floats:
        """Return how well each device serves the request and those to come: float64[len(options)], 0..1."""
        need = options.need
        if need is None or not len(options):
            return np.zeros(len(options))
        members = _members(hosts, need.resource_class)
        linked = members.shape[1]
        if need.count > 1:
            members = np.concatenate([members, _below_bridges(hosts, need.resource_class)], axis=1)
        if not members.shape[1]:
            return np.zeros(len(options))
        first = np.flatnonzero(np.diff(options.host, prepend=-1))
        host, which = options.host[first], np.repeat(np.arange(len(first)), np.diff(first, append=len(options)))
        able = np.zeros((len(host), members.shape[2]), dtype=np.bool_)
        able[which, options.device] = True
        within = members[host]  # bool[hosts, partitions, devices]
        size = within.sum(axis=2)
        free = (within & able[:, None, :]).sum(axis=2)
        weight = _one(within, size, free) if need.count == 1 else _several(within, size, free, need.count, linked)
        found: Floats = weight[which, options.device]
        return found


def _one(within: Mask, size: Ints, free: Ints) -> Floats:
    """Return 1 for a device without links, less the more of its partitions is free: float64[hosts, devices]."""
    share = np.divide(free, size, out=np.zeros(size.shape), where=size > 0)
    partitions = within.sum(axis=1)
    shares = (within * share[:, :, None]).sum(axis=1)
    mean = np.divide(shares, partitions, out=np.zeros(shares.shape), where=partitions > 0)
    weight: Floats = 1.0 - mean
    return weight


def _several(within: Mask, size: Ints, free: Ints, count: int, linked: int) -> Floats:
    """Return high weights for the devices of the partition to take ``count`` from: float64[hosts, devices].

    :param linked: how many partitions are of links; the others are of bridges
    """
    hosts = np.arange(len(within))
    enough = free >= count
    by_bridge = np.arange(within.shape[1]) >= linked
    # The smallest partition that has enough, of links if there is one; of several the one with fewest to spare. Else
    # the one that has most.
    most = (within.shape[2] + 1) ** 2
    rank = np.where(enough, size * (within.shape[2] + 1) + free + most * by_bridge, np.iinfo(np.int64).max)
    best = np.where(enough.any(axis=1), rank.argmin(axis=1), free.argmax(axis=1))
    left = (free[hosts, best] - count) / np.maximum(size[hosts, best], 1)
    value = np.where(enough.any(axis=1), 1.0 - _LOOSE * left, _APART * free[hosts, best] / count)
    value = value * np.where(by_bridge[best] & enough.any(axis=1), _BY_PCIE, 1.0)
    weight: Floats = np.where(within[hosts, best], value[:, None], 0.0)
    return weight


def _members(hosts: Hosts, resource_class: str) -> npt.NDArray[np.bool_]:
    """Tell which devices of each host are in which partition: bool[len(hosts), partitions, devices]."""
    return hosts.fixed(("linked", resource_class), lambda whole: _find_members(whole, resource_class))


def _find_members(whole: Hosts, resource_class: str) -> npt.NDArray[np.bool_]:
    picture = whole.picture
    rows = whole.device_rows(resource_class)
    traits = picture.traits.starting_with(names.LINK_PARTITION)
    members = np.zeros((len(rows), len(traits), rows.shape[1]), dtype=np.bool_)
    if not traits:
        return members
    slots = picture.classes[resource_class].slot[rows]
    for number, trait in enumerate(traits):
        members[:, number] = (rows != NONE) & picture.traits.having(trait, picture.slots)[slots]
    return members


def _below_bridges(hosts: Hosts, resource_class: str) -> npt.NDArray[np.bool_]:
    """Tell which devices of each host are below one bridge, where there are several: bool[len(hosts), sets, devices].

    Bridges have names of their hosts' own, so sets are numbered by the first device that is in them.
    """
    return hosts.fixed(("bridges", resource_class), lambda whole: _find_below_bridges(whole, resource_class))


def _find_below_bridges(whole: Hosts, resource_class: str) -> npt.NDArray[np.bool_]:
    picture = whole.picture
    rows = whole.device_rows(resource_class)
    traits = picture.traits.starting_with(names.PCIE_ROOT)
    if not traits:
        return np.zeros((len(rows), 0, rows.shape[1]), dtype=np.bool_)
    slots = picture.classes[resource_class].slot[rows]
    bridge = np.full(rows.shape, NONE)
    for number, trait in enumerate(traits):
        bridge[(rows != NONE) & picture.traits.having(trait, picture.slots)[slots]] = number
    together: Mask = (bridge[:, :, None] == bridge[:, None, :]) & (bridge != NONE)[:, None, :]
    first = ~np.tril(together, -1).any(axis=2)
    some = together.sum(axis=2)
    useful = first & (some > 1) & (some < (rows != NONE).sum(axis=1)[:, None])
    found: npt.NDArray[np.bool_] = together & useful[:, :, None]
    return found
