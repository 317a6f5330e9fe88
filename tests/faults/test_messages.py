# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Messages are lost, unanswered, doubled and late: what was asked for happens, and nothing is left over."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from cloud import Cloud

from accelsched.message_faults import Fault


@pytest.mark.parametrize("faults", [*([fault] for fault in Fault), list(Fault)], ids=[*Fault, "any"])
def test_a_server_is_made_stopped_started_and_deleted(cloud: Cloud, faults: Sequence[Fault]) -> None:
    with cloud.faulty_messages(*faults):
        cloud.create("s")
        cloud.assert_runs()
        (server,) = cloud.servers()
        cloud.act(server["id"], "os-stop")
        cloud.assert_stopped()
    cloud.assert_stopped()
    with cloud.faulty_messages(*faults):
        cloud.act(server["id"], "os-start")
        cloud.assert_runs()
    cloud.assert_runs()
    with cloud.faulty_messages(*faults):
        cloud.delete(server["id"])
        cloud.assert_nothing_left()
    # What comes late brings nothing back; the fixture looks once more.
