# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts that meet a condition which the user writes: ``["and", [">=", "$free_ram_mb", 1024], ...]``."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson

from accelsched import errors
from accelsched.placement.picture import Mask
from accelsched.scheduler import attributes
from accelsched.scheduler.filters.base import Filter
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.request import RequestSpec

_DEEPEST = 16
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
_OPERATORS = frozenset({*_COMPARISONS, "in", "not", "or", "and"})


class JsonFilter(Filter):
    """Obeys hint ``query``: a list of an operator (``= < > <= >= in not or and``) and its arguments.

    An argument is a value, a list of that kind, or ``$NAME`` for an attribute of the host (``$free_ram_mb``), as
    :mod:`accelsched.scheduler.attributes` has them. A comparison with what a host does not have, or of a word with a
    number, is false.
    """

    def mask(self, hosts: Hosts, request: RequestSpec) -> Mask:
        """Evaluate the query over all hosts at once: bool[len(hosts)]."""
        query = parse(request.hints.get("query"))
        return np.ones(len(hosts), dtype=np.bool_) if query is None else _evaluate(query, hosts)

    def reason(self, request: RequestSpec) -> str:
        """Repeat the query."""
        return f"does not meet the query {orjson.dumps(parse(request.hints.get('query'))).decode()[:200]}"


def parse(query: Any) -> list[Any] | None:
    """Return a query as lists; None when it asks nothing.

    :param query: JSON as a text, or already read
    :raises accelsched.errors.InvalidError: saying what is wrong with it
    """
    if isinstance(query, str):
        try:
            query = orjson.loads(query)
        except orjson.JSONDecodeError as exc:
            raise errors.InvalidError(f"scheduler hint query: not JSON: {exc}") from exc
    if query in (None, [], {}, ""):
        return None
    _check(query, 0)
    checked: list[Any] = query
    return checked


def _check(query: Any, depth: int) -> None:
    if depth > _DEEPEST:
        raise errors.InvalidError(f"scheduler hint query: deeper than {_DEEPEST}")
    if not isinstance(query, list) or not query or not isinstance(query[0], str) or query[0] not in _OPERATORS:
        raise errors.InvalidError(
            f"scheduler hint query: {str(query)[:100]} is not a list that begins with one of {sorted(_OPERATORS)}"
        )
    for argument in query[1:]:
        if isinstance(argument, list) or query[0] in ("not", "or", "and"):
            _check(argument, depth + 1)
        elif not isinstance(argument, str | int | float):
            raise errors.InvalidError(f"scheduler hint query: {str(argument)[:100]} is neither text nor number")


def _evaluate(query: Sequence[Any], hosts: Hosts) -> Mask:
    name, *arguments = query
    nothing = np.zeros(len(hosts), dtype=np.bool_)
    match name:
        case "not":
            # Of several, Nova takes the list of negations as true when it is not empty; the first is what is meant.
            return ~_evaluate(arguments[0], hosts) if arguments else nothing
        case "and":
            return functools.reduce(np.logical_and, (_evaluate(a, hosts) for a in arguments), ~nothing)
        case "or":
            return functools.reduce(np.logical_or, (_evaluate(a, hosts) for a in arguments), nothing)
    if len(arguments) < 2:
        return nothing
    first, *others = (_values(argument, hosts) for argument in arguments)
    if name == "in":
        return functools.reduce(np.logical_or, (_compare(operator.eq, first, other) for other in others), nothing)
    return functools.reduce(np.logical_and, (_compare(_COMPARISONS[name], first, o) for o in others), ~nothing)


def _values(argument: Any, hosts: Hosts) -> Any:
    if isinstance(argument, list):
        return _evaluate(argument, hosts)
    if isinstance(argument, str) and argument.startswith("$"):
        return attributes.column(hosts, *argument[1:].split("."))
    return np.full(len(hosts), argument, dtype=object if isinstance(argument, str) else np.float64)


def _compare(compare: Callable[[Any, Any], Any], left: Any, right: Any) -> Mask:
    if object not in (left.dtype, right.dtype):
        result: Mask = compare(left, right)
        return result

    def one(a: Any, b: Any) -> bool:
        try:
            return a is not None and b is not None and bool(compare(a, b))
        except TypeError:
            return False

    return np.fromiter(map(one, left.tolist(), right.tolist()), dtype=np.bool_, count=len(left))
