# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""JSON schemas that requests for different things share."""

from __future__ import annotations

from typing import Any

BOOLEAN: dict[str, Any] = {
    "enum": [
        *(True, "True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes", "y", "t"),
        *(False, "False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no", "n", "f"),
    ]
}
"""A boolean in every spelling that Nova takes."""
