# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The Accelerator API, by Cyborg's rule names."""

from __future__ import annotations

from accelsched.policies.base import ADMIN, ANYBODY, PROJECT_MEMBER_OR_ADMIN, PROJECT_READER_OR_ADMIN, rule

_PROFILES, _REQUESTS = "/v2/device_profiles", "/v2/accelerator_requests"
_DEVICES, _DEPLOYABLES, _ATTRIBUTES = "/v2/devices", "/v2/deployables", "/v2/attributes"

RULES = [
    rule("cyborg:device_profile:get_all", ANYBODY, "List device profiles", ("GET", _PROFILES)),
    rule("cyborg:device_profile:get_one", ANYBODY, "Show a device profile", ("GET", _PROFILES + "/{uuid}")),
    rule("cyborg:device_profile:create", ADMIN, "Create a device profile", ("POST", _PROFILES)),
    rule(
        "cyborg:device_profile:delete",
        ADMIN,
        "Delete device profiles",
        ("DELETE", _PROFILES),
        ("DELETE", _PROFILES + "/{uuid}"),
    ),
    rule("cyborg:arq:get_all", PROJECT_READER_OR_ADMIN, "List accelerator requests", ("GET", _REQUESTS)),
    rule("cyborg:arq:get_one", PROJECT_READER_OR_ADMIN, "Show an accelerator request", ("GET", _REQUESTS + "/{uuid}")),
    rule("cyborg:arq:create", PROJECT_MEMBER_OR_ADMIN, "Make accelerator requests", ("POST", _REQUESTS)),
    rule(
        "cyborg:arq:update",
        PROJECT_MEMBER_OR_ADMIN,
        "Bind accelerator requests to servers, and unbind them",
        ("PATCH", _REQUESTS),
        ("PATCH", _REQUESTS + "/{uuid}"),
    ),
    rule(
        "cyborg:arq:delete",
        PROJECT_MEMBER_OR_ADMIN,
        "Delete accelerator requests",
        ("DELETE", _REQUESTS),
        ("DELETE", _REQUESTS + "/{uuid}"),
    ),
    rule(
        "cyborg:arq:hosts",
        ADMIN,
        "See where its device is; not a rule of Cyborg's",
        ("GET", _REQUESTS),
        ("GET", _REQUESTS + "/{uuid}"),
    ),
    rule("cyborg:device:get_all", ADMIN, "List devices", ("GET", _DEVICES)),
    rule("cyborg:device:get_one", ADMIN, "Show a device", ("GET", _DEVICES + "/{uuid}")),
    rule("cyborg:device:enable", ADMIN, "Let a device take something new again", ("POST", _DEVICES + "/{uuid}/enable")),
    rule("cyborg:device:disable", ADMIN, "Let nothing new onto a device", ("POST", _DEVICES + "/{uuid}/disable")),
    rule("cyborg:deployable:get_all", ADMIN, "List deployables", ("GET", _DEPLOYABLES)),
    rule("cyborg:deployable:get_one", ADMIN, "Show a deployable", ("GET", _DEPLOYABLES + "/{uuid}")),
    rule("cyborg:attribute:get_all", ADMIN, "List attributes of deployables", ("GET", _ATTRIBUTES)),
    rule("cyborg:attribute:get_one", ADMIN, "Show an attribute", ("GET", _ATTRIBUTES + "/{uuid}")),
    rule("cyborg:attribute:create", ADMIN, "Say something of a deployable", ("POST", _ATTRIBUTES)),
    rule("cyborg:attribute:delete", ADMIN, "Delete an attribute", ("DELETE", _ATTRIBUTES + "/{uuid}")),
]
