# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from accelsched import conf as options
from accelsched.scheduler import hosts
from accelsched.scheduler.ranking import Ranking, usage_of
from accelsched.scheduler.weighers.best_fit import BestFitWeigher
from accelsched.simulation import trace
from accelsched.simulation.trace import Node, Pod


def test_a_host_weighs_the_same_in_any_company() -> None:
    """What is left is measured by the most that any host of the fleet has, not by those that are weighed."""
    picture, rows = trace.picture_of([Node("small", 8, 1, 2, "A"), Node("large", 32, 1, 8, "A")])
    fleet = hosts.align(picture, rows, usage_of(picture))
    spec = trace.request_of(Pod("p", 1, 0, 1, 500, frozenset()), frozenset("A"))
    weigher = BestFitWeigher(options.new())
    ranking = Ranking(fleet, spec, spec.query(), np.ones(2, dtype=np.bool_), (), [weigher], np.arange(2))
    together = ranking.total.copy()
    for index in range(2):
        ranking.refresh(np.array([index]))
    assert np.array_equal(ranking.total, together)
