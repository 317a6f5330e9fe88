# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What the API stands on, handed to every resource at its making."""

from __future__ import annotations

import dataclasses
from typing import Any

from oslo_config import cfg

from accelsched import policies, rpc
from accelsched.db.engine import Database
from accelsched.placement.claim_queue import ClaimQueue
from accelsched.placement.fleet import Fleet


@dataclasses.dataclass(frozen=True)
class Services:
    """One a process, made by ``accelsched.cmd``."""

    conf: cfg.ConfigOpts
    db: Database
    fleet: Fleet
    claims: ClaimQueue
    scheduler: rpc.SchedulerClient
    agents: rpc.AgentClient
    enforcer: policies.Enforcer

    @classmethod
    def over(cls, conf: cfg.ConfigOpts, db: Database, fleet: Fleet, transport: Any) -> Services:
        """Return what the API stands on, over a database, its picture and a messaging transport.

        :raises accelsched.errors.ConfigurationError: when an option is wrong
        """
        return cls(
            conf=conf,
            db=db,
            fleet=fleet,
            claims=ClaimQueue(db),
            scheduler=rpc.SchedulerClient(transport),
            agents=rpc.AgentClient(transport),
            enforcer=policies.enforcer(conf),
        )
