# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What servers call themselves: RFC 1123 labels of 63 characters, names of 255."""

from __future__ import annotations

from collections.abc import Sequence

from accelsched import errors

_LABEL_MAX, _NAME_MAX = 63, 255


def of_name(name: str, uuid: str) -> str:
    """Return a server's name made fit for DNS; one made of its uuid when nothing fit is left."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c == "-") else "-" for c in name.lower())
    return kept.strip("-")[:_LABEL_MAX].rstrip("-") or f"server-{uuid}"


def numbered(asked: str | None, names: Sequence[str], uuids: Sequence[str]) -> list[str]:
    """Return the host names of servers that are made together.

    :param asked: what the user wants them to be called: several servers get a number behind its first label
    :param names: of the servers, from which host names follow when none was asked for
    :raises accelsched.errors.InvalidError: when a number makes the host name too long
    """
    if asked is None:
        return [of_name(name, uuid) for name, uuid in zip(names, uuids, strict=True)]
    if len(names) == 1:
        return [asked]
    label, dot, domain = asked.partition(".")
    made = [f"{label}-{number}{dot}{domain}" for number in range(1, len(names) + 1)]
    if len(f"{label}-{len(names)}") > _LABEL_MAX or len(made[-1]) > _NAME_MAX:
        raise errors.InvalidError(f"Host name: with the number that max_count adds it is too long: {asked}")
    return made
