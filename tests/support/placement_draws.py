# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Draws from hypothesis, as generators of requests need them; everything shrinks to the first or the smallest."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


@functools.lru_cache
def _integers(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high)


class Draw:
    """What a composite strategy's ``draw`` can do, in words."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        """Draw by this function."""
        self.strategy = draw

    def number(self, low: int, high: int) -> int:
        """Return a number, both ends included."""
        number: int = self.strategy(_integers(low, high))
        return number

    def chance(self, percent: int) -> bool:
        """Return True so often; False is simpler."""
        return self.number(0, 99) >= 100 - percent

    def pick(self, items: Sequence[T]) -> T:
        """Return one of the items; repeat one to have it more often."""
        return items[self.number(0, len(items) - 1)]

    def some(self, items: Sequence[T], at_most: int, at_least: int = 0) -> list[T]:
        """Return some different items."""
        left = list(items)
        count = self.number(at_least, min(at_most, len(left)))
        return [left.pop(self.number(0, len(left) - 1)) for _ in range(count)]
