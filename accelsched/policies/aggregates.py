# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Host aggregates, by Nova's rule names."""

from __future__ import annotations

from accelsched.policies.base import ADMIN, rule

AGGREGATES = "os_compute_api:os-aggregates:"

_ONE = "/os-aggregates/{aggregate_id}"

RULES = [
    rule(AGGREGATES + "index", ADMIN, "List host aggregates", ("GET", "/os-aggregates")),
    rule(AGGREGATES + "create", ADMIN, "Create an aggregate", ("POST", "/os-aggregates")),
    rule(AGGREGATES + "show", ADMIN, "Show an aggregate", ("GET", _ONE)),
    rule(AGGREGATES + "update", ADMIN, "Rename an aggregate or change its zone", ("PUT", _ONE)),
    rule(AGGREGATES + "delete", ADMIN, "Delete an aggregate", ("DELETE", _ONE)),
    rule(AGGREGATES + "set_metadata", ADMIN, "Set an aggregate's metadata", ("POST", _ONE + "/action")),
    rule(AGGREGATES + "add_host", ADMIN, "Put a host into an aggregate", ("POST", _ONE + "/action")),
    rule(AGGREGATES + "remove_host", ADMIN, "Take a host out of an aggregate", ("POST", _ONE + "/action")),
    rule("compute:aggregates:images", ADMIN, "Ask hosts to fetch images early", ("POST", _ONE + "/images")),
]
