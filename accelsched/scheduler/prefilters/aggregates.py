# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Prefilters that turn metadata of host aggregates into aggregates of the resource database."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from accelsched.placement.candidates import CandidateQuery, RootAggregates
from accelsched.scheduler.facts import Facts
from accelsched.scheduler.prefilters.base import Prefilter
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.table import Aggregate

_ZONE = "availability_zone"
_TENANT = "filter_tenant_id"
_REQUIRED = "required"


def _with(query: CandidateQuery, wanted: RootAggregates) -> CandidateQuery:
    return dataclasses.replace(query, root_aggregates=(*query.root_aggregates, wanted))


def _uuids(aggregates: Iterable[Aggregate]) -> frozenset[str]:
    return frozenset(aggregate.uuid for aggregate in aggregates)


class ZonePrefilter(Prefilter):
    """Keeps a server in the availability zone that it asks for: Nova's map_az_to_placement_aggregate.

    The default zone is where no aggregate makes a zone; Nova leaves who asks for it by name to chance.
    """

    def apply(self, request: RequestSpec, query: CandidateQuery, facts: Facts) -> CandidateQuery:
        """Return the query with the zone's aggregates required."""
        zone = request.availability_zone
        if zone is None:
            return query
        aggregates = facts.table.aggregates
        inside = _uuids(a for a in aggregates if a.metadata.get(_ZONE) == zone)
        what = f"availability zone {zone}"
        if zone == self.conf.default_availability_zone and not inside:
            return _with(query, RootAggregates(what, none_of=_uuids(a for a in aggregates if _ZONE in a.metadata)))
        return _with(query, RootAggregates(what, any_of=inside))


class TenantAggregatePrefilter(Prefilter):
    """Keeps a project on the hosts that were set aside for it: Nova's require_tenant_aggregate."""

    def apply(self, request: RequestSpec, query: CandidateQuery, facts: Facts) -> CandidateQuery:
        """Return the query with the project's aggregates required, if it has any."""
        if not self.conf.scheduler.limit_tenants_to_placement_aggregate:
            return query
        own = _uuids(a for a in facts.table.aggregates if self._is_for(a, request.project_id))
        if not own and not self.conf.scheduler.placement_aggregate_required_for_tenants:
            return query
        return _with(query, RootAggregates(f"aggregates of project {request.project_id}", any_of=own))

    @staticmethod
    def _is_for(aggregate: Aggregate, project_id: str) -> bool:
        return any(
            key.startswith(_TENANT) and project_id in (part.strip() for part in value.split(","))
            for key, value in aggregate.metadata.items()
        )


class IsolateAggregatesPrefilter(Prefilter):
    """Keeps servers off aggregates that are for servers which require certain traits: Nova's isolate_aggregates."""

    def apply(self, request: RequestSpec, query: CandidateQuery, facts: Facts) -> CandidateQuery:
        """Return the query with the aggregates forbidden whose traits it does not all require."""
        if not self.conf.scheduler.enable_isolated_aggregate_filtering:
            return query
        asked = {trait for group in query.groups for any_of in group.required for trait in any_of}
        asked |= query.root_required
        others = _uuids(a for a in facts.table.aggregates if self._traits(a) - asked)
        if not others:
            return query
        return _with(query, RootAggregates("aggregates open to its traits", none_of=others))

    @staticmethod
    def _traits(aggregate: Aggregate) -> set[str]:
        pairs = ((key.partition(":"), value) for key, value in aggregate.metadata.items())
        return {name for (kind, _, name), value in pairs if kind == "trait" and name and value == _REQUIRED}
