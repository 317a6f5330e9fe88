# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Policies by name: which of the scheduler's weighers are asked, and whether a plan is made.

The prefilters and filters are the configuration's, ``[scheduler] prefilters`` and ``filters``, for every policy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

DEFAULT = "planned"


@dataclasses.dataclass(frozen=True)
class Policy:
    """``weighers``: names in ``accelsched.scheduler.weighers``, None for those of the configuration."""

    weighers: tuple[str, ...] | None
    planned: bool = False


POLICIES: Mapping[str, Policy] = {
    "best-fit": Policy(("BestFitWeigher",)),
    "fgd": Policy(("FragmentationWeigher",)),
    "planned": Policy(("PlannedWeigher", "FragmentationWeigher"), planned=True),
    "configured": Policy(None),
}
