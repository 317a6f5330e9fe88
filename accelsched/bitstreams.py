# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a flavor says is to be in an FPGA region before its server gets it.

``accel:bitstream_id=IMAGE`` or ``accel:function_id=UUID``, as in Cyborg's device profiles. What is said of a request
group has its suffix, as its resources have: ``accel1:function_id`` goes with ``resources1:FPGA``.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import os_resource_classes as orc

from accelsched import errors

Kind = Literal["bitstream_id", "function_id"]

_KEY = re.compile(r"accel(?P<suffix>[A-Za-z0-9_-]{0,64}):(?P<kind>bitstream_id|function_id)")
_UUID = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class Wanted:
    """Which bitstream a region is to be programmed with."""

    kind: Kind  # bitstream_id: an image; function_id: the one image that has this function
    value: str  # a uuid


def asked(extra_specs: Mapping[str, str]) -> dict[str, Wanted]:
    """Return what extra specs ask to be programmed, by the suffix of the request group.

    :raises accelsched.errors.InvalidError: naming the extra spec that is wrong
    """
    found: dict[str, Wanted] = {}
    for key, value in sorted(extra_specs.items()):
        match = _KEY.fullmatch(key)
        if match is None:
            continue
        suffix = match["suffix"]
        if suffix in found:
            raise errors.InvalidError(f"extra spec {key}: one of bitstream_id and function_id is enough")
        if f"resources{suffix}:{orc.FPGA}" not in extra_specs:
            raise errors.InvalidError(f"extra spec {key}: there is no resources{suffix}:{orc.FPGA} that it belongs to")
        canonical = uuid_of(value)
        if canonical is None:
            raise errors.InvalidError(f"extra spec {key}: {value[:100]!r} is not a UUID")
        kind: Kind = "bitstream_id" if match["kind"] == "bitstream_id" else "function_id"
        found[suffix] = Wanted(kind, canonical)
    return found


def uuid_of(text: object) -> str | None:
    """Return the canonical form of a uuid written with or without hyphens; None when it is none."""
    if not isinstance(text, str) or not _UUID.fullmatch(text):
        return None
    return str(uuid.UUID(text))
