# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The hosts of one request by score, kept right while placements change them.

A host is scored by its own state alone, so a placement makes only that host's score stale. :meth:`Ranking.refresh`
works on any number of hosts at once: all of them when a request is first seen, those that others changed when it comes
again, the few that a batch is about to use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from accelsched.placement import candidates
from accelsched.placement.candidates import CandidateQuery, RequestGroup
from accelsched.placement.picture import NONE, Ints, Mask, Picture
from accelsched.scheduler.explanation import HostScore, SelectionScore
from accelsched.scheduler.filters.base import Filter
from accelsched.scheduler.hosts import Floats, Hosts
from accelsched.scheduler.layout import any_device, largest, summed
from accelsched.scheduler.outlook import DeviceNeed, Shape
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.weighers.base import DeviceWeigher, Options, Weigher

_NEVER = -np.inf


@dataclasses.dataclass(frozen=True)
class Scale:
    """How a weigher's raw weights become 0..1: fixed by the hosts of the request when it began.

    Placements may bring a host's raw weight out of the range it began with; its normalised weight then leaves 0..1, so
    that hosts which were all alike do not stay alike.
    """

    low: float
    high: float

    @classmethod
    def of(cls, raw: Floats) -> Scale:
        """Return the scale of some raw weights."""
        return cls(float(raw.min()), float(raw.max())) if len(raw) else cls(0.0, 1.0)

    @property
    def span(self) -> float:
        """Return what is brought to 1."""
        return self.high - self.low or max(abs(self.high), 1.0)

    def apply(self, raw: Floats) -> Floats:
        """Return normalised weights."""
        return (raw - self.low) / self.span


@dataclasses.dataclass
class DeviceTable:
    """The devices that may serve one need, and how they are weighed; a row for each host.

    :ivar suffixes: the groups that ask for it, one device each
    :ivar rows: rows of the inventories in the columns of the class, int64[hosts, most devices], NONE for none
    :ivar most: what may be in use of each row of the class for it to serve the need, -1 where it never may:
        int64[rows of the class + 1], the last one for NONE
    :ivar raw: each weigher's weight of those that can serve it now, float64[weighers, hosts, most devices]
    :ivar weight: the weighers' sum for these, minus infinity for others
    """

    need: DeviceNeed
    suffixes: tuple[str, ...]
    rows: Ints
    most: Ints
    raw: Floats
    weight: Floats


@dataclasses.dataclass(frozen=True)
class Own:
    """What a host itself has to give of one class.

    :ivar rows: each host's row in the columns of the class, int64[hosts]
    :ivar most: what may be in use of it for the amount to fit, -1 where it never does: int64[hosts]
    """

    resource_class: str
    amount: int
    rows: Ints
    most: Ints


