# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The node's identity."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from accelsched import errors
from accelsched.agent.identity import Identity


def test_a_node_keeps_its_uuid(tmp_path: Path) -> None:
    first = Identity.claim(tmp_path / "state")
    first.release()
    second = Identity.claim(tmp_path / "state")
    assert second.node_uuid == first.node_uuid == str(uuid.UUID(first.node_uuid))
    second.release()


def test_two_agents_do_not_share_a_state_directory(tmp_path: Path) -> None:
    first = Identity.claim(tmp_path)
    with pytest.raises(errors.ConfigurationError, match=r"\[DEFAULT\] state_path: another agent"):
        Identity.claim(tmp_path)
    first.release()
    Identity.claim(tmp_path).release()


def test_a_damaged_identity_stops_the_agent_instead_of_giving_it_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "node_uuid").write_text("not a uuid\n")
    for _ in range(2):
        with pytest.raises(errors.ConfigurationError, match="node_uuid"):
            Identity.claim(tmp_path)
    assert (tmp_path / "node_uuid").read_text() == "not a uuid\n"


def test_a_directory_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.ConfigurationError, match="state_path"):
        Identity.claim(tmp_path / "file" / "state")


def test_simulated_hosts_have_lasting_uuids_of_their_own(tmp_path: Path) -> None:
    identity = Identity.claim(tmp_path)
    assert identity.of_host("a") == identity.of_host("a") != identity.of_host("b")
    identity.release()
