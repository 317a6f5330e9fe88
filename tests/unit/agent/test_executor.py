# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Carrying out actions, and telling how it went."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from accelsched import errors, wire
from accelsched.agent import plan
from accelsched.agent.executor import Executor, fault_of
from accelsched.agent.failures import Failures
from accelsched.agent.virt.base import BuildError, CarriedOut, Progress
from accelsched.agent.workers import Workers

SERVER = "aaaaaaaa-0000-4000-8000-000000000001"


class Host:
    """A host whose builds and removals go as told."""

    name = "node1"

    def __init__(self) -> None:
        self.failures = Failures(None)
        self.build_raises: Exception | None = None
        self.remove_raises: Exception | None = None
        self.calls: list[str] = []
        self.interface_is: wire.Interface | errors.UnavailableError | None = None
        self.waits = False
        self.virt = self  # what the executor tells the virt driver is kept here too

    def build(self, assignment: Any, progress: Progress) -> None:
        progress.step("working")
        self.calls.append("build")
        if self.waits:
            progress.cancelled.wait(5)
            progress.check()
        if self.build_raises:
            raise self.build_raises

    def obey(self, assignment: Any, progress: Progress) -> None:
        self.build(assignment, progress)

    def carried_out(self, server_uuid: str, order: CarriedOut) -> None:
        self.calls.append(f"carried out {order.number} {order.fault}")

    def interface(self, server_uuid: str) -> wire.Interface | None:
        if isinstance(self.interface_is, Exception):
            raise self.interface_is
        return self.interface_is

    def remove(self, server_uuid: str) -> None:
        self.calls.append("remove")
        if self.remove_raises:
            raise self.remove_raises

    def remove_device(self, driver: str, mark: str) -> None:
        self.calls.append(f"remove {driver} {mark}")


class Reporter:
    def __init__(self) -> None:
        self.said: list[Any] = []

    def observe(self, observation: Any) -> None:
        self.said.append(observation)


class Scene:
    def __init__(self) -> None:
        self.host = Host()
        self.reporter = Reporter()
        self.looks: list[str] = []
        self.workers = Workers(1, "test")
        self.executor = Executor(self.workers, self.reporter, self.looks.append)  # type: ignore[arg-type]

    def act(self, action: plan.Action) -> list[tuple[str, str]]:
        self.executor.act(self.host, action)  # type: ignore[arg-type]
        deadline = threading.Event()
        for _ in range(500):
            if not self.workers.work("node1"):
                break
            deadline.wait(0.01)
        return [(observation["state"], observation["detail"]) for observation in self.reporter.said]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_build_tells_its_steps_and_ends_active(scene: Scene, assignment_for: Any) -> None:
    assert scene.act(plan.Build(assignment_for())) == [("building", "working"), ("active", "")]
    assert scene.host.failures.all() == {}


def test_a_failed_build_leaves_nothing_and_is_remembered(scene: Scene, assignment_for: Any) -> None:
    scene.host.build_raises = BuildError("no such image")
    assert scene.act(plan.Build(assignment_for()))[-1] == ("error", "")
    assert scene.reporter.said[-1]["fault"]["message"] == "no such image"
    assert scene.host.calls == ["build", "remove"]
    failure = scene.host.failures.all()[SERVER]
    assert failure.fingerprint == plan.fingerprint(assignment_for())


def test_the_interface_is_told_with_the_server_and_nothing_at_all_when_it_cannot_be_asked_for(scene: Scene) -> None:
    scene.host.interface_is = {"network": "default", "addresses": ["192.0.2.7"]}
    scene.act(plan.Observe(SERVER, "stopped"))
    scene.act(plan.Observe(SERVER, "gone"))
    assert [seen.get("interface") for seen in scene.reporter.said] == [scene.host.interface_is, None]
    scene.host.interface_is = errors.UnavailableError("libvirt is away")
    assert scene.act(plan.Observe(SERVER, "active")) == [("stopped", ""), ("gone", "")]


def test_a_hypervisor_that_is_away_is_no_failure_of_the_server(scene: Scene, assignment_for: Any) -> None:
    scene.host.build_raises = errors.UnavailableError("libvirt is away")
    assert scene.act(plan.Build(assignment_for())) == [("building", "working")]
    assert scene.host.calls == ["build"]
    assert scene.host.failures.all() == {}


def test_an_interrupted_build_says_nothing_and_has_the_host_looked_at_again(scene: Scene, assignment_for: Any) -> None:
    scene.host.waits = True
    scene.executor.act(scene.host, plan.Build(assignment_for()))  # type: ignore[arg-type]
    assert scene.act(plan.Cancel(SERVER)) == [("building", "working")]
    assert scene.looks == ["node1"]
    assert scene.host.calls == ["build"]


def test_a_failed_resume_removes_nothing_and_says_stopped(scene: Scene, assignment_for: Any) -> None:
    scene.host.build_raises = BuildError("no mdev")
    assert scene.act(plan.Resume(assignment_for())) == [("stopped", "could not be started again")]
    assert scene.host.calls == ["build"]
    assert scene.host.failures.all() == {}


def test_gone_is_said_when_everything_was_removed_and_announced(scene: Scene) -> None:
    scene.host.remove_raises = errors.UnavailableError("busy")
    assert scene.act(plan.Remove(SERVER, announce=True)) == []
    scene.host.remove_raises = None
    assert scene.act(plan.Remove(SERVER, announce=False)) == []
    assert scene.act(plan.Remove(SERVER, announce=True)) == [("gone", "")]


def test_a_device_of_nobody_is_removed_by_its_driver(scene: Scene) -> None:
    scene.act(plan.RemoveDevice("mdev", "m1"))
    assert scene.host.calls == ["remove mdev m1"]


def test_the_owner_reads_what_was_foreseen_and_the_operator_the_rest() -> None:
    failure = BuildError("the hypervisor could not start the server")
    failure.__cause__ = RuntimeError("/var/lib/secret: denied")
    fault = fault_of(failure)
    assert fault["message"] == "the hypervisor could not start the server"
    assert "/var/lib/secret" in fault["details"]
    unforeseen = fault_of(KeyError("/var/lib/secret"))
    assert "secret" not in unforeseen["message"]
    assert "KeyError" in unforeseen["details"]


def ordered(number: int) -> Any:
    return {"server_uuid": SERVER, "order": {"number": number, "power": "stopped", "reboot": None}}


def test_an_order_is_remembered_with_how_it_went_and_the_server_looked_at_again(scene: Scene) -> None:
    scene.act(plan.Obey(ordered(1)))
    scene.host.build_raises = BuildError("no")
    scene.act(plan.Obey(ordered(2)))
    fault = fault_of(scene.host.build_raises)
    assert scene.host.calls == ["build", "carried out 1 None", "build", f"carried out 2 {fault}"]
    assert scene.looks == ["node1", "node1"]


def test_an_order_is_given_again_when_the_hypervisor_does_not_answer(scene: Scene) -> None:
    scene.host.build_raises = errors.UnavailableError("away")
    scene.act(plan.Obey(ordered(1)))
    assert scene.host.calls == ["build"]
