# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Giving accelerators to servers that are there: chosen as a scheduler does, claimed, their agents told."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from accelsched import errors, wire
from accelsched.api.compute.servers import hint
from accelsched.compute.accelerators import Chosen, Wanted, suffix_of
from accelsched.db.compute import Server
from accelsched.failpoints import Point, reach
from accelsched.scheduler import request as scheduler_request

if TYPE_CHECKING:
    from accelsched.api.deciding import Deciding
    from accelsched.api.services import Services

Told = tuple[str, str]
"""An agent, and a host of its to be told of."""

_ATTEMPTS = 5  # at devices that others were quicker with


class Attaching:
    """One an API."""

    def __init__(self, services: Services, deciding: Deciding) -> None:
        self._services = services
        self._deciding = deciding

    def attach(
        self,
        look: Callable[[Session], tuple[Server, Sequence[Wanted]]],
        write: Callable[[Session, Sequence[Chosen]], Iterable[Told]],
    ) -> None:
        """Choose devices, claim them, and tell the server's agent; again when somebody else was quicker.

        :param look: returns the server and what it is to have, in a transaction; nothing when it has that already
        :param write: claims what was chosen, in another, and returns whom to tell
        :raises accelsched.errors.ConflictError: when there is no such device
        """
        for attempts_left in reversed(range(_ATTEMPTS)):
            server, wanted = self._services.db.transact(look)
            if not wanted:
                return
            chosen = self._choose(server, wanted)
            try:
                self.change(lambda session: write(session, chosen))  # noqa: B023 - called here
            except errors.CapacityExceededError:
                if not attempts_left:
                    raise
            else:
                return

    def change(self, change: Callable[[Session], Iterable[Told]]) -> None:
        """Change what servers are to have, in a transaction, and tell their agents.

        :param change: returns whom to tell
        """

        def write(session: Session) -> list[Told]:
            told = list(change(session))
            reach(Point.API_ACTION_WRITTEN)
            return told

        each = self._services.db.transact(write)
        reach(Point.API_ACTION_COMMITTED)
        for agent, host in each:
            hint("sync", lambda: self._services.agents.sync(agent, [host]))  # noqa: B023 - called here

    def _choose(self, server: Server, wanted: Sequence[Wanted]) -> list[Chosen]:
        """Choose devices on a server's host as a scheduler does.

        :raises accelsched.errors.ConflictError: when there are none
        """
        specs = {key: value for one in wanted for key, value in one.extra_specs.items()}
        flavor: wire.FlavorSpec = {
            **{"name": server.flavor["name"], "vcpus": 0, "ram_mb": 0, "disk_gb": 0},  # type: ignore[typeddict-item]
            "extra_specs": specs,
        }
        providers = {suffix_of(one.id): one.provider for one in wanted if one.provider is not None}
        spec = scheduler_request.build(
            flavor, None, project_id=server.project_id, host=server.host, providers=providers
        )
        decision = self._deciding.decider().decide(spec, 1, secrets.token_hex(8))
        if not decision.selections:
            names = ", ".join(sorted(set(providers.values())))
            named = f", or not of the devices that were named ({names})" if names else ""
            raise errors.ConflictError(
                f"The host of instance {server.uuid} has no such accelerator for it{named}: "
                f"{decision.explanation.failure}"
            )
        (selection,) = decision.selections
        chosen = []
        for one in wanted:
            devices = [device for device in selection.devices if device["group"] == suffix_of(one.id)]
            if any(device["provider_uuid"] == server.node_uuid for device in devices):
                raise errors.ConflictError("What is asked for is given by the host itself, not by a device")
            amounts = {device["provider_uuid"]: device["resources"] for device in devices}
            chosen.append(Chosen(one.id, selection.host.name, one.extra_specs, devices, amounts))
        return chosen
