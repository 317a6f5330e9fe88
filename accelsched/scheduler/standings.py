# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Decisions one after the other, at the cost of what changed in between.

Requests that are equal meet the hosts again that they ranked before. Only those that got something since are looked at
anew, whoever got it. The answers are those that :func:`accelsched.scheduler.pipeline.decide` would give.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from functools import partial

import numpy as np

from accelsched.placement import candidates
from accelsched.placement.candidates import CandidateQuery, Narrowed
from accelsched.placement.picture import Ints, Mask
from accelsched.scheduler import pipeline
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.outlook import Shape
from accelsched.scheduler.pipeline import Selection
from accelsched.scheduler.plugins import Plugins
from accelsched.scheduler.ranking import Ranking
from accelsched.scheduler.request import RequestSpec

_MOST_KEPT = 4096


@dataclasses.dataclass
class _Standing:
    """How the hosts stand for one kind of request.

    :ivar version: of the outlook that they were scored by
    :ivar seen: how many servers had been placed when they were scored
    """

    query: CandidateQuery
    shape: Shape
    ranking: Ranking | None = None
    narrowed: Narrowed | None = None
    version: int = 0
    seen: int = 0


class Standings:
    """The rankings of recent requests over one fleet.

    Filters and weighers have to say the same of a host until something is placed on it; what the picture knows besides
    usage must not change. Placements are added to ``hosts.usage``.
    """

    def __init__(self, hosts: Hosts, plugins: Plugins, seed: str) -> None:
        """Begin with what the hosts have in use.

        :param hosts: a whole fleet
        :param seed: fixes the order of hosts that score the same, once for all requests
        """
        self.hosts = hosts
        self._turn = pipeline.lots(len(hosts), seed)
        self._plugins = plugins
        self._rankings: dict[Hashable, _Standing] = {}
        self._placed = 0
        # What that was when each host got something last.
        self._changed: Ints = np.zeros(len(hosts), dtype=np.int64)

    def place(self, key: Hashable, request: RequestSpec) -> Selection | None:
        """Place one server.

        :param key: equal for requests that are
        :returns: where it went, None when it fits nowhere
        """
        outlook = self.hosts.outlook
        standing = self._rankings.pop(key, None)
        if standing is None:
            standing = _Standing(*self._query(request))
        self._rankings[key] = standing  # the most recent one last
        if len(self._rankings) > _MOST_KEPT:
            del self._rankings[next(iter(self._rankings))]
        if outlook is not None:
            outlook.saw(standing.shape)
        ranking = self._current(standing, request)
        while len(best := ranking.best()):
            selection = self._take(standing, ranking, best) if ranking.exact else self._search(standing, ranking, best)
            if selection is not None:
                self._placed += 1
                self._changed[best] = self._placed
                return selection
        return None

    def _take(self, standing: _Standing, ranking: Ranking, best: Ints) -> Selection:
        told = ranking.snapshot(best)
        chosen = [ranking.chosen(table, best) for table in ranking.devices]
        # The host is not scored anew before one of the rankings is asked for again.
        ranking.use(best, chosen, 1)
        plan = self.hosts.outlook.plan if self.hosts.outlook else None
        if plan is not None:
            devices = {
                table.need.resource_class: tuple(columns[0].tolist())
                for table, columns in zip(ranking.devices, chosen, strict=True)
            }
            plan.took(int(self.hosts.where(best)[0]), standing.shape, devices.get(plan.resource_class, ()))
        taken = [table.rows[best[0], columns[0]] for table, columns in zip(ranking.devices, chosen, strict=True)]
        host = self.hosts.take(best)
        return pipeline.selection_of(ranking, host.rows[0], int(host.slots[0]), taken, partial(told.told, 0))

    def _search(self, standing: _Standing, ranking: Ranking, best: Ints) -> Selection | None:
        if standing.narrowed is None:
            standing.narrowed = candidates.narrow(self.hosts.picture, standing.query)
        selection = pipeline.place_by_search(ranking, int(best[0]), standing.narrowed)
        if selection is not None:
            self.hosts.count(best, -1)  # the next one is another request
        return selection

    def _query(self, request: RequestSpec) -> tuple[CandidateQuery, Shape]:
        query = request.query()
        for prefilter in self._plugins.prefilters:
            query = prefilter.apply(request, query, self.hosts.facts)
        return query, Shape.of(query)

    def _current(self, standing: _Standing, request: RequestSpec) -> Ranking:
        version = self.hosts.outlook.version if self.hosts.outlook else 0
        if standing.ranking is None:
            allowed = self._allowed(standing.query, request)
            again = [filter_ for filter_ in self._plugins.filters if filter_.changes(self.hosts, request)]
            weighers = self._plugins.weighers
            standing.ranking = Ranking(self.hosts, request, standing.query, allowed, again, weighers, self._turn)
        elif standing.version != version:
            standing.ranking.refresh()
        elif standing.seen < self._placed:
            stale = (self._changed > standing.seen).nonzero()[0]
            standing.ranking.refresh(stale if len(stale) <= len(self.hosts) // 2 else None)
        if standing.ranking.host_weighers:
            standing.ranking.rescale()
        standing.version, standing.seen = version, self._placed
        return standing.ranking

    def _allowed(self, query: CandidateQuery, request: RequestSpec) -> Mask:
        allowed = candidates.rooted(self.hosts.picture, query)[self.hosts.slots]
        for filter_ in self._plugins.filters:
            if not filter_.changes(self.hosts, request):
                allowed &= filter_.mask(self.hosts, request)
        return allowed
