# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``clouds.yaml``, by which the ``openstack`` client and openstacksdk find the stack."""

from __future__ import annotations

from pathlib import Path

import yaml

from stack import files
from stack.accounts import REGION
from stack.identity import Keystone

CLOUDS = {  # cloud: (user, project)
    "accelsched": ("admin", "admin"),
    "accelsched-demo": ("demo", "demo"),
}


def write(path: Path, keystone: Keystone) -> None:
    """Write the file, readable by its owner alone: it holds passwords."""
    clouds = {
        cloud: {
            "auth": {
                "auth_url": keystone.url,
                "username": user,
                "password": keystone.passwords.get(user),
                "project_name": project,
                "user_domain_id": "default",
                "project_domain_id": "default",
            },
            "region_name": REGION,
            "identity_api_version": 3,
        }
        for cloud, (user, project) in CLOUDS.items()
    }
    files.write(path, yaml.safe_dump({"clouds": clouds}, sort_keys=False), mode=0o600)
