# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Prefer the device whose use leaves the least that nobody can use: fragmentation gradient descent.

Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent", USENIX ATC
2023. A host is as fragmented as the share of its idle devices that a request drawn from the mix could not use.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from accelsched.placement import candidates
from accelsched.placement.candidates import RequestGroup
from accelsched.placement.picture import NONE, Ints, Mask
from accelsched.scheduler.hosts import Floats, Hosts
from accelsched.scheduler.outlook import DeviceNeed, Mix
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.weighers.base import DeviceWeigher, Options

_TYPICAL = 0.95
_UNCOUNTED = ("MEMORY_MB", "DISK_GB")
"""Shapes that differ in these alone are one: rarely what keeps a device from being used."""


class FragmentationWeigher(DeviceWeigher):
    """Weighs each device by how much less fragmented its host would be for having it used: 0.5 for no change.

    The mix is the outlook's, its most frequent shapes that cover 95 % of all. Without one everything weighs the same.
    As published, weights are cut to hundredths, so that hosts which are nearly as good tie.
    """

    needs = frozenset({"outlook"})

    @property
    def multiplier(self) -> float:
        """Return [scheduler] fragmentation_weight_multiplier."""
        return float(self.conf.scheduler.fragmentation_weight_multiplier)

    def weigh_options(self, hosts: Hosts, request: RequestSpec, options: Options) -> Floats:
        """Return floor(100 sigmoid(before - after)) / 100, fragmentation in whole devices: float64[len(options)]."""
        mix = hosts.outlook.mix if hosts.outlook else None
        if mix is None or not len(options):
            return np.zeros(len(options))
        name = options.need.resource_class if options.need else mix.main_class
        if name is None or name not in hosts.picture.classes:
            return np.zeros(len(options))
        typical = _typical(mix, name)
        free = hosts.device_free(name)
        # Devices of a host that have as much left are as good.
        alike = options.host * (int(free.max(initial=0)) + 1)
        if options.need is not None:
            alike += free[options.host, options.device]
        _, first, which = np.unique(alike, return_index=True, return_inverse=True)
        host, device = options.host[first], options.device[first]
        own = {c: hosts.free(c)[host] - options.own.get(c, 0) for c in typical.own}
        devices = free[host]
        if options.need is not None:
            devices -= _taken(devices, device, options.need)
        before = _fragmentation(hosts.take(host), typical)
        after = typical.fragmentation(own, devices, _able(hosts, typical)[host])
        whole_device = float(hosts.picture.classes[name].capacity.max())
        weight = np.floor(100.0 / (1.0 + np.exp(-(before - after) / whole_device))) / 100.0
        every: Floats = weight[which]
        return every


