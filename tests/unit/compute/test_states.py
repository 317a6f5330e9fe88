# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A server's row in Nova's words."""

from __future__ import annotations

import datetime

import pytest
import sqlalchemy

from accelsched.compute import states
from accelsched.db.compute import Server

NOW = datetime.datetime(2026, 11, 24)


@pytest.mark.parametrize(
    ("state", "status", "vm_state", "task_state", "power"),
    [
        ("scheduling", "BUILD", "building", "scheduling", 0),
        ("building", "BUILD", "building", "spawning", 0),
        ("active", "ACTIVE", "active", None, 1),
        ("stopped", "SHUTOFF", "stopped", None, 4),
        ("paused", "PAUSED", "paused", None, 3),
        ("suspended", "SUSPENDED", "suspended", None, 4),
        ("rescued", "RESCUE", "rescued", None, 1),
        ("shelved", "SHELVED_OFFLOADED", "shelved_offloaded", None, 4),
        ("error", "ERROR", "error", None, 0),
    ],
)
def test_each_state_has_its_words_and_deletion_shows_as_a_task(state, status, vm_state, task_state, power):
    server = Server(state=state, desired="active", deleted_at=None)
    assert states.of(server) == states.NovaState(status, vm_state, task_state, power)
    server.desired = "deleted"
    assert states.of(server) == states.NovaState(status, vm_state, "deleting", power)
    server.deleted_at = NOW
    assert states.of(server) == states.NovaState("DELETED", "deleted", None, 0)
    assert status in states.NOVA_STATUSES


def test_an_order_shows_as_a_task_and_a_reboot_as_a_status():
    server = Server(state="active", desired="active", deleted_at=None, task="rebooting")
    assert states.of(server) == states.NovaState("REBOOT", "active", "rebooting", 1)
    server.task = "powering-off"
    assert states.of(server) == states.NovaState("ACTIVE", "active", "powering-off", 1)
    server.state, server.task = "stopped", "rebooting_hard"
    assert states.of(server).status == "SHUTOFF"


def test_a_list_filtered_by_a_state_shows_exactly_the_servers_that_show_that_state():
    rows = [
        Server(uuid=f"{state} {desired} {task} {deleted}", state=state, desired=desired, task=task, deleted_at=deleted)
        for state in (
            *("scheduling", "building", "active", "stopped", "paused", "suspended", "rescued", "shelved", "error"),
        )
        for desired, tasks in (
            ("active", [None, "powering-off", "rebooting", "rebooting_hard"]),
            ("shelved", ["shelving_offloading"]),
            ("deleted", [None]),
        )
        for task in tasks
        for deleted in (None, NOW)
    ]
    engine = sqlalchemy.create_engine("sqlite://")
    table = Server.__table__
    columns = [
        sqlalchemy.Column(name, table.c[name].type) for name in ("uuid", "state", "desired", "task", "deleted_at")
    ]
    sqlalchemy.Table("servers", sqlalchemy.MetaData(), *columns).create(engine)
    with engine.begin() as connection:
        connection.execute(
            sqlalchemy.text("INSERT INTO servers VALUES (:uuid, :state, :desired, :task, :deleted_at)"),
            [{column.name: getattr(row, column.name) for column in columns} for row in rows],
        )

        def matching(condition):
            return set(connection.scalars(sqlalchemy.select(Server.uuid).where(condition)))

        for status in states.NOVA_STATUSES:
            assert matching(states.having(status)) == {row.uuid for row in rows if states.of(row).status == status}
        for field in ("vm_state", "task_state", "power_state"):
            for value in {getattr(states.of(row), field) for row in rows}:
                expected = {row.uuid for row in rows if getattr(states.of(row), field) == value}
                if field != "vm_state":  # the others are of servers that are there
                    expected -= {row.uuid for row in rows if row.deleted_at is not None}
                assert matching(states.having_field(field, value)) == expected, (field, value)
