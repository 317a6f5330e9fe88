# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Decisions on the fleet as it is now: the plug-ins, the facts and the picture of one process.

Schedulers claim what is decided here; a dry run shows it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from oslo_config import cfg

from accelsched.db.engine import Database
from accelsched.placement.fleet import Fleet
from accelsched.placement.picture import Picture
from accelsched.scheduler import pipeline, plugins, room
from accelsched.scheduler.facts import Facts
from accelsched.scheduler.forecast import Forecast
from accelsched.scheduler.hosts import align
from accelsched.scheduler.knowledge import Knowledge
from accelsched.scheduler.outlook import Mix
from accelsched.scheduler.pipeline import Decision
from accelsched.scheduler.planning import plan as planning
from accelsched.scheduler.planning.plan import Plan
from accelsched.scheduler.ranking import usage_of
from accelsched.scheduler.relaxation import search as relaxation
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.room import Room


class Asked(NamedTuple):
    """A request, how many servers it is for, and what draws lots for it."""

    spec: RequestSpec
    servers: int
    seed: str


@dataclasses.dataclass(frozen=True)
class DryRun:
    """A decision that nobody claims, and what it would leave.

    :ivar rooms: by resource class, over the whole fleet
    """

    decision: Decision
    rooms: Mapping[str, Room]


class Decider:
    """One a process.

    :ivar forecast: kept fresh by a dry run, and for :meth:`decide` by whoever calls it, beside the decisions
    """

    def __init__(self, conf: cfg.ConfigOpts, db: Database, fleet: Fleet) -> None:
        """Load the plug-ins.

        :raises accelsched.errors.ConfigurationError: when one of them does not load
        """
        self._conf = conf
        self._fleet = fleet
        self._plugins = plugins.load(conf)
        self._knowledge = Knowledge(db)
        # What to expect, when an enabled plug-in asks for it.
        self.forecast = Forecast(conf, db, self._plan) if "outlook" in self._plugins.needs(()) else None

    def warm_up(self) -> None:
        """Read the hosts and the fleet now, so that the first request does not wait for it."""
        self._knowledge.table()
        self._fleet.warm_up()

    def decide(self, spec: RequestSpec, count: int, seed: str) -> Decision:
        """Choose hosts and devices: see :func:`accelsched.scheduler.pipeline.decide`; say what a failure was up to."""
        facts = self._facts(spec)
        with self._fleet.reading() as picture:
            return self._explained(picture, facts, spec, count, seed)

    def decide_each(self, asked: Sequence[Asked]) -> list[Decision]:
        """Choose for several requests, each on what the ones before it left; a failure is not looked into.

        :param asked: none of them has hints, group or NUMA nodes: what surrounds one surrounds all
        """
        facts = self._facts(asked[0].spec)
        decisions: list[Decision] = []
        with self._fleet.reading() as picture:
            facts = self._with_plan(picture, facts)
            usage = usage_of(picture)
            for spec, servers, seed in asked:
                after = {name: column.copy() for name, column in usage.items()}
                decision = pipeline.decide(picture, facts, spec, servers, self._plugins, seed, usage=after)
                decisions.append(decision)
                if len(decision.selections) == servers:
                    usage = after
                    facts = facts.with_placed(Counter(selection.host.name for selection in decision.selections))
        return decisions

    def dry_run(self, spec: RequestSpec, count: int, seed: str) -> DryRun:
        """Choose as :meth:`decide` does, and work out what would be left if it were claimed."""
        if self.forecast is not None:
            self.forecast.refresh()
        facts = self._facts(spec)
        with self._fleet.reading() as picture:
            decision = self._explained(picture, facts, spec, count, seed)
            return DryRun(decision, room.rooms(picture, [selection.allocations for selection in decision.selections]))

    def _facts(self, spec: RequestSpec) -> Facts:
        facts = self._knowledge.facts(spec, self._plugins.needs)
        return facts if self.forecast is None else dataclasses.replace(facts, outlook=self.forecast.outlook)

    def _explained(self, picture: Picture, facts: Facts, spec: RequestSpec, count: int, seed: str) -> Decision:
        facts = self._with_plan(picture, facts)
        decision = pipeline.decide(picture, facts, spec, count, self._plugins, seed)
        tries = self._conf.scheduler.relaxation_tries
        if decision.selections or not decision.explanation.hosts or not tries:
            return decision
        relaxed = relaxation.search(picture, facts, spec, self._plugins, tries)
        explanation = decision.explanation.would_fit(relaxed.to_dict(), str(relaxed))
        return dataclasses.replace(decision, explanation=explanation)

    def _plan(self, mix: Mix) -> Plan | None:
        """Plan for a mix on the fleet as it is. Decisions go on while the plan is made."""
        name = mix.main_class
        if "plan" not in self._plugins.needs(()) or name is None:
            return None
        table = self._knowledge.table()
        with self._fleet.reading() as picture:
            hosts = align(picture, Facts(table, now=0.0), usage_of(picture))
            if name not in picture.classes:
                return None
            problem = planning.Problem(hosts, mix, name)
        patterns = planning.solve(problem, {})
        if patterns is None:
            return None
        plan = Plan(hosts, problem, patterns)
        with self._fleet.reading() as picture:
            now = align(picture, Facts(table, now=0.0), usage_of(picture))
            if not now.lines_up(hosts):
                return None  # hosts or devices came or went; the next one is for those
            plan.catch_up(now)
            return plan

    @staticmethod
    def _with_plan(picture: Picture, facts: Facts) -> Facts:
        """Bring the plan up to what is in use now; without one when it is for another fleet."""
        outlook = facts.outlook
        if outlook is None or outlook.plan is None:
            return facts
        hosts = align(picture, facts, usage_of(picture))
        if not outlook.plan.is_of(hosts):
            return dataclasses.replace(facts, outlook=outlook.without_plan())
        outlook.plan.catch_up(hosts)
        return facts
