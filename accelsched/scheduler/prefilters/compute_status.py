# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts that an operator disabled get nothing new."""

from __future__ import annotations

import dataclasses

import os_traits

from accelsched.placement.candidates import CandidateQuery
from accelsched.scheduler.facts import Facts
from accelsched.scheduler.prefilters.base import Prefilter
from accelsched.scheduler.request import RequestSpec


class ComputeStatusPrefilter(Prefilter):
    """Forbids COMPUTE_STATUS_DISABLED at the host, as Nova's compute_status_filter does."""

    def apply(self, request: RequestSpec, query: CandidateQuery, facts: Facts) -> CandidateQuery:
        """Return the query with the trait forbidden."""
        return dataclasses.replace(query, root_forbidden=query.root_forbidden | {os_traits.COMPUTE_STATUS_DISABLED})