@dataclasses.dataclass(frozen=True, eq=False)
class Typical:
    """The shapes of a mix that use one class of devices, in columns.

    :ivar groups: what each asks of one device
    :ivar own: what each asks of its host by class, int64[shapes]
    :ivar amounts: the distinct amounts asked of one device, int64[amounts]
    :ivar which: which of these amounts each asks for, int64[shapes]
    :ivar count: of how many devices, int64[shapes]
    :ivar share: of all requests, float64[shapes]
    """

    resource_class: str
    groups: tuple[RequestGroup, ...]
    own: dict[str, Ints]
    amounts: Ints
    which: Ints
    count: Ints
    share: Floats

    @classmethod
    def of(cls, mix: Mix, resource_class: str) -> Typical:
        """Return the shapes of a mix that ask for a class."""
        shapes = [shape for shape in mix.shares if shape.need and shape.need.resource_class == resource_class]
        needs = [shape.need for shape in shapes if shape.need]
        amounts, which = np.unique(np.array([need.amount for need in needs], dtype=np.int64), return_inverse=True)
        classes = sorted({name for shape in shapes for name, _ in shape.own})
        return cls(
            resource_class,
            tuple(shape.device_group for shape in shapes),
            {c: np.array([dict(shape.own).get(c, 0) for shape in shapes], dtype=np.int64) for c in classes},
            amounts,
            which,
            np.array([need.count for need in needs], dtype=np.int64),
            np.array([mix.shares[shape] for shape in shapes]),
        )

    def fragmentation(self, own: dict[str, Ints], devices: Ints, able: Mask) -> Floats:
        """Return the idle amount that a request of the mix cannot use, on average, on each of some hosts.

        For a shape that the host cannot take now, that is all that is idle; for another, what is left on those devices
        that have less left than it asks of one.

        :param own: what each host has left by class, int64[hosts]
        :param devices: what its devices have left, int64[hosts, devices]
        :param able: whether its devices have what each shape requires, bool[hosts, shapes]
        :returns: float64[hosts], in the unit of the class
        """
        n, width = len(devices), len(self.amounts) + 1
        # Each device goes to the first amount that it is too small for; it is too small for all after that, too.
        first = np.searchsorted(self.amounts, devices, side="right")
        cell = (first + np.arange(n)[:, None] * width).ravel()
        left = np.bincount(cell, devices.ravel(), n * width).reshape(n, width).cumsum(axis=1)
        small = np.bincount(cell, minlength=n * width).reshape(n, width).cumsum(axis=1)
        runs = able & ((devices.shape[1] - small)[:, self.which] >= self.count)
        for name, asked in self.own.items():
            runs &= own[name][:, None] >= asked
        usable = devices.sum(axis=1)[:, None] - left[:, self.which]
        fragmentation: Floats = devices.sum(axis=1) - np.where(runs, usable, 0.0) @ self.share
        return fragmentation


@functools.lru_cache(maxsize=8)
def _typical(mix: Mix, resource_class: str) -> Typical:
    return Typical.of(mix.without(_UNCOUNTED).typical(_TYPICAL), resource_class)


def fragmentation_of(hosts: Hosts, resource_class: str) -> Floats | None:
    """Return how much of each host's idle devices the average request of the mix cannot use.

    :returns: float64[len(hosts)], in the unit of the class; None without a mix
    """
    mix = hosts.outlook.mix if hosts.outlook else None
    if mix is None or resource_class not in hosts.picture.classes:
        return None
    return _fragmentation(hosts, _typical(mix, resource_class))


def _fragmentation(hosts: Hosts, typical: Typical) -> Floats:
    def now(part: Hosts) -> Floats:
        own = {name: part.free(name) for name in typical.own}
        return typical.fragmentation(own, part.device_free(typical.resource_class), _able(part, typical))

    return hosts.kept(("fragmentation", typical), now)


def _able(hosts: Hosts, typical: Typical) -> Mask:
    """Tell which hosts have as many devices with what each shape requires as it asks for: bool[hosts, shapes]."""
    return hosts.fixed(("able", typical), lambda whole: _find_able(whole, typical))


def _find_able(hosts: Hosts, typical: Typical) -> Mask:
    name = typical.resource_class
    rows = hosts.device_rows(name)
    slots = hosts.picture.classes[name].slot[rows]
    able = np.zeros((len(hosts), len(typical.groups)), dtype=np.bool_)
    for number, group in enumerate(typical.groups):
        qualified = candidates.qualities(hosts.picture, group)[slots] & (rows != NONE)
        able[:, number] = qualified.sum(axis=1) >= typical.count[number]
    return able


def _taken(devices: Ints, device: Ints, need: DeviceNeed) -> Ints:
    """Return what taking one device of each host, and of several the first others that have enough, takes of each.

    :param devices: what they have left, int64[hosts, devices]
    :param device: the one that is taken first, int64[hosts]
    :returns: int64[hosts, devices]
    """
    these = np.arange(len(devices))
    if need.count > 1:
        others = devices >= need.amount
        others[these, device] = False
        chosen = others & (np.cumsum(others, axis=1) < need.count)
    else:
        chosen = np.zeros(devices.shape, dtype=np.bool_)
    chosen[these, device] = True
    return chosen * need.amount
