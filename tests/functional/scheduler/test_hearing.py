# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What agents said arrives once more, or after what they said later, on the three databases."""

from __future__ import annotations

import fleets
from puppets import Site
from sqlalchemy import select

from accelsched.db.compute import Host


def test_an_observation_that_arrives_after_a_later_one_is_not_taken_over(site: Site) -> None:
    (uuid,) = site.create()
    site.see(uuid, "active", said={"run": "one", "number": 1})
    site.see(uuid, "stopped", said={"run": "one", "number": 3})
    site.see(uuid, "active", said={"run": "one", "number": 2})
    assert site.server(uuid).state == "stopped"
    site.see(uuid, "active", said={"run": "one", "number": 4})
    assert site.server(uuid).state == "active"


def test_a_report_that_arrives_after_a_later_one_is_not_taken_over(site: Site) -> None:
    for number, gpus in [(1, 1), (3, 2), (2, 1)]:
        told = fleets.host_report("h0", gpus=gpus, vgpus=2)
        site.controller.report_host({}, {**told, "said": {"run": "one", "number": number}})
    with site.db.reading() as session:
        reported = session.scalars(select(Host.reported).where(Host.name == "h0")).one()
    assert len(reported) == 3
