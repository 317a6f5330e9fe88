# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Filters that compare a request with the metadata of the aggregates that a host is in.

Values of several aggregates, and values with commas in them, are alternatives.
"""

from __future__ import annotations

from accelsched.scheduler.filters.base import AggregateFilter
from accelsched.scheduler.operators import matches
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.table import Metadata

_SCOPE = "aggregate_instance_extra_specs"
# Extra specs without a scope that say something else.
_NOT_OURS = frozenset({"group_policy", "hide_hypervisor_id"})
_TENANT = "filter_tenant_id"
_TYPE = "instance_type"


class AggregateImagePropertiesIsolation(AggregateFilter):
    """Where an aggregate has metadata under the name of a property of the image, it has that property's value."""

    run_on_rebuild = True

    def aggregates_pass(self, metadata: Metadata, request: RequestSpec) -> bool:
        """Compare each key that the image has too."""
        options = self.conf.filter_scheduler
        namespace = options.aggregate_image_properties_isolation_namespace
        prefix = namespace + options.aggregate_image_properties_isolation_separator if namespace else ""
        properties = request.image_properties
        return all(
            properties[key] in values
            for key, values in metadata.items()
            if key.startswith(prefix) and key in properties
        )

    def reason(self, request: RequestSpec) -> str:
        """Say so."""
        return "the host's aggregates are for images with other properties"


class AggregateInstanceExtraSpecsFilter(AggregateFilter):
    """Aggregates' metadata meets extra specs ``aggregate_instance_extra_specs:KEY``, and those without a scope."""

    def aggregates_pass(self, metadata: Metadata, request: RequestSpec) -> bool:
        """Match every such extra spec, by the operators of :mod:`accelsched.scheduler.operators`."""
        return all(
            any(matches(value, wanted) for value in metadata.get(key, ()))
            for key, wanted in self._wanted(request).items()
        )

    def reason(self, request: RequestSpec) -> str:
        """Name the extra specs."""
        wanted = ", ".join(f"{key}={value}" for key, value in self._wanted(request).items())
        return f"no aggregate of the host has {wanted}"

    @staticmethod
    def _wanted(request: RequestSpec) -> dict[str, str]:
        wanted: dict[str, str] = {}
        for key, value in request.flavor["extra_specs"].items():
            scope, colon, rest = key.partition(":")
            if not colon and key not in _NOT_OURS:
                wanted[key] = value
            elif scope == _SCOPE:
                wanted[rest] = value
        return wanted


class AggregateMultiTenancyIsolation(AggregateFilter):
    """Aggregates with metadata ``filter_tenant_id*`` take these projects' servers only."""

    def aggregates_pass(self, metadata: Metadata, request: RequestSpec) -> bool:
        """Look for the project among those that are named, if any is."""
        named = [values for key, values in metadata.items() if key.startswith(_TENANT)]
        return not named or any(request.project_id in values for values in named)

    def reason(self, request: RequestSpec) -> str:
        """Say so."""
        return "the host is kept for other projects"


class AggregateTypeAffinityFilter(AggregateFilter):
    """Aggregates with metadata ``instance_type`` take servers of these flavors only."""

    def aggregates_pass(self, metadata: Metadata, request: RequestSpec) -> bool:
        """Look for the flavor's name among those that are named, if any is."""
        named = metadata.get(_TYPE)
        return named is None or request.flavor["name"] in named

    def reason(self, request: RequestSpec) -> str:
        """Say so."""
        return f"the host is kept for other flavors than {request.flavor['name']}"
