# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The resource database, by Placement's rule names, defaults and scopes."""

from __future__ import annotations

from oslo_policy import policy

from accelsched.policies.base import rule

ADMIN_OR_SERVICE = "rule:admin_or_service_api"
SERVICE = "rule:service_api"
ADMIN_OR_PROJECT_READER_OR_SERVICE = "rule:admin_or_project_reader_or_service_api"

PROVIDERS = "placement:resource_providers:"
INVENTORIES = PROVIDERS + "inventories:"
AGGREGATES = PROVIDERS + "aggregates:"
PROVIDER_TRAITS = PROVIDERS + "traits:"
PROVIDER_USAGES = PROVIDERS + "usages"
PROVIDER_ALLOCATIONS = PROVIDERS + "allocations:list"
TRAITS = "placement:traits:"
CLASSES = "placement:resource_classes:"
ALLOCATIONS = "placement:allocations:"
CANDIDATES = "placement:allocation_candidates:list"
USAGES = "placement:usages"
RESHAPE = "placement:reshaper:reshape"

_ONE = "/resource_providers/{uuid}"
_STOCK = _ONE + "/inventories"

RULES = [
    policy.RuleDefault(
        "service_api", "role:service", description="Other services of the deployment.", scope_types=["project"]
    ),
    policy.RuleDefault(
        "admin_or_service_api",
        "role:admin or role:service",
        description="Operators, and other services of the deployment.",
        scope_types=["project"],
    ),
    policy.RuleDefault(
        "admin_or_project_reader_or_service_api",
        "role:admin or (role:reader and project_id:%(project_id)s) or role:service",
        description="Operators, other services, and users who look at their own project.",
        scope_types=["project"],
    ),
    rule(PROVIDERS + "list", ADMIN_OR_SERVICE, "List resource providers", ("GET", "/resource_providers")),
    rule(PROVIDERS + "create", ADMIN_OR_SERVICE, "Create a resource provider", ("POST", "/resource_providers")),
    rule(PROVIDERS + "show", ADMIN_OR_SERVICE, "Show a resource provider", ("GET", _ONE)),
    rule(PROVIDERS + "update", ADMIN_OR_SERVICE, "Rename or move a resource provider", ("PUT", _ONE)),
    rule(PROVIDERS + "delete", ADMIN_OR_SERVICE, "Delete a resource provider", ("DELETE", _ONE)),
    rule(INVENTORIES + "list", ADMIN_OR_SERVICE, "List a provider's inventories", ("GET", _STOCK)),
    rule(INVENTORIES + "create", ADMIN_OR_SERVICE, "Add an inventory to a provider", ("POST", _STOCK)),
    rule(INVENTORIES + "show", ADMIN_OR_SERVICE, "Show one inventory", ("GET", _STOCK + "/{resource_class}")),
    rule(
        INVENTORIES + "update",
        ADMIN_OR_SERVICE,
        "Change a provider's inventories",
        ("PUT", _STOCK),
        ("PUT", _STOCK + "/{resource_class}"),
    ),
    rule(
        INVENTORIES + "delete",
        ADMIN_OR_SERVICE,
        "Delete a provider's inventories",
        ("DELETE", _STOCK),
        ("DELETE", _STOCK + "/{resource_class}"),
    ),
    rule(AGGREGATES + "list", ADMIN_OR_SERVICE, "List the aggregates a provider is in", ("GET", _ONE + "/aggregates")),
    rule(AGGREGATES + "update", ADMIN_OR_SERVICE, "Put a provider into aggregates", ("PUT", _ONE + "/aggregates")),
    rule(PROVIDER_TRAITS + "list", ADMIN_OR_SERVICE, "List a provider's traits", ("GET", _ONE + "/traits")),
    rule(PROVIDER_TRAITS + "update", ADMIN_OR_SERVICE, "Set a provider's traits", ("PUT", _ONE + "/traits")),
    rule(PROVIDER_TRAITS + "delete", ADMIN_OR_SERVICE, "Remove a provider's traits", ("DELETE", _ONE + "/traits")),
    rule(PROVIDER_USAGES, ADMIN_OR_SERVICE, "Show what is used of a provider", ("GET", _ONE + "/usages")),
    rule(
        PROVIDER_ALLOCATIONS, ADMIN_OR_SERVICE, "List what is allocated from a provider", ("GET", _ONE + "/allocations")
    ),
    rule(TRAITS + "list", ADMIN_OR_SERVICE, "List traits", ("GET", "/traits")),
    rule(TRAITS + "show", ADMIN_OR_SERVICE, "Tell whether a trait exists", ("GET", "/traits/{name}")),
    rule(TRAITS + "update", ADMIN_OR_SERVICE, "Create a custom trait", ("PUT", "/traits/{name}")),
    rule(TRAITS + "delete", ADMIN_OR_SERVICE, "Delete a custom trait", ("DELETE", "/traits/{name}")),
    rule(CLASSES + "list", ADMIN_OR_SERVICE, "List resource classes", ("GET", "/resource_classes")),
    rule(CLASSES + "create", ADMIN_OR_SERVICE, "Create a custom resource class", ("POST", "/resource_classes")),
    rule(CLASSES + "show", ADMIN_OR_SERVICE, "Show a resource class", ("GET", "/resource_classes/{name}")),
    rule(
        CLASSES + "update",
        ADMIN_OR_SERVICE,
        "Create or rename a custom resource class",
        ("PUT", "/resource_classes/{name}"),
    ),
    rule(
        CLASSES + "delete", ADMIN_OR_SERVICE, "Delete a custom resource class", ("DELETE", "/resource_classes/{name}")
    ),
    rule(ALLOCATIONS + "manage", ADMIN_OR_SERVICE, "Allocate for several consumers", ("POST", "/allocations")),
    rule(ALLOCATIONS + "list", ADMIN_OR_SERVICE, "Show what a consumer holds", ("GET", "/allocations/{consumer_uuid}")),
    rule(ALLOCATIONS + "update", ADMIN_OR_SERVICE, "Allocate for a consumer", ("PUT", "/allocations/{consumer_uuid}")),
    rule(
        ALLOCATIONS + "delete",
        ADMIN_OR_SERVICE,
        "Take everything from a consumer",
        ("DELETE", "/allocations/{consumer_uuid}"),
    ),
    rule(CANDIDATES, ADMIN_OR_SERVICE, "List allocation candidates", ("GET", "/allocation_candidates")),
    rule(USAGES, ADMIN_OR_PROJECT_READER_OR_SERVICE, "Show what a project uses of every class", ("GET", "/usages")),
    rule(RESHAPE, SERVICE, "Move inventories and allocations between providers", ("POST", "/reshaper")),
]
