# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Naming a server on the command line."""

from __future__ import annotations

import argparse
import uuid
from typing import Any


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a server."""
    parser.add_argument("server", metavar="<server>", help="Server (name or ID)")


def find(manager: Any, named: str) -> str:
    """Return the id of a server.

    :param manager: osc-lib's client manager
    :param named: its id, or its name, which takes a look at the Compute API
    """
    try:
        return str(uuid.UUID(named))
    except ValueError:
        found: str = manager.compute.find_server(named, ignore_missing=False).id
        return found
