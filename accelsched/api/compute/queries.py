# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Query strings of lists: limits, markers, sorting, booleans."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from urllib.parse import urlencode

import falcon
from oslo_utils import strutils, timeutils

from accelsched import errors
from accelsched.compute import paging

_MOST = 2**31 - 1


def parameters(req: falcon.Request) -> dict[str, list[str]]:
    """Return every parameter of the query with its values, in order."""
    return {name: value if isinstance(value, list) else [value] for name, value in req.params.items()}


def last(params: Mapping[str, list[str]], name: str) -> str | None:
    """Return a parameter's last value, as Nova does where only one makes sense."""
    return params[name][-1] if name in params else None


def check_known(params: Mapping[str, list[str]], *names: str) -> None:
    """Refuse parameters that a list does not know, as later microversions do; earlier ones leave them out.

    :raises accelsched.errors.InvalidError: naming one
    """
    for name in params:
        if name not in names:
            raise errors.InvalidError(f"Additional properties are not allowed ({name[:50]!r} was unexpected)")


def number(params: Mapping[str, list[str]], name: str) -> int | None:
    """Return a whole number from 0.

    :raises accelsched.errors.InvalidError: naming the parameter
    """
    text = last(params, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()) or int(text) > _MOST:
        raise errors.InvalidError(f"Invalid input for query parameters {name}. Value: {text[:50]}. Not a number >= 0")
    return int(text)


def limit(params: Mapping[str, list[str]], most: int) -> int:
    """Return how many items a page may have: what is asked for, never more than ``[api] max_limit``."""
    asked = number(params, "limit")
    return most if asked is None else min(asked, most)


def boolean(params: Mapping[str, list[str]], name: str) -> bool | None:
    """Return a boolean in any spelling that Nova takes.

    :raises accelsched.errors.InvalidError: naming the parameter
    """
    text = last(params, name)
    if text is None:
        return None
    try:
        value: bool = strutils.bool_from_string(text, strict=True)
    except ValueError as exc:
        raise errors.InvalidError(f"Invalid input for query parameters {name}. Value: {text[:50]}.") from exc
    return value


def moment(params: Mapping[str, list[str]], name: str) -> datetime.datetime | None:
    """Return an ISO 8601 moment as naive UTC.

    :raises accelsched.errors.InvalidError: naming the parameter
    """
    text = last(params, name)
    if text is None:
        return None
    try:
        return timeutils.normalize_time(timeutils.parse_isotime(text))
    except (ValueError, OverflowError) as exc:
        raise errors.InvalidError(
            f"Invalid input for query parameters {name}. Value: {text[:50]}. Not an ISO 8601 time"
        ) from exc


def sort(params: Mapping[str, list[str]], keys: Mapping[str, str | None], default: paging.Sort) -> paging.Sort:
    """Return the order that ``sort_key`` and ``sort_dir`` ask for.

    :param keys: a column by each key that is allowed; None for one that is the same for every row
    :raises accelsched.errors.InvalidError: naming the parameter
    """
    asked = params.get("sort_key", [])
    directions = params.get("sort_dir", [])
    for direction in directions:
        if direction not in ("asc", "desc"):
            raise errors.InvalidError(f"Invalid input for query parameters sort_dir. Value: {direction[:50]}.")
    result: list[tuple[str, paging.Direction]] = []
    for index, key in enumerate(asked):
        if key not in keys:
            raise errors.InvalidError(f"Invalid input for query parameters sort_key. Value: {key[:50]}.")
        column = keys[key]
        direction = directions[min(index, len(directions) - 1)] if directions else "desc"
        if column is not None and column not in {column for column, _ in result}:
            result.append((column, "asc" if direction == "asc" else "desc"))
    if not asked and directions and default:
        return [(key, "asc" if directions[0] == "asc" else "desc") for key, _ in default]
    return result if asked else default


def next_link(req: falcon.Request, path: str, marker: str) -> dict[str, str]:
    """Return the link to the page after the item ``marker``, everything else of the query kept."""
    kept = [(name, value) for name, values in parameters(req).items() for value in values if name != "marker"]
    return {"rel": "next", "href": f"{req.prefix}{path}?{urlencode([*kept, ('marker', marker)])}"}
