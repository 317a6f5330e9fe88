# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Keeps the plan of an outlook fresh."""

from __future__ import annotations

from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.outlook import Mix
from accelsched.scheduler.planning import plan

_PLANS = 8
"""Plans made while as many requests come as the empty fleet would take: often enough to follow what really came, seldom
enough to cost little."""


class Planner:
    """Makes plans for one fleet, from the mix of its hosts' outlook."""

    def __init__(self, hosts: Hosts) -> None:
        """Begin without a plan.

        :param hosts: a whole fleet with an outlook
        """
        self._hosts = hosts.whole()
        self._left = 0  # requests until the next plan
        self._since = 0  # requests that the mix was learned from, without a history

    def request(self) -> None:
        """Say that a request is about to come; make a plan when it is time."""
        outlook = self._hosts.outlook
        if outlook is None:
            return
        self._since += 1
        if self._left > 0:
            self._left -= 1
            return
        mix = outlook.mix
        name = mix.main_class if mix else None
        if mix is None or name is None or name not in self._hosts.picture.classes:
            return
        every = max(1, round(self._capacity(mix, name) / _PLANS))
        if outlook.learning and self._since < every:
            # What came so far says too little of what will come.
            self._left = every - self._since
            return
        outlook.follow(plan.make(self._hosts, mix, name, outlook.plan))
        self._left = every - 1

    def _capacity(self, mix: Mix, name: str) -> float:
        """Return how many requests of the mix ask for as much as all devices of a class have."""
        rows = self._hosts.device_rows(name)
        capacity = float(self._hosts.picture.classes[name].capacity[rows[rows >= 0]].sum())
        asked = sum(
            share * shape.need.amount * shape.need.count
            for shape, share in mix.shares.items()
            if shape.need and shape.need.resource_class == name
        )
        return capacity / asked if asked else 0.0
