# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/v1``: our own API."""

from __future__ import annotations

from accelsched.policies.base import ADMIN, PROJECT_MEMBER_OR_ADMIN, PROJECT_READER_OR_ADMIN, rule

RULES = [
    rule(
        "accelsched:picture:show",
        ADMIN,
        "Show what a process believes of the fleet",
        ("GET", "/v1/picture"),
    ),
    rule(
        "accelsched:agents:list",
        ADMIN,
        "List the agents of hosts, with the version that each understands",
        ("GET", "/v1/agents"),
    ),
    rule(
        "accelsched:devices:list",
        ADMIN,
        "List and show the devices of hosts",
        ("GET", "/v1/devices"),
        ("GET", "/v1/devices/{uuid}"),
    ),
    rule(
        "accelsched:devices:update",
        ADMIN,
        "Disable and enable devices",
        ("PATCH", "/v1/devices/{uuid}"),
    ),
    rule(
        "accelsched:placements:simulate",
        ADMIN,
        "Show where servers would go, without placing them",
        ("POST", "/v1/placements:simulate"),
    ),
    rule(
        "accelsched:servers:explanation",
        PROJECT_READER_OR_ADMIN,
        "Show why a server went where it went",
        ("GET", "/v1/servers/{server_id}/explanation"),
    ),
    rule(
        "accelsched:servers:explanation:hosts",
        ADMIN,
        "Show hosts and devices by name in it; others see an alias of each",
        ("GET", "/v1/servers/{server_id}/explanation"),
    ),
    rule(
        "accelsched:servers:accelerators:list",
        PROJECT_READER_OR_ADMIN,
        "List the accelerators of a server",
        ("GET", "/v1/servers/{server_id}/accelerators"),
    ),
    rule(
        "accelsched:servers:accelerators:hosts",
        ADMIN,
        "Show devices by name in it",
        ("GET", "/v1/servers/{server_id}/accelerators"),
    ),
    rule(
        "accelsched:servers:accelerators:attach",
        PROJECT_MEMBER_OR_ADMIN,
        "Attach an accelerator to a server",
        ("POST", "/v1/servers/{server_id}/accelerators"),
    ),
    rule(
        "accelsched:servers:accelerators:detach",
        PROJECT_MEMBER_OR_ADMIN,
        "Detach an accelerator that was attached to a server",
        ("DELETE", "/v1/servers/{server_id}/accelerators/{accelerator_id}"),
    ),
    rule(
        "accelsched:servers:programming",
        PROJECT_READER_OR_ADMIN,
        "Show how far the programming of a server's FPGA regions is, and how it went",
        ("GET", "/v1/servers/{server_id}/programming"),
    ),
    rule(
        "accelsched:servers:programming:hosts",
        ADMIN,
        "Show hosts and regions by name in it, and what executables said",
        ("GET", "/v1/servers/{server_id}/programming"),
    ),
    rule(
        "accelsched:capacity_rules:show",
        ADMIN,
        "Show how the classes of a resource provider share it",
        ("GET", "/v1/resource_providers/{uuid}/capacity_rule"),
    ),
    rule(
        "accelsched:capacity_rules:update",
        ADMIN,
        "Say how the classes of a resource provider share it",
        ("PUT", "/v1/resource_providers/{uuid}/capacity_rule"),
    ),
    rule(
        "accelsched:capacity_rules:delete",
        ADMIN,
        "Take a resource provider's capacity rule away",
        ("DELETE", "/v1/resource_providers/{uuid}/capacity_rule"),
    ),
]
