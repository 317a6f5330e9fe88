# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Files of a server that comes from another host: whole, as they were, whatever happens on the way."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pytest

from accelsched import errors, rpc, wire
from accelsched.agent import handover
from accelsched.agent.handover import CHUNK_BYTES, Source
from accelsched.agent.virt.base import BuildError, InterruptedBuildError, Progress

SIZE = 2 * CHUNK_BYTES + 17


class Agents:
    """The other agent, which does as it is told for so many answers and then as it should."""

    def __init__(self, path: Path, *first: Any) -> None:
        self._path = path
        self._first = list(first)
        self.asked: list[int] = []

    def read_file(self, agent: str, host: str, server_uuid: str, name: str, offset: int) -> wire.Chunk:
        assert (agent, host, server_uuid, name) == ("queue", "one", "s", "disk")
        self.asked.append(offset)
        told = self._first.pop(0) if self._first else None
        if isinstance(told, Exception):
            raise told
        chunk = handover.read(self._path, offset)
        return chunk if told is None else {**chunk, **told}


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


@pytest.fixture
def cancelled() -> threading.Event:
    return threading.Event()


@pytest.fixture
def fetch(disk: Path, tmp_path: Path, cancelled: threading.Event, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(Source, "_pause", lambda *_: None)

    def fetch(agents: Agents) -> Path:
        progress = Progress(lambda _detail: None, cancelled)
        source = Source(agents, {"host": "one", "agent": "queue"}, "s", progress)  # type: ignore[arg-type]
        source.fetch("disk", SIZE, tmp_path / "part")
        return tmp_path / "part"

    return fetch


def test_a_file_comes_as_it_was_part_by_part(fetch: Any, disk: Path) -> None:
    agents = Agents(disk)
    assert fetch(agents).read_bytes() == disk.read_bytes()
    assert agents.asked == [0, CHUNK_BYTES, 2 * CHUNK_BYTES]


@pytest.mark.parametrize(
    "answer", [rpc.MessagingTimeout("no answer"), ConnectionError("no broker"), {"sha256": "0"}, {"data": "AAAA"}]
)
def test_what_does_not_come_or_comes_damaged_is_asked_for_again(fetch: Any, disk: Path, answer: Any) -> None:
    agents = Agents(disk, answer)
    assert fetch(agents).read_bytes() == disk.read_bytes()
    assert agents.asked == [0, 0, CHUNK_BYTES, 2 * CHUNK_BYTES]


def test_a_copy_that_was_cut_short_goes_on_one_part_before_its_end(fetch: Any, disk: Path, tmp_path: Path) -> None:
    torn = disk.read_bytes()[: CHUNK_BYTES + 5] + bytes(CHUNK_BYTES)
    (tmp_path / "part").write_bytes(torn)
    agents = Agents(disk)
    assert fetch(agents).read_bytes() == disk.read_bytes()
    assert agents.asked == [CHUNK_BYTES, 2 * CHUNK_BYTES]


def test_a_host_that_stays_away_is_no_fault_of_the_server(fetch: Any, disk: Path) -> None:
    with pytest.raises(errors.UnavailableError, match="host one does not answer"):
        fetch(Agents(disk, *[rpc.MessagingTimeout("no answer")] * 10))


def test_a_file_that_is_gone_is_not_waited_for(fetch: Any, disk: Path) -> None:
    agents = Agents(disk, errors.NotFoundError("gone"))
    with pytest.raises(errors.NotFoundError):
        fetch(agents)
    assert agents.asked == [0]


def test_a_copy_ends_when_it_is_not_wanted_any_more(fetch: Any, disk: Path, cancelled: threading.Event) -> None:
    cancelled.set()
    with pytest.raises(InterruptedBuildError):
        fetch(Agents(disk))


def test_a_host_that_is_lost_is_not_asked(disk: Path, tmp_path: Path) -> None:
    agents = Agents(disk)
    origin: wire.Origin = {"host": "one", "agent": "queue", "lost": True}
    source = Source(agents, origin, "s", Progress(lambda _detail: None, threading.Event()))  # type: ignore[arg-type]
    with pytest.raises(BuildError, match="host one was lost before"):
        source.fetch("disk", SIZE, tmp_path / "part")
    assert agents.asked == []
