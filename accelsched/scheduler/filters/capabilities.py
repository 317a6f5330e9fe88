# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts whose attributes meet the flavor's extra specs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from accelsched.placement.picture import Mask
from accelsched.scheduler import attributes
from accelsched.scheduler.filters.base import Filter
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.operators import matches
from accelsched.scheduler.request import RequestSpec

_SCOPE = "capabilities"


class ComputeCapabilitiesFilter(Filter):
    """Extra specs ``capabilities:NAME`` are met by the host's attribute NAME, as :mod:`attributes` has them.

    ``capabilities:cpu_info:arch`` leads into an attribute. An extra spec without a scope counts as well if hosts have
    an attribute of that name, and means nothing otherwise, as in Nova.
    """

    once_per_request = True

    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Match every such extra spec, by the operators of :mod:`operators`: bool[len(hosts)]."""
        passes = np.ones(len(hosts), dtype=np.bool_)
        for key, wanted in request.flavor["extra_specs"].items():
            scope, colon, rest = key.partition(":")
            if colon and scope != _SCOPE:
                continue
            column = attributes.column(hosts, *(rest if colon else key).split(":"))
            if not colon and column.dtype == object and all(value is None for value in column):
                continue
            passes &= _matching(column, wanted)
        return passes

    def reason(self, request: RequestSpec) -> str:
        """Name the extra specs."""
        specs = request.flavor["extra_specs"].items()
        asked = ", ".join(f"{key} {value}" for key, value in specs if key.startswith(f"{_SCOPE}:"))
        return f"the host's capabilities are not {asked}"


def _matching(column: attributes.Column, wanted: str) -> Mask:
    # Many hosts have the same value: each is matched once.
    verdicts: dict[str, bool] = {}

    def verdict(value: Any) -> bool:
        if value is None:
            return False
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        if text not in verdicts:
            verdicts[text] = matches(text, wanted)
        return verdicts[text]

    return np.fromiter((verdict(value) for value in column.tolist()), dtype=np.bool_, count=len(column))
