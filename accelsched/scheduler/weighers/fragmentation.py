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
_FEW = 64
"""Finding out which of as many options are alike costs more than to weigh each."""
_BLOCK = 8192
"""As many hosts are looked at at one time: each takes a number for each of its devices and each need of the mix."""
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
        host, device, which = options.host, options.device, None
        if options.need is not None and len(options) > _FEW:
            # Devices of a host that have as much left are as good.
            alike = host * (int(free.max()) + 1) + free[host, device]
            _, first, which = np.unique(alike, return_index=True, return_inverse=True)
            host, device = host[first], device[first]
        # How each host is, and below that how each option would leave its host.
        n = len(hosts)
        of = np.concatenate([np.arange(n), host])
        devices = free[of]
        if options.need is not None:
            _take(devices[n:], device, options.need)
        own = {c: hosts.free(c)[of] for c in typical.own}
        for c, left in own.items():
            left[n:] -= options.own.get(c, 0)
        fragmentation = typical.fragmentation(own, devices, _able(hosts, typical)[of])
        gained = fragmentation[n:] - fragmentation[host]
        whole_device = float(hosts.picture.classes[name].capacity.max())
        weight: Floats = np.floor(100.0 / (1.0 + np.exp(gained / whole_device))) / 100.0
        return weight if which is None else weight[which]


@dataclasses.dataclass(frozen=True, eq=False)
class Typical:
    """The shapes of a mix that use one class of devices, in columns.

    :ivar groups: what each asks of one device
    :ivar own: what each asks of its host by class, int64[shapes]
    :ivar amounts: what is asked of one device, each with the number of devices once, int64[needs]
    :ivar counts: of how many devices, int64[needs]
    :ivar which: which of these needs each has, int64[shapes]
    :ivar share: of all requests, float64[shapes]
    """

    resource_class: str
    groups: tuple[RequestGroup, ...]
    own: dict[str, Ints]
    amounts: Ints
    counts: Ints
    which: Ints
    share: Floats

    @classmethod
    def of(cls, mix: Mix, resource_class: str) -> Typical:
        """Return the shapes of a mix that ask for a class."""
        shapes = [shape for shape in mix.shares if shape.need and shape.need.resource_class == resource_class]
        needs = [(shape.need.amount, shape.need.count) for shape in shapes if shape.need]
        distinct = sorted(set(needs))
        classes = sorted({name for shape in shapes for name, _ in shape.own})
        return cls(
            resource_class,
            tuple(shape.device_group for shape in shapes),
            {c: np.array([dict(shape.own).get(c, 0) for shape in shapes], dtype=np.int64) for c in classes},
            np.array([amount for amount, _ in distinct], dtype=np.int64),
            np.array([count for _, count in distinct], dtype=np.int64),
            np.array([distinct.index(need) for need in needs], dtype=np.int64),
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
        if len(devices) > _BLOCK:
            parts = [slice(start, start + _BLOCK) for start in range(0, len(devices), _BLOCK)]
            owns = [{name: left[part] for name, left in own.items()} for part in parts]
            return np.concatenate(
                [self.fragmentation(some, devices[part], able[part]) for some, part in zip(owns, parts, strict=True)]
            )
        columns = np.ascontiguousarray(devices.T)
        enough = columns >= self.amounts[:, None, None]
        usable = (enough * columns).sum(axis=1)
        usable *= enough.sum(axis=1) >= self.counts[:, None]
        runs = able
        for name, asked in self.own.items():
            runs = runs & (own[name][:, None] >= asked)
        # Each host's terms lie side by side and are added up in one order, so that it has the same sum in any company:
        # a product of matrices rounds by how many hosts there are, and what should be equal is not.
        terms = usable.T.take(self.which, axis=1) * runs * self.share
        fragmentation: Floats = columns.sum(axis=0) - terms.sum(axis=1)
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
    typical = _typical(mix, resource_class)
    own = {name: hosts.free(name) for name in typical.own}
    return typical.fragmentation(own, hosts.device_free(resource_class), _able(hosts, typical))


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
        able[:, number] = qualified.sum(axis=1) >= typical.counts[typical.which[number]]
    return able


def _take(devices: Ints, device: Ints, need: DeviceNeed) -> None:
    """Take one device of each host, and of several the first others that have enough.

    :param devices: what they have left, int64[hosts, devices]; what is taken is taken off
    :param device: the one that is taken first, int64[hosts]
    """
    these = np.arange(len(devices))
    if need.count > 1:
        others = devices >= need.amount
        others[these, device] = False
        devices -= (others & (np.cumsum(others, axis=1) < need.count)) * need.amount
    devices[these, device] -= need.amount
