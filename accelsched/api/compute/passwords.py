# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Passwords of guests' administrators (``adminPass``), which Nova makes up for who gives none."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from oslo_config import cfg

_LENGTH = 12
# One of each is in every password; without letters and digits that are taken for one another.
_KINDS = ("23456789", "ABCDEFGHJKLMNPQRSTUVWXYZ", "abcdefghijkmnopqrstuvwxyz")


def given_or_made(wanted: Mapping[str, Any], conf: cfg.ConfigOpts) -> str | None:
    """Return the password that guests are to be told.

    :param wanted: ``adminPass`` in it is used as it is
    :returns: None where nobody gave one, and the deployment makes none up
    """
    given: str | None = wanted.get("adminPass")
    return given or (_made() if conf.api.enable_instance_password else None)


def shown(password: str | None, conf: cfg.ConfigOpts) -> dict[str, str]:
    """Return what an answer says of a password."""
    return {"adminPass": password} if password is not None and conf.api.enable_instance_password else {}


def _made() -> str:
    drawn = [secrets.choice(kind) for kind in _KINDS]
    drawn += [secrets.choice("".join(_KINDS)) for _ in range(_LENGTH - len(_KINDS))]
    secrets.SystemRandom().shuffle(drawn)
    return "".join(drawn)
