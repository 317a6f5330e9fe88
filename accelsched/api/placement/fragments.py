# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Providers of the fleet picture as JSON that is made once for each state of a provider, not once a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import orjson

from accelsched.placement.columns import grown
from accelsched.placement.picture import Ints, Picture

# What is kept of one form of one fleet; providers beyond are rendered each time. Some 700 bytes each.
_MOST = 1 << 17


class Fragments:
    """One form of providers. Used while the picture is held, so by one thread at a time."""

    def __init__(self, render: Callable[[Picture, int], object]) -> None:
        """Keep how a provider, given by its slot, is rendered."""
        self._render = render
        self._picture: Picture | None = None
        self._made: Ints = np.zeros(0, dtype=np.int64)  # version of the slot that its fragment shows
        self._fragments: list[orjson.Fragment | None] = []

    def of(self, picture: Picture, slots: Sequence[int]) -> list[orjson.Fragment | None]:
        """Return the JSON of some providers, to be put into a larger document."""
        if self._picture is not picture:
            self._picture, self._made, self._fragments = picture, np.zeros(0, dtype=np.int64), []
        kept = min(picture.slots, _MOST)
        self._made = grown(self._made, kept)
        self._fragments += [None] * (kept - len(self._fragments))
        asked = np.array(slots, dtype=np.int64)
        inside = asked < kept
        known = asked[inside]
        for slot in known[self._made[known] != picture.version[known]].tolist():
            self._fragments[slot] = self._fragment(picture, slot)
        self._made[known] = picture.version[known]
        return [self._fragments[slot] if slot < kept else self._fragment(picture, slot) for slot in slots]

    def _fragment(self, picture: Picture, slot: int) -> orjson.Fragment:
        # A copy, because orjson hands out its whole buffer, several kB, with every small document.
        return orjson.Fragment(bytes(memoryview(orjson.dumps(self._render(picture, slot)))))
