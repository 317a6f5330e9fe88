# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Changes of resource providers that may share a transaction: a new one, all its inventories, all its traits.

What they need is locked and read together, each is decided by itself, and what was decided is written together
(:mod:`accelsched.placement.provider_rows`). What a kind of change asks for and decides stands where its subject is:
:mod:`providers <accelsched.placement.providers>`, :mod:`inventories <accelsched.placement.inventories>` and
:mod:`traits <accelsched.placement.traits>`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, TypeVar

from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.db import feed
from accelsched.db.base import utcnow
from accelsched.placement import classes, provider_rows
from accelsched.placement.provider_rows import Draft, Needs, State

R_co = TypeVar("R_co", covariant=True)

Finish = Callable[[Mapping[str, int]], R_co]
"""Makes the result of a change, from the ids of what was created by uuid."""


class Change(abc.ABC, Generic[R_co]):
    """Changes one provider; its result is an R."""

    @property
    @abc.abstractmethod
    def subjects(self) -> Collection[str]:
        """The providers and names that it is about. No two changes of a transaction have one in common."""

    @abc.abstractmethod
    def ask(self, needs: Needs) -> None:
        """Say what has to be known."""

    @abc.abstractmethod
    def decide(self, session: Session, state: State, draft: Draft) -> Finish[R_co]:
        """Add what is to be written to the draft, or nothing.

        :raises accelsched.errors.AccelschedError: it is refused
        """

    def settle(self, session: Session, state: State) -> None:
        """Do what can only be done when it is written."""


def apply(session: Session, change: Change[R_co]) -> R_co:
    """Make one change.

    :raises accelsched.errors.AccelschedError: it is refused
    """
    (outcome,) = apply_each(session, [change])
    if isinstance(outcome, errors.AccelschedError):
        raise outcome
    result: R_co = outcome
    return result


def apply_each(session: Session, changes: Sequence[Change[Any]]) -> list[Any]:
    """Make several changes. One that is refused changes nothing.

    :returns: for each its result, or why it was refused
    :raises accelsched.errors.LostRaceError: another transaction was quicker
    """
    needs = Needs()
    for change in changes:
        change.ask(needs)
    connection = session.connection()
    state = provider_rows.read(connection, needs)
    state.classes = classes.known_ids(session, needs.classes)
    draft = Draft(utcnow())
    outcomes: list[Any] = []
    decided: list[int] = []
    for number, change in enumerate(changes):
        try:
            outcomes.append(change.decide(session, state, draft))
            decided.append(number)
        except errors.AccelschedError as exc:
            outcomes.append(exc)
    ids = provider_rows.write(connection, draft)
    feed.touch(session, [*ids.values(), *draft.advanced])
    for number in decided:
        changes[number].settle(session, state)
        outcomes[number] = outcomes[number](ids)
    return outcomes
