# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""How many of the steps at which a process can be killed are tried: all, or the middle one of each flow.

All of them take half an hour, which CI does not have: ``ACCELSCHED_TEST_FAULTS=all``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

_Step = TypeVar("_Step")
_WHOLE = os.environ.get("ACCELSCHED_TEST_FAULTS") == "all"


def steps(flow: Sequence[_Step]) -> Sequence[_Step]:
    """Return where a flow is to be interrupted this time."""
    return flow if _WHOLE else flow[len(flow) // 2 :][:1]
