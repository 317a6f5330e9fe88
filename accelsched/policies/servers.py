# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers, by Nova's rule names."""

from __future__ import annotations

from accelsched.policies.base import ADMIN, PROJECT_MEMBER_OR_ADMIN, PROJECT_READER_OR_ADMIN, rule

SERVERS = "os_compute_api:servers:"
TAGS = "os_compute_api:os-server-tags:"
_ACTION = ("POST", "/servers/{server_id}/action")
_MIGRATIONS = "/servers/{server_id}/migrations"
_TAGS_PATH = "/servers/{server_id}/tags"

RULES = [
    rule(SERVERS + "index", PROJECT_READER_OR_ADMIN, "List servers", ("GET", "/servers")),
    rule(SERVERS + "detail", PROJECT_READER_OR_ADMIN, "List servers in detail", ("GET", "/servers/detail")),
    rule(SERVERS + "index:get_all_tenants", ADMIN, "List every project's servers", ("GET", "/servers")),
    rule(
        SERVERS + "detail:get_all_tenants", ADMIN, "List every project's servers in detail", ("GET", "/servers/detail")
    ),
    rule(SERVERS + "allow_all_filters", ADMIN, "Use every filter of a server list", ("GET", "/servers/detail")),
    rule(SERVERS + "show", PROJECT_READER_OR_ADMIN, "Show a server", ("GET", "/servers/{server_id}")),
    rule(
        SERVERS + "show:host_status",
        ADMIN,
        "Show a server with its host's status",
        ("GET", "/servers/{server_id}"),
        ("GET", "/servers/detail"),
    ),
    rule(
        "os_compute_api:os-extended-server-attributes",
        ADMIN,
        "Show a server with its host and other inner attributes",
        ("GET", "/servers/{server_id}"),
        ("GET", "/servers/detail"),
    ),
    rule(SERVERS + "create", PROJECT_MEMBER_OR_ADMIN, "Create a server", ("POST", "/servers")),
    rule(SERVERS + "create:forced_host", ADMIN, "Create a server on a host or node of choice", ("POST", "/servers")),
    rule(
        "compute:servers:create:requested_destination",
        ADMIN,
        "Create a server on a requested host or hypervisor_hostname (2.74)",
        ("POST", "/servers"),
    ),
    rule(
        SERVERS + "update",
        PROJECT_MEMBER_OR_ADMIN,
        "Change what a server is called and said to be",
        ("PUT", "/servers/{server_id}"),
    ),
    rule(SERVERS + "delete", PROJECT_MEMBER_OR_ADMIN, "Delete a server", ("DELETE", "/servers/{server_id}")),
    rule(SERVERS + "start", PROJECT_MEMBER_OR_ADMIN, "Start a server", _ACTION),
    rule(SERVERS + "stop", PROJECT_MEMBER_OR_ADMIN, "Stop a server", _ACTION),
    rule(SERVERS + "rebuild", PROJECT_MEMBER_OR_ADMIN, "Build a server anew from an image", _ACTION),
    rule("os_compute_api:os-rescue", PROJECT_MEMBER_OR_ADMIN, "Boot a server from another image", _ACTION),
    rule("os_compute_api:os-unrescue", PROJECT_MEMBER_OR_ADMIN, "Boot a rescued server from its own disk", _ACTION),
    rule("os_compute_api:os-shelve:shelve", PROJECT_MEMBER_OR_ADMIN, "Put a server on the shelf", _ACTION),
    rule("os_compute_api:os-shelve:shelve_offload", ADMIN, "Free the host of a server on the shelf", _ACTION),
    rule("os_compute_api:os-shelve:unshelve", PROJECT_MEMBER_OR_ADMIN, "Take a server from the shelf", _ACTION),
    rule("os_compute_api:os-shelve:unshelve_to_host", ADMIN, "Take a server from the shelf to a host (2.91)", _ACTION),
    rule(
        "os_compute_api:os-server-diagnostics",
        ADMIN,
        "Show what a server's domain does",
        ("GET", "/servers/{server_id}/diagnostics"),
    ),
    rule(
        "compute:server:topology:index",
        PROJECT_READER_OR_ADMIN,
        "Show a server's NUMA nodes (2.78)",
        ("GET", "/servers/{server_id}/topology"),
    ),
    rule(
        "compute:server:topology:host:index",
        ADMIN,
        "Show where they are on the host (2.78)",
        ("GET", "/servers/{server_id}/topology"),
    ),
    rule(
        "os_compute_api:os-remote-consoles",
        PROJECT_MEMBER_OR_ADMIN,
        "Ask for a console, of which there is none",
        ("POST", "/servers/{server_id}/remote-consoles"),
        _ACTION,
    ),
    rule(SERVERS + "create_image", PROJECT_MEMBER_OR_ADMIN, "Make an image of a server", _ACTION),
    rule("os_compute_api:os-create-backup", PROJECT_MEMBER_OR_ADMIN, "Make a backup of a server", _ACTION),
    rule("os_compute_api:os-evacuate", ADMIN, "Build a server of a lost host anew on another", _ACTION),
    rule(SERVERS + "resize", PROJECT_MEMBER_OR_ADMIN, "Resize a server", _ACTION),
    rule(SERVERS + "confirm_resize", PROJECT_MEMBER_OR_ADMIN, "Keep a resized server as it is", _ACTION),
    rule(SERVERS + "revert_resize", PROJECT_MEMBER_OR_ADMIN, "Have a resized server be what it was", _ACTION),
    rule("os_compute_api:os-migrate-server:migrate", ADMIN, "Move a server to another host", _ACTION),
    rule("os_compute_api:os-migrate-server:migrate:host", ADMIN, "Move a server to a named host (2.56)", _ACTION),
    rule("os_compute_api:os-migrate-server:migrate_live", ADMIN, "Move a server while it runs", _ACTION),
    rule(SERVERS + "migrations:index", ADMIN, "List a server's live migrations", ("GET", _MIGRATIONS)),
    rule(SERVERS + "migrations:show", ADMIN, "Show a live migration", ("GET", _MIGRATIONS + "/{migration_id}")),
    rule(
        SERVERS + "migrations:force_complete",
        ADMIN,
        "Have a live migration end soon",
        ("POST", _MIGRATIONS + "/{migration_id}/action"),
    ),
    rule(SERVERS + "migrations:delete", ADMIN, "End a live migration", ("DELETE", _MIGRATIONS + "/{migration_id}")),
    rule(SERVERS + "reboot", PROJECT_MEMBER_OR_ADMIN, "Reboot a server", _ACTION),
    rule("os_compute_api:os-pause-server:pause", PROJECT_MEMBER_OR_ADMIN, "Pause a server", _ACTION),
    rule("os_compute_api:os-pause-server:unpause", PROJECT_MEMBER_OR_ADMIN, "Unpause a server", _ACTION),
    rule("os_compute_api:os-suspend-server:suspend", PROJECT_MEMBER_OR_ADMIN, "Suspend a server", _ACTION),
    rule("os_compute_api:os-suspend-server:resume", PROJECT_MEMBER_OR_ADMIN, "Resume a server", _ACTION),
    rule("os_compute_api:os-lock-server:lock", PROJECT_MEMBER_OR_ADMIN, "Lock a server", _ACTION),
    rule("os_compute_api:os-lock-server:unlock", PROJECT_MEMBER_OR_ADMIN, "Unlock a server", _ACTION),
    rule(
        "os_compute_api:os-lock-server:unlock:unlock_override",
        ADMIN,
        "Unlock a server that an administrator locked",
        _ACTION,
    ),
    rule("os_compute_api:os-admin-actions:reset_state", ADMIN, "Reset a server's state", _ACTION),
    rule(
        "os_compute_api:os-admin-actions:inject_network_info",
        ADMIN,
        "Tell a server's guest of its networks, which does nothing here",
        _ACTION,
    ),
    rule(
        "os_compute_api:os-instance-actions:list",
        PROJECT_READER_OR_ADMIN,
        "List what was done to a server",
        ("GET", "/servers/{server_id}/os-instance-actions"),
    ),
    rule(
        "os_compute_api:os-instance-actions:show",
        PROJECT_READER_OR_ADMIN,
        "Show something that was done to a server",
        ("GET", "/servers/{server_id}/os-instance-actions/{request_id}"),
    ),
    rule(
        "os_compute_api:os-instance-actions:events",
        ADMIN,
        "Show where it was done, and what went wrong there",
        ("GET", "/servers/{server_id}/os-instance-actions/{request_id}"),
    ),
    rule(
        "os_compute_api:os-instance-actions:events:details",
        ADMIN,
        "Show why something went wrong (2.84)",
        ("GET", "/servers/{server_id}/os-instance-actions/{request_id}"),
    ),
    rule("os_compute_api:os-deferred-delete:force", PROJECT_MEMBER_OR_ADMIN, "forceDelete a server", _ACTION),
    rule("os_compute_api:os-console-output", PROJECT_MEMBER_OR_ADMIN, "Read a server's console", _ACTION),
    rule(
        "os_compute_api:server-metadata:index",
        PROJECT_READER_OR_ADMIN,
        "List a server's metadata",
        ("GET", "/servers/{server_id}/metadata"),
    ),
    rule(
        "os_compute_api:server-metadata:show",
        PROJECT_READER_OR_ADMIN,
        "Show one metadata item",
        ("GET", "/servers/{server_id}/metadata/{key}"),
    ),
    rule(
        "os_compute_api:server-metadata:create",
        PROJECT_MEMBER_OR_ADMIN,
        "Add metadata items",
        ("POST", "/servers/{server_id}/metadata"),
    ),
    rule(
        "os_compute_api:server-metadata:update_all",
        PROJECT_MEMBER_OR_ADMIN,
        "Replace a server's metadata",
        ("PUT", "/servers/{server_id}/metadata"),
    ),
    rule(
        "os_compute_api:server-metadata:update",
        PROJECT_MEMBER_OR_ADMIN,
        "Change one metadata item",
        ("PUT", "/servers/{server_id}/metadata/{key}"),
    ),
    rule(
        "os_compute_api:server-metadata:delete",
        PROJECT_MEMBER_OR_ADMIN,
        "Remove one metadata item",
        ("DELETE", "/servers/{server_id}/metadata/{key}"),
    ),
    rule(TAGS + "index", PROJECT_READER_OR_ADMIN, "List a server's tags", ("GET", _TAGS_PATH)),
    rule(TAGS + "show", PROJECT_READER_OR_ADMIN, "Tell whether a server has a tag", ("GET", _TAGS_PATH + "/{tag}")),
    rule(TAGS + "update_all", PROJECT_MEMBER_OR_ADMIN, "Replace a server's tags", ("PUT", _TAGS_PATH)),
    rule(TAGS + "update", PROJECT_MEMBER_OR_ADMIN, "Add a tag to a server", ("PUT", _TAGS_PATH + "/{tag}")),
    rule(TAGS + "delete_all", PROJECT_MEMBER_OR_ADMIN, "Remove a server's tags", ("DELETE", _TAGS_PATH)),
    rule(TAGS + "delete", PROJECT_MEMBER_OR_ADMIN, "Remove a tag from a server", ("DELETE", _TAGS_PATH + "/{tag}")),
    rule(
        "os_compute_api:os-server-password:show",
        PROJECT_READER_OR_ADMIN,
        "Show the password that a guest posted, of which there is none",
        ("GET", "/servers/{server_id}/os-server-password"),
    ),
    rule(
        "os_compute_api:os-server-password:clear",
        PROJECT_MEMBER_OR_ADMIN,
        "Forget it",
        ("DELETE", "/servers/{server_id}/os-server-password"),
    ),
    rule(
        "os_compute_api:ips:index",
        PROJECT_READER_OR_ADMIN,
        "List a server's addresses",
        ("GET", "/servers/{server_id}/ips"),
    ),
    rule(
        "os_compute_api:ips:show",
        PROJECT_READER_OR_ADMIN,
        "List a server's addresses on a network",
        ("GET", "/servers/{server_id}/ips/{network_label}"),
    ),
    rule(
        "os_compute_api:os-volumes-attachments:index",
        PROJECT_READER_OR_ADMIN,
        "List a server's volumes",
        ("GET", "/servers/{server_id}/os-volume_attachments"),
    ),
    rule(
        "os_compute_api:os-attach-interfaces:list",
        PROJECT_READER_OR_ADMIN,
        "List a server's ports",
        ("GET", "/servers/{server_id}/os-interface"),
    ),
]
