# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/allocation_candidates``."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import falcon
import numpy as np

from accelsched.api.placement import candidate_query, handler
from accelsched.api.placement.allocation_schemas import BY_PROVIDER, MAPPINGS
from accelsched.api.placement.fragments import Fragments
from accelsched.api.placement.handler import minor_of, serves
from accelsched.api.placement.query import Query
from accelsched.api.services import Services
from accelsched.placement import candidates, search
from accelsched.placement.candidates import Candidate, CandidateQuery
from accelsched.placement.picture import NONE, Picture
from accelsched.policies import placement as rules

# From which minor version on:
_TRAITS = 17
_ALL_CLASSES = 27
_TREES = 29


class AllocationCandidates(handler.Resource):
    """``/allocation_candidates``."""

    def __init__(self, services: Services) -> None:
        """Keep summaries of the newest form, which is what nearly everybody asks for."""
        super().__init__(services)
        self._summaries = Fragments(lambda picture, slot: _summary(picture, slot, None, _TREES))

    @serves(rules.CANDIDATES, since=candidate_query.SINCE, gives_json=True)
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the ways to serve a request."""
        minor = minor_of(req)
        wanted = candidate_query.parse(Query.of(req), minor)
        self._check_names(wanted)
        with self.services.fleet.reading() as picture:
            found = _find(picture, wanted, minor)
            shown = {
                "allocation_requests": [_request(picture, candidate, minor) for candidate in found],
                "provider_summaries": self._summaries_of(picture, wanted, found, minor),
            }
        handler.send(req, resp, shown)

    def _check_names(self, wanted: CandidateQuery) -> None:
        named = (frozenset().union(group.forbidden, *group.required) for group in wanted.groups)
        search.check_names(
            self.services.db,
            classes={name for group in wanted.groups for name in group.resources},
            traits=frozenset().union(wanted.root_required, wanted.root_forbidden, *named),
        )

    def _summaries_of(
        self, picture: Picture, wanted: CandidateQuery, found: Sequence[Candidate], minor: int
    ) -> dict[str, Any]:
        """Return the providers of all trees that something would come from; before there were trees, those alone."""
        used = np.fromiter((slot for candidate in found for slot, _ in candidate.amounts), dtype=np.int64)
        if minor >= _TREES:
            roots = np.unique(picture.root[used]).tolist()
            slots = [slot for root in roots for slot in picture.tree[root]]
            fragments = self._summaries.of(picture, slots)
            return dict(zip((picture.uuid[slot] for slot in slots), fragments, strict=True))
        names = None if minor >= _ALL_CLASSES else {name for group in wanted.groups for name in group.resources}
        return {picture.uuid[slot]: _summary(picture, slot, names, minor) for slot in np.unique(used).tolist()}


def _find(picture: Picture, wanted: CandidateQuery, minor: int) -> Sequence[Candidate]:
    if minor >= _TREES:
        return candidates.find(picture, wanted)
    # Clients of then know no trees: what spreads over one cannot be told to them.
    found = candidates.find(picture, dataclasses.replace(wanted, limit=None))
    single = (
        candidate
        for candidate in found
        if len(slots := {slot for slot, _ in candidate.amounts}) == len({int(picture.root[slot]) for slot in slots})
    )
    return list(itertools.islice(single, wanted.limit))


def _request(picture: Picture, candidate: Candidate, minor: int) -> dict[str, Any]:
    by_provider: dict[str, dict[str, int]] = {}
    for (slot, name), amount in candidate.amounts.items():
        by_provider.setdefault(picture.uuid[slot], {})[name] = amount
    if minor < BY_PROVIDER:
        return {
            "allocations": [
                {"resource_provider": {"uuid": uuid}, "resources": resources} for uuid, resources in by_provider.items()
            ]
        }
    shown: dict[str, Any] = {"allocations": {uuid: {"resources": resources} for uuid, resources in by_provider.items()}}
    if minor >= MAPPINGS:
        shown["mappings"] = {
            suffix: [picture.uuid[slot] for slot in slots] for suffix, slots in candidate.mappings.items()
        }
    return shown


def _summary(picture: Picture, slot: int, names: set[str] | None, minor: int) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "resources": {
            name: {"capacity": int(columns.capacity[row]), "used": int(columns.used[row])}
            for name, columns in picture.classes.items()
            if (names is None or name in names) and (row := columns.row_of(slot)) != NONE
        }
    }
    if minor >= _TRAITS:
        shown["traits"] = sorted(picture.traits.names(slot))
    if minor >= _TREES:
        parent = int(picture.parent[slot])
        shown["parent_provider_uuid"] = None if parent == NONE else picture.uuid[parent]
        shown["root_provider_uuid"] = picture.uuid[int(picture.root[slot])]
    return shown
