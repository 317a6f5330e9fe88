# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What the API stands on, handed to every resource at its making."""

from __future__ import annotations

import dataclasses
from typing import Any

from oslo_config import cfg

from accelsched import policies, rpc
from accelsched.db.engine import Database
from accelsched.placement import claims, provider_changes
from accelsched.placement.claims import Claim
from accelsched.placement.fleet import Fleet
from accelsched.placement.provider_changes import Change
from accelsched.placement.write_queue import WriteQueue


@dataclasses.dataclass(frozen=True)
class Services:
    """One a process, made by ``accelsched.cmd``."""

    conf: cfg.ConfigOpts
    db: Database
    fleet: Fleet
    claims: WriteQueue[Claim]
    changes: WriteQueue[Change[Any]]
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
            claims=WriteQueue(db, claims.replace_each),
            changes=WriteQueue(db, provider_changes.apply_each),
            scheduler=rpc.SchedulerClient(transport),
            agents=rpc.AgentClient(transport),
            enforcer=policies.enforcer(conf),
        )
