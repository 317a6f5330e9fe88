# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Key pairs, by Nova's rule names: a user's own, or anybody's for operators."""

from __future__ import annotations

from accelsched.policies.base import ADMIN, rule

KEY_PAIRS = "os_compute_api:os-keypairs:"
_ADMIN_OR_OWNER = f"({ADMIN}) or user_id:%(user_id)s"

RULES = [
    rule(KEY_PAIRS + "index", _ADMIN_OR_OWNER, "List key pairs", ("GET", "/os-keypairs")),
    rule(KEY_PAIRS + "show", _ADMIN_OR_OWNER, "Show a key pair", ("GET", "/os-keypairs/{keypair_name}")),
    rule(KEY_PAIRS + "create", _ADMIN_OR_OWNER, "Create or import a key pair", ("POST", "/os-keypairs")),
    rule(KEY_PAIRS + "delete", _ADMIN_OR_OWNER, "Delete a key pair", ("DELETE", "/os-keypairs/{keypair_name}")),
]
