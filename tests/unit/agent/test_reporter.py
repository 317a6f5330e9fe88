# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Observations: the latest of each server, once, until it has been heard."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from accelsched.agent import reporter as reporter_module
from accelsched.agent.link import Backoff, Link
from accelsched.agent.reporter import Reporter


def observation(state: str, server: str = "s", detail: str = "") -> Any:
    return {"host": "h", "server_uuid": server, "state": state, "detail": detail, "fault": None}


class Peer:
    """Takes observations, or refuses."""

    def __init__(self) -> None:
        self.refuses = False
        self.heard: list[Any] = []
        self.attempts = 0
        self._changed = threading.Condition()

    def __call__(self, observations: list[Any]) -> None:
        with self._changed:
            self.attempts += 1
            self._changed.notify_all()
            if self.refuses:
                raise ConnectionError("nobody there")
            self.heard += observations

    def wait(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.heard) >= count, 5), self.heard

    def wait_attempts(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.attempts >= count, 5)


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
def reporter(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(Backoff, "next", lambda _self: 0.01)
    reporter = Reporter(peer, Link())
    reporter.start()
    yield reporter
    reporter.stop(5)


def test_an_unchanged_observation_is_said_once_and_gone_whenever_it_is_seen(reporter: Reporter, peer: Peer) -> None:
    reporter.observe(observation("active"))
    peer.wait(1)
    reporter.observe(observation("active"))
    reporter.observe(observation("active", "t"))
    peer.wait(2)
    assert [heard["server_uuid"] for heard in peer.heard] == ["s", "t"]
    reporter.observe(observation("gone"))
    peer.wait(3)
    reporter.observe(observation("gone"))
    peer.wait(4)


def test_what_was_not_heard_is_said_again_and_only_its_latest(reporter: Reporter, peer: Peer) -> None:
    peer.refuses = True
    reporter.observe(observation("building", detail="one"))
    peer.wait_attempts(2)
    reporter.observe(observation("building", detail="two"))
    reporter.observe(observation("active"))
    peer.wait_attempts(peer.attempts + 2)
    peer.refuses = False
    peer.wait(1)
    assert [heard["state"] for heard in peer.heard] == ["active"]


def test_after_a_while_it_is_repeated(reporter: Reporter, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    reporter.observe(observation("active"))
    peer.wait(1)
    monkeypatch.setattr(reporter_module, "_REPEAT_S", 0.0)
    reporter.observe(observation("active"))
    peer.wait(2)


def test_what_was_forgotten_is_said_again(reporter: Reporter, peer: Peer) -> None:
    reporter.observe(observation("active"))
    reporter.observe(observation("active", "t"))
    peer.wait(2)
    reporter.forget("h", {"t"})
    reporter.observe(observation("active", "t"))
    reporter.observe(observation("active"))
    peer.wait(3)
    assert [heard["server_uuid"] for heard in peer.heard][2:] == ["s"]


def test_stopping_says_what_is_left_or_gives_up_at_once(peer: Peer) -> None:
    reporter = Reporter(peer, Link())
    reporter.observe(observation("active"))
    reporter.start()
    reporter.stop(5)
    assert len(peer.heard) == 1
    peer.refuses = True
    mute = Reporter(peer, Link())
    mute.observe(observation("active"))
    mute.start()
    mute.stop(5)
    assert not mute._thread.is_alive()


def test_a_lost_and_a_regained_connection_are_logged_once_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    link = Link()
    for _ in range(5):
        link.failed("heartbeat", TimeoutError("no answer"))
    for _ in range(5):
        link.succeeded("heartbeat")
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_delays_grow_to_a_bound_and_start_over() -> None:
    backoff = Backoff()
    delays = [backoff.next() for _ in range(12)]
    assert 0.5 <= delays[0] <= 1.0
    assert 15.0 <= delays[-1] <= 30.0
    backoff.reset()
    assert backoff.next() <= 1.0


@pytest.mark.parametrize("refused_first", [False, True])
def test_what_is_being_said_is_not_said_a_second_time(refused_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # The next comparison comes while the control plane is slow to take what the last one saw.
    monkeypatch.setattr(Backoff, "next", lambda _self: 0.01)
    began, goes_on = threading.Event(), threading.Event()
    heard: list[Any] = []
    refuses = [refused_first]

    def slow_peer(observations: list[Any]) -> None:
        began.set()
        assert goes_on.wait(5)
        if refuses and refuses.pop():
            raise ConnectionError("nobody there")
        heard.extend(observations)

    reporter = Reporter(slow_peer, Link())
    reporter.start()
    reporter.observe(observation("active"))
    assert began.wait(5)
    reporter.observe(observation("stopped"))
    reporter.observe(observation("active"))
    goes_on.set()
    reporter.stop(5)
    assert [seen["state"] for seen in heard] == ["active"]
