# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a prefilter is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from oslo_config import cfg

from accelsched.placement.candidates import CandidateQuery
from accelsched.scheduler.facts import Facts
from accelsched.scheduler.request import RequestSpec


class Prefilter(ABC):
    """Made once a process; must be a pure function of its arguments."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self.conf = conf

    @abstractmethod
    def apply(self, request: RequestSpec, query: CandidateQuery, facts: Facts) -> CandidateQuery:
        """Return the query with what the request implies added."""