class Ranking:
    """Hosts by score.

    :ivar total: each host's score, minus infinity where the request does not fit or is not allowed: float64[hosts]
    :ivar turn: of several equal ones the best is the one with the least of this: int64[hosts]
    :ivar exact: whether the amounts looked at here are all there is to it. When not, some of the hosts may turn out
        unable to serve all parts together, which :func:`accelsched.placement.candidates.expand` tells
    """

    def __init__(
        self,
        hosts: Hosts,
        request: RequestSpec,
        query: CandidateQuery,
        allowed: Mask,
        filters: Sequence[Filter],
        weighers: Sequence[Weigher],
        turn: Ints,
    ) -> None:
        """Score all hosts.

        :param allowed: hosts that may be used as far as placements do not change that, bool[hosts]
        :param filters: those that placements may change
        :param turn: the numbers below the number of hosts, in some order
        """
        self.hosts = hosts
        self.turn = turn
        self.request = request
        self.query = query
        self._filters = filters
        self._allowed = allowed.copy()
        # Filters by which a server on one host may rule out others; then servers are placed one by one.
        self.binding = [filter_ for filter_ in filters if filter_.binds_others(hosts, request)]
        counting = [(w, w.multipliers(hosts)) for w in weighers if not isinstance(w, DeviceWeigher)]
        counting = [(w, multipliers) for w, multipliers in counting if multipliers.any()]
        self.host_weighers = [w for w, _ in counting]
        self.multipliers = [multipliers for _, multipliers in counting]  # of each weigher, by host
        of_devices = [w for w in weighers if w.multiplier and isinstance(w, DeviceWeigher)]
        self.device_weighers = [weigher for weigher in of_devices if weigher.counts(hosts)]
        # Reading an option costs as much as some vector operations.
        self.device_multipliers = [weigher.multiplier for weigher in self.device_weighers]
        self.own: list[Own] = []
        self.devices: list[DeviceTable] = []
        self.numa = request.numa()
        self.exact = self.numa is None and not query.same_subtree and not self._ruled(query)
        for part in _parts(query):
            self._lay_out(part)
        self._shape = Shape.of(query)
        self._asked = {own.resource_class: own.amount for own in self.own}
        n = len(hosts)
        self.raw = np.zeros((len(self.host_weighers), n))
        # Each device weigher's weight of the host when no devices are asked for.
        self.device_raw = np.zeros((len(self.device_weighers), n))
        self.scales = [Scale(0.0, 1.0)] * len(self.host_weighers)
        self.fits = np.zeros(n, dtype=np.bool_)
        self._device_total = np.zeros(n)
        self.total: Floats = np.full(n, _NEVER)
        self._assess(None)
        self.rescale()

    def rescale(self) -> None:
        """Take the hosts that can serve the request now as the range of normalised weights."""
        fitting = self.raw if self.fits.all() else self.raw[:, self.fits]
        self.scales = [Scale.of(raw) for raw in fitting]
        total = self._device_total.copy()
        for multipliers, scale, raw in zip(self.multipliers, self.scales, self.raw, strict=True):
            # Where all hosts are alike to a weigher, it adds nothing.
            if scale.high > scale.low:
                total += multipliers * scale.apply(raw)
        total[~self.fits] = _NEVER
        self.total = total

    def refresh(self, indices: Ints | None = None) -> None:
        """Score some hosts anew, after their state changed; all when None."""
        self._add_up(self._assess(indices))

    def drop(self, index: int) -> None:
        """Take a host out: it turned out unable to serve all parts together."""
        self._allowed[index] = False
        self.fits[index] = False
        self.total[index] = _NEVER

    def best(self, count: int = 1) -> Ints:
        """Return the best hosts, in order: int64[at most count]."""
        total, turn = self.total, self.turn
        if count == 1:
            most = np.maximum.reduce(total, initial=_NEVER)
            level = np.flatnonzero(total == most)
            return level[[turn[level].argmin()]] if most > _NEVER else level[:0]
        if count < len(total):
            edge = np.partition(total, len(total) - count)[len(total) - count]
            above, level = np.flatnonzero(total > edge), np.flatnonzero(total == edge)
            first = np.argpartition(turn[level], count - len(above) - 1)[: count - len(above)]
            chosen = np.concatenate([above, level[first]])
        else:
            chosen = np.arange(len(total))
        chosen = chosen[total[chosen] > _NEVER]
        best: Ints = chosen[np.lexsort((turn[chosen], -total[chosen]))]
        return best

    def chosen(self, table: DeviceTable, indices: Ints) -> Ints:
        """Return the columns of the devices that some hosts would give first: int64[len(indices), need.count]."""
        if table.need.count == 1:
            first: Ints = table.weight[indices].argmax(axis=1)[:, None]
            return first
        best: Ints = np.argsort(-table.weight[indices], axis=1, kind="stable")[:, : table.need.count]
        return best

    def weights(self, index: int) -> dict[int, float]:
        """Return the weight of each device of a host that can serve a part of the request, by its slot."""
        found: dict[int, float] = {}
        for table in self.devices:
            slots = self.hosts.picture.classes[table.need.resource_class].slot
            for row, weight in zip(table.rows[index].tolist(), table.weight[index].tolist(), strict=True):
                if weight > _NEVER:
                    found[int(slots[row])] = weight
        return found

    def use(self, indices: Ints, devices: Sequence[Ints], servers: int) -> None:
        """Add to the usage of some hosts what a server takes, or take it off (``servers`` -1).

        :param devices: what each takes, for each table: :meth:`chosen`
        """
        usage = self.hosts.usage
        for own in self.own:
            usage[own.resource_class][own.rows[indices]] += servers * own.amount
        for table, chosen in zip(self.devices, devices, strict=True):
            rows = table.rows[indices[:, None], chosen]
            usage[table.need.resource_class][rows] += servers * table.need.amount

    def take(self, indices: Ints, devices: Sequence[Ints], servers: int) -> None:
        """Put a server on each of some hosts and score them anew, or take it back (``servers`` -1).

        :param devices: what each takes, for each table: :meth:`chosen`
        """
        self.use(indices, devices, servers)
        if servers > 0:
            self.placed(indices, servers)
        else:
            self.hosts.count(indices, servers)

    def placed(self, indices: Ints, servers: int) -> None:
        """Score some hosts anew that got servers of this request."""
        self.hosts.count(indices, servers)
        self.refresh(indices)
        for filter_ in self.binding:
            self._allowed &= filter_.mask(self.hosts, self.request)
            self.fits &= self._allowed
            self.total[~self._allowed] = _NEVER

    def snapshot(self, indices: Ints) -> Snapshot:
        """Return how some hosts stand now."""
        return Snapshot(
            self,
            indices,
            self.total[indices],
            self.raw[:, indices],
            self.device_raw[:, indices],
            tuple((table.raw[:, indices], table.weight[indices]) for table in self.devices),
            self._device_total[indices],
        )

    def restore(self, indices: Ints, stands: Sequence[Snapshot], which: Ints) -> None:
        """Put some hosts back to how they stood at different moments.

        :param stands: snapshots of these hosts
        :param which: the number of the snapshot that each goes back to
        """
        for number in np.unique(which).tolist():
            some = np.flatnonzero(which == number)
            where, stand = indices[some], stands[number]
            self.total[where] = stand.total[some]
            self.fits[where] = stand.total[some] > _NEVER
            self.raw[:, where] = stand.raw[:, some]
            self.device_raw[:, where] = stand.device_raw[:, some]
            self._device_total[where] = stand.device_total[some]
            for table, (raw, weight) in zip(self.devices, stand.devices, strict=True):
                table.raw[:, where] = raw[:, some]
                table.weight[where] = weight[some]

    def best_except(self, indices: Ints) -> float:
        """Return the score of the best host that is none of these, minus infinity when there is none."""
        others = self.total.copy()
        others[indices] = _NEVER
        return float(others.max(initial=_NEVER))

    def _lay_out(self, part: _Part) -> None:
        """Find where one part's inventories are, and what of them never changes."""
        picture, hosts, group = self.hosts.picture, self.hosts, part.group
        qualified = candidates.qualities(picture, group)
        shared = {name for name in group.resources for slot in picture.reach() if self._gives(slot, name)}
        everywhere = True  # the host itself gives all of it
        for name, amount in group.resources.items():
            columns = picture.classes.get(name)
            if columns is None:
                self._allowed[:] = False
                continue
            may = columns.possible(amount) & qualified[columns.slot[: columns.size]]
            # What may be in use for it to serve, by row; one more for those that have none.
            most = np.append(columns.capacity[: columns.size] - amount, -1)
            if not may.all():
                most[:-1][~may] = -1
            some_on_roots, all_on_roots = hosts.on_roots(name)
            if name not in shared and all_on_roots and not group.suffix:
                rows = hosts.own_rows(name)
                self.own.append(Own(name, amount, rows, most[rows]))
                continue
            everywhere = False
            if name in shared or some_on_roots or any(table.need.resource_class == name for table in self.devices):
                self.exact = False
                continue
            rows = hosts.device_rows(name)
            need = DeviceNeed(name, amount, len(part.suffixes))
            raw = np.zeros((len(self.device_weighers), *rows.shape))
            self.devices.append(DeviceTable(need, part.suffixes, rows, most, raw, np.empty(rows.shape)))
        if group.suffix:
            self.exact &= len(group.resources) == 1 and (len(part.suffixes) == 1 or self.query.isolate)
            self.exact &= not self.query.isolate or len({g.alike() for g in self.query.groups if g.suffix}) == 1
        elif group.required:
            # Traits may be spread over what the group uses. Only when that is the host alone, they are all the host's.
            self.exact &= everywhere and bool(group.resources)
            if everywhere:
                for any_of in group.required:
                    self._allowed &= picture.traits.having_any(any_of, picture.slots)[hosts.slots]

    def _ruled(self, query: CandidateQuery) -> bool:
        """Tell whether several classes are asked for that capacity rules are about: amounts alone do not tell then."""
        classes = self.hosts.picture.classes
        asked = {name for group in query.groups for name in group.resources}
        return sum(name in classes and classes[name].has_ceilings() for name in asked) > 1

    def _gives(self, slot: int, resource_class: str) -> bool:
        columns = self.hosts.picture.classes.get(resource_class)
        return columns is not None and columns.row_of(slot) != NONE

    def _assess(self, indices: Ints | None) -> Ints | None:
        """Look at the present state of some hosts, of all when None: whether the request fits, and raw weights.

        :returns: those of the hosts whose scores are still to be added up; all when None
        """
        # A slice of everything copies nothing.
        where = slice(None) if indices is None else indices
        part = self.hosts if indices is None else self.hosts.take(indices)
        fits, able = self._have_room(where)
        for filter_ in self._filters:
            fits &= filter_.mask(part, self.request)
        self.fits[where] = fits
        if indices is not None and not fits.all():  # what a host cannot take needs no weight there
            self.total[where] = _NEVER
            some = fits.nonzero()[0]
            part, fits, able = part.take(some), fits[some], [can[some] for can in able]
            where = indices = indices[some]
        for number, weigher in enumerate(self.host_weighers):
            self.raw[number, where] = weigher.weigh(part, self.request)
        if self.devices:
            self._device_total[where] = 0.0
            for table, can in zip(self.devices, able, strict=True):
                self._weigh_devices(table, part, where, can & fits[:, None] if indices is None else can)
        else:
            self._weigh_without_devices(part, where, fits)
        return indices

    def _have_room(self, where: Ints | slice) -> tuple[Mask, list[Mask]]:
        """Tell which of some hosts have room for what is asked: bool[hosts]; and which devices, of each table."""
        usage = self.hosts.usage
        whole = isinstance(where, slice)
        fits = self._allowed[where].copy()
        for own in self.own:
            fits &= usage[own.resource_class][own.rows[where]] <= own.most[where]
        able: list[Mask] = []
        for table in self.devices:
            used, rows, count = usage[table.need.resource_class], table.rows[where], table.need.count
            # The whole is compared in the order in which it lies in memory.
            can = np.append(used <= table.most[:-1], False)[rows] if whole else used[rows] <= table.most[rows]
            if count == 1:
                fits &= any_device(can)
            elif self.query.isolate:
                fits &= summed(can) >= count
            else:  # one device may serve several of the groups
                more = (table.most[rows] - used[rows]) // table.need.amount
                fits &= summed(np.where(can, 1 + more, 0)) >= count
            able.append(can)
        return fits, able

    def _weigh_without_devices(self, part: Hosts, where: Ints | slice, fits: Mask) -> None:
        among = np.flatnonzero(fits)
        options = Options.of_hosts(among, self._asked, self._shape)
        total = np.zeros(len(part))
        for number, (weigher, multiplier) in enumerate(zip(self.device_weighers, self.device_multipliers, strict=True)):
            raw = np.zeros(len(part))
            raw[among] = weigher.weigh_options(part, self.request, options)
            self.device_raw[number, where] = raw
            total += multiplier * raw
        self._device_total[where] = total

    def _weigh_devices(self, table: DeviceTable, part: Hosts, where: Ints | slice, can: Mask) -> None:
        place = can.ravel().nonzero()[0]
        options = Options(place, can.shape[1], table.rows[where].ravel()[place], table.need, self._asked, self._shape)
        weights = [weigher.weigh_options(part, self.request, options) for weigher in self.device_weighers]
        whole = isinstance(where, slice)
        for number, one in enumerate(weights):
            raw = table.raw[number] if whole else np.empty(can.shape)
            raw.fill(0.0)
            raw.ravel()[place] = one
            if not whole:
                table.raw[number, where] = raw
        weight = table.weight if whole else np.empty(can.shape)
        weight.fill(_NEVER)
        weight.ravel()[place] = sum(m * one for m, one in zip(self.device_multipliers, weights, strict=True))
        if not whole:
            table.weight[where] = weight
        if not self.device_weighers:
            return
        if table.need.count == 1:
            self._device_total[where] += largest(weight)
        else:
            best = -np.sort(-weight, axis=1)[:, : table.need.count]
            self._device_total[where] += np.where(np.isfinite(best), best, 0.0).sum(axis=1) / table.need.count

    def _add_up(self, indices: Ints | None) -> None:
        where = slice(None) if indices is None else indices
        total = self._device_total[where].copy()
        for multipliers, scale, raw in zip(self.multipliers, self.scales, self.raw, strict=True):
            total += multipliers[where] * scale.apply(raw[where])
        if indices is None:
            total[~self.fits] = _NEVER
        self.total[where] = total


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """How some hosts stood at one moment, in columns of one length."""

    ranking: Ranking
    indices: Ints
    total: Floats
    raw: Floats
    device_raw: Floats
    devices: tuple[tuple[Floats, Floats], ...]  # raw and weight of each table
    device_total: Floats

    def told(self, number: int) -> SelectionScore:
        """Return one of the hosts' score in its parts, and how its devices compared."""
        ranking = self.ranking
        parts: dict[str, dict[str, float]] = {}
        index = int(self.indices[number])
        of_host = (float(multipliers[index]) for multipliers in ranking.multipliers)
        raws = self.raw[:, number]
        for weigher, multiplier, scale, raw in zip(ranking.host_weighers, of_host, ranking.scales, raws, strict=True):
            normalised = float((raw - scale.low) / scale.span)
            parts[type(weigher).__name__] = _part(float(raw), normalised, multiplier)
        of_devices = self.device_raw[:, number].copy()
        for raw, weight in self.devices:  # the device that would be given first
            of_devices += raw[:, number, int(weight[number].argmax())]
        for weigher, raw in zip(ranking.device_weighers, of_devices, strict=True):
            parts[type(weigher).__name__] = _part(float(raw), float(raw), weigher.multiplier)
        host = HostScore(ranking.hosts.take([index]).rows[0].name, float(self.total[number]), parts)
        picture = ranking.hosts.picture
        devices: dict[str, dict[str, float]] = {}
        for table, (_, weights) in zip(ranking.devices, self.devices, strict=True):
            slots = picture.classes[table.need.resource_class].slot
            told = {
                picture.name[int(slots[table.rows[index, column]])]: round(float(weights[number, column]), 6)
                for column in np.argsort(-weights[number], kind="stable").tolist()
                if weights[number, column] > _NEVER
            }
            for suffix in table.suffixes:
                name = table.need.resource_class
                devices[f"{name} of group {suffix}" if suffix else name] = told
        return SelectionScore(host, devices)


def _part(raw: float, normalised: float, multiplier: float) -> dict[str, float]:
    return {"raw": raw, "normalised": normalised, "weighted": multiplier * normalised}


@dataclasses.dataclass(frozen=True)
class _Part:
    """Groups of a query that are alike, and what each asks for."""

    group: RequestGroup
    suffixes: tuple[str, ...]


def _parts(query: CandidateQuery) -> Iterator[_Part]:
    alike: dict[object, list[RequestGroup]] = {}
    for group in query.groups:
        alike.setdefault((bool(group.suffix), group.alike()), []).append(group)
    for groups in alike.values():
        yield _Part(groups[0], tuple(group.suffix for group in groups))


def usage_of(picture: Picture) -> dict[str, Ints]:
    """Return the picture's usage by class, to add placements to: int64[rows of the class] each."""
    return {name: columns.used[: columns.size].copy() for name, columns in picture.classes.items()}
