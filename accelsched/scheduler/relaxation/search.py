# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The smallest sets of requirements without which a request would have found a host."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from accelsched import errors
from accelsched.placement.picture import NONE, Ints, Picture
from accelsched.scheduler import pipeline
from accelsched.scheduler.facts import Facts
from accelsched.scheduler.plugins import Plugins
from accelsched.scheduler.relaxation import requirements
from accelsched.scheduler.relaxation.requirements import Requirement, Trial
from accelsched.scheduler.request import RequestSpec

_LARGEST = 3
_MOST_SETS = 3
# Requirements that are looked at host by host: one bit each of a 64-bit number.
_MOST_BITS = 63
# Amounts up to this are looked at one by one: other groups may share a device, so that any of them may be left.
_EVERY = 4096


@dataclasses.dataclass(frozen=True)
class Relaxation:
    """One thing to do without; for an amount, how much less of it would have been enough."""

    what: str
    asked: int | None = None
    enough: int | None = None

    def __str__(self) -> str:
        """Say it in a few words."""
        return f"without {self.what}" if self.asked is None else f"{self.what} {self.asked} -> {self.enough}"


@dataclasses.dataclass(frozen=True)
class Relaxed:
    """What a search found.

    :ivar sets: the smallest, each enough by itself, at most three; none when nothing of up to three does
    :ivar complete: False when the search was cut: then there may be smaller sets, or some where none is told
    :ivar tries: decisions that were made to find out
    """

    sets: tuple[tuple[Relaxation, ...], ...]
    complete: bool
    tries: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"sets": [list(map(dataclasses.asdict, one)) for one in self.sets], "complete": self.complete}

    def __str__(self) -> str:
        """Say it in one sentence, nothing when there is nothing to say."""
        if not self.sets:
            return ""
        return "Would fit if: " + "; or ".join(" and ".join(map(str, one)) for one in self.sets) + "."


class _CutError(Exception):
    """As many tries as there may be were made."""


def search(picture: Picture, facts: Facts, request: RequestSpec, plugins: Plugins, most_tries: int) -> Relaxed:
    """Find what a request for one server, which found no host, would have to do without.

    Sets are tried by their size. First each requirement is kept alone, all others given up, to see which hosts it rules
    out whatever else is given up: a set has to have all that rule out some host, so that most need not be tried.

    :param most_tries: decisions to make at most; each costs about as much as the one that failed
    """
    filters = tuple(one for one in plugins.filters if not request.forced or one.asked_when_forced)
    trial = Trial(request, facts, Plugins(plugins.prefilters, filters, ()))
    return _Search(picture, trial, most_tries).run()


class _Search:
    def __init__(self, picture: Picture, trial: Trial, most_tries: int) -> None:
        self._picture = picture
        self._trial = trial
        self._requirements = requirements.of(trial)
        self._left = self._most = most_tries

    def run(self) -> Relaxed:
        found: list[tuple[Relaxation, ...]] = []
        try:
            needed = self._needed()
            for size in range(1, _LARGEST + 1):
                for chosen in itertools.combinations(range(len(self._requirements)), size):
                    bits = sum(1 << index for index in chosen if index < _MOST_BITS)
                    if not (needed & ~np.int64(bits) == 0).any():
                        continue
                    some = [self._requirements[index] for index in chosen]
                    amounts = {one.what: one.least for one in some}
                    if self._fits(some, amounts):
                        found.append(self._told(some, amounts))
                        if len(found) == _MOST_SETS:
                            return self._end(found, complete=True)
                if found:
                    break
        except _CutError:
            return self._end(found, complete=False)
        return self._end(found, complete=True)

    def _end(self, found: Sequence[tuple[Relaxation, ...]], *, complete: bool) -> Relaxed:
        return Relaxed(tuple(found), complete, self._most - self._left)

    def _needed(self) -> Ints:
        """Return, for each kind of host, which requirements rule it out one by one, as bits: int64[kinds]."""
        codes: Ints = np.zeros(0, dtype=np.int64)
        for index, kept in enumerate(self._requirements[:_MOST_BITS]):
            if not kept.monotone:
                continue
            others = [one for one in self._requirements if one is not kept]
            trial = self._without(others, {one.what: one.least for one in others})
            self._spend()
            try:
                allowed = pipeline.admit(self._picture, trial.facts, trial.request, trial.plugins).allowed
            except errors.InvalidError:
                continue  # says nothing alone
            codes = codes if len(codes) else np.zeros(len(allowed), dtype=np.int64)
            codes |= np.where(allowed, 0, np.int64(1) << index)
        return np.unique(codes) if len(codes) else np.zeros(1, dtype=np.int64)

    def _told(self, some: Sequence[Requirement], amounts: dict[str, int]) -> tuple[Relaxation, ...]:
        """Return what to give up, each amount as far as it has to be."""
        for one in some:
            if one.asked is not None:
                amounts[one.what] = self._most_of(one, some, amounts)
        return tuple(
            Relaxation(one.what) if one.asked is None else Relaxation(one.what, one.asked, amounts[one.what])
            for one in some
        )

    def _most_of(self, one: Requirement, some: Sequence[Requirement], amounts: Mapping[str, int]) -> int:
        """Return the most of an amount that would have been enough, the other amounts of a set being what they are."""
        values = self._values(one)
        low, high = 0, len(values) - 1  # the first is known to fit
        with contextlib.suppress(_CutError):  # then it may not be the most, but it fits
            while low < high:
                middle = (low + high + 1) // 2
                if self._fits(some, {**amounts, one.what: values[middle]}):
                    low = middle
                else:
                    high = middle - 1
        return values[low]

    def _values(self, one: Requirement) -> list[int]:
        """Return the amounts below the one asked for that could be the most that is free somewhere, rising."""
        asked = one.asked or 0
        if one.resource_class is None:
            return list(range(one.least, asked))
        columns = self._picture.classes.get(one.resource_class)
        if columns is None:
            return [one.least]
        rows = np.flatnonzero(columns.slot[: columns.size] != NONE)
        if asked <= _EVERY and (columns.step_size[rows] == 1).all():
            return list(range(one.least, asked))
        free = columns.capacity[rows] - columns.used[rows]
        # Groups that are alike may share a device.
        shares = np.concatenate([free // number for number in range(1, one.times + 1)])
        most = np.minimum(shares, np.tile(columns.max_unit[rows], one.times))
        most -= most % np.tile(columns.step_size[rows], one.times)
        return sorted({one.least, *(value for value in np.unique(most).tolist() if one.least < value < asked)})

    def _fits(self, some: Sequence[Requirement], amounts: Mapping[str, int]) -> bool:
        """Tell whether the request finds a host without some requirements. One that makes no sense finds none."""
        self._spend()
        try:
            trial = self._without(some, amounts)
            decision = pipeline.decide(self._picture, trial.facts, trial.request, 1, trial.plugins, "")
        except errors.InvalidError:
            return False
        return bool(decision.selections)

    def _without(self, some: Sequence[Requirement], amounts: Mapping[str, int]) -> Trial:
        trial = self._trial
        for one in some:
            trial = one.without(trial, amounts[one.what])
        return trial

    def _spend(self) -> None:
        if not self._left:
            raise _CutError
        self._left -= 1
