# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The unmodified ``openstack`` client: a process for each command."""

from __future__ import annotations

import os
from pathlib import Path

import forked


def run(clouds_yaml: Path, *arguments: str) -> forked.Ended:
    """Run ``openstack ARGUMENTS`` with the clouds of this file and nothing else of OpenStack's in the environment."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
    environment |= {"OS_CLIENT_CONFIG_FILE": str(clouds_yaml), "HOME": str(clouds_yaml.parent)}
    return forked.ended("openstack", *arguments, environment=environment, where=clouds_yaml.parent)
