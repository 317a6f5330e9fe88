# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The pool: bounded, and one action a server."""

from __future__ import annotations

import threading

from accelsched.agent.plan import Work
from accelsched.agent.workers import Workers


def test_a_server_is_worked_on_by_one_action_at_a_time_and_hosts_do_not_share_servers() -> None:
    workers = Workers(4, "test")
    go, started = threading.Event(), threading.Semaphore(0)
    done: list[bool] = []

    def action(_cancelled: threading.Event) -> None:
        started.release()
        go.wait(5)

    assert workers.submit(("h1", "s"), action, builds=True, done=done.append)
    assert not workers.submit(("h1", "s"), action, builds=False, done=done.append)
    assert workers.submit(("h2", "s"), action, builds=False, done=done.append)
    assert started.acquire(timeout=5)
    assert started.acquire(timeout=5)
    assert workers.work("h1") == {"s": Work(builds=True)}
    assert workers.work("h2") == {"s": Work(builds=False)}
    go.set()
    assert workers.stop(5)
    assert workers.work("h1") == {}


def test_a_cancelled_action_sees_it_and_its_end_says_so() -> None:
    workers = Workers(1, "test")
    ended = threading.Event()
    cancelled: list[bool] = []

    def done(was_cancelled: bool) -> None:
        cancelled.append(was_cancelled)
        ended.set()

    workers.submit(("h", "s"), lambda stop: (stop.wait(5), None)[1], builds=True, done=done)
    workers.cancel(("h", "s"))
    workers.cancel(("h", "nothing"))
    assert ended.wait(5)
    assert cancelled == [True]
    workers.stop(1)


def test_no_more_run_at_once_than_there_are_threads() -> None:
    workers = Workers(2, "test")
    lock, most, now = threading.Lock(), 0, 0

    def action(_cancelled: threading.Event) -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        _cancelled.wait(0.01)
        with lock:
            now -= 1

    left = threading.Semaphore(0)
    for number in range(10):
        workers.submit(("h", str(number)), action, builds=True, done=lambda _c: left.release())
    for _ in range(10):
        assert left.acquire(timeout=5)
    assert most == 2
    workers.stop(1)


def test_a_stopped_pool_takes_nothing_and_says_whether_everything_ended() -> None:
    workers = Workers(1, "test")
    hang = threading.Event()
    workers.submit(("h", "s"), lambda _stop: (hang.wait(5), None)[1], builds=False, done=lambda _c: None)
    assert not workers.stop(0.05)
    assert not workers.submit(("h", "t"), lambda _stop: None, builds=True, done=lambda _c: None)
    hang.set()
