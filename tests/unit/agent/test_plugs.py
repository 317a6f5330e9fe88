# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Accelerators that a host attaches to a server that is there, and detaches: sysfs is a tree, servers are simulated."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from accelsched import names
from accelsched.agent import plan
from accelsched.agent.devices.mdev import MdevDriver
from accelsched.agent.host import Host
from accelsched.agent.virt.base import CarriedOut, Launch, PlugError, Power, PresentServer, Progress
from accelsched.agent.virt.simulated import SimulatedDriver

SERVER = "aaaaaaaa-0000-4000-8000-000000000001"
PLUG = "bbbbbbbb-0000-4000-8000-000000000001"


@pytest.fixture
def host(context: Any, sysfs: Any) -> Host:
    gpu = sysfs.add_function("0000:41:00.0", group=1)
    sysfs.add_mdev_parent(gpu, {"lab-1": 2})
    return Host(context, SimulatedDriver(context), {"mdev": MdevDriver(context)})


@pytest.fixture
def wanting(host: Host, assignment_for: Any) -> Callable[..., Any]:
    """Return what makes assignments of the server: with the accelerator, with it leaving (True), or without."""
    provider = host.report("queue")["providers"][1]

    def assignment(*leaves: bool) -> Any:
        vgpu = {"group": f"_{PLUG}", "provider_uuid": provider["uuid"], "provider_name": provider["name"]}
        devices = [{**vgpu, "resources": {"VGPU": 1}, "plug": {"id": PLUG, "leaves": one}} for one in leaves]
        return assignment_for(devices=devices)

    return assignment


def progress() -> Progress:
    return Progress(lambda _detail: None, threading.Event())


def mdevs(sysfs: Any) -> list[str]:
    return [path.name for path in sysfs.mdevs.iterdir() if names.is_own_mdev(path.name)]


def does(host: Host, assignment: Any) -> plan.Action:
    (action,) = plan.plan([assignment], host.present([assignment]))
    return action


def test_an_accelerator_comes_and_goes_while_the_server_runs(host: Host, wanting: Any, sysfs: Any) -> None:
    host.build(wanting(), progress())
    assert does(host, wanting(False)) == plan.Plug(wanting(False), "active")
    assert host.plug(wanting(False), progress()) == ({}, True)
    (made,) = mdevs(sysfs)
    assert does(host, wanting(False)) == plan.Observe(SERVER, "active", plugs=(PLUG,))
    assert made in host.virt.console_output(SERVER)

    assert does(host, wanting(True)) == plan.Plug(wanting(True), "active")
    assert host.plug(wanting(True), progress()) == ({}, True)
    assert mdevs(sysfs) == []
    assert does(host, wanting(True)) == plan.Observe(SERVER, "active", plugs=())
    assert does(host, wanting()) == plan.Observe(SERVER, "active")


def test_it_is_there_after_a_hard_reboot_and_with_the_server_it_goes(host: Host, wanting: Any, sysfs: Any) -> None:
    host.build(wanting(), progress())
    host.plug(wanting(False), progress())
    before = mdevs(sysfs)
    order = {"number": 1, "power": "running", "reboot": "hard"}
    host.obey({**wanting(False), "order": order}, progress())
    assert (mdevs(sysfs), host.virt.plugs(SERVER)) == (before, {PLUG: True})
    host.remove(SERVER)
    assert mdevs(sysfs) == []


def test_one_that_leaves_does_not_come_back_with_a_start_and_is_given_back_then(
    host: Host, wanting: Any, sysfs: Any
) -> None:
    host.build(wanting(), progress())
    host.plug(wanting(False), progress())
    order = {"number": 1, "power": "running", "reboot": "hard"}
    host.obey({**wanting(True), "order": order}, progress())
    assert (len(mdevs(sysfs)), host.virt.plugs(SERVER)) == (1, {PLUG: False})
    assert host.plug(wanting(True), progress()) == ({}, True)
    assert (mdevs(sysfs), host.virt.plugs(SERVER)) == ([], {})


def test_what_cannot_be_attached_leaves_nothing(
    host: Host, wanting: Any, sysfs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.build(wanting(), progress())
    host.context.conf.set_override("simulated_failure_rate", 1.0, group="agent")
    failed, done = host.plug(wanting(False), progress())
    assert (list(failed), done) == ([PLUG], False)
    assert "simulated failure" in str(failed[PLUG])
    assert (mdevs(sysfs), host.virt.plugs(SERVER)) == ([], {})


@pytest.mark.parametrize("point", ["attach", "detach", "forget_plug"])
def test_an_agent_that_dies_in_between_goes_on(
    host: Host, wanting: Any, sysfs: Any, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    host.build(wanting(), progress())
    if point != "attach":
        host.plug(wanting(False), progress())
    leaves = point != "attach"
    with monkeypatch.context() as patch:
        patch.setattr(host.virt, point, die)
        with pytest.raises(KeyboardInterrupt):
            host.plug(wanting(leaves), progress())
    assert isinstance(does(host, wanting(leaves)), plan.Plug)
    assert host.plug(wanting(leaves), progress()) == ({}, True)
    assert (len(mdevs(sysfs)), host.virt.plugs(SERVER)) == ((0, {}) if leaves else (1, {PLUG: True}))


def test_a_guest_that_does_not_let_go_keeps_it(
    host: Host, wanting: Any, sysfs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise PlugError("the guest did not let go of the accelerator within 60 s")

    host.build(wanting(), progress())
    host.plug(wanting(False), progress())
    monkeypatch.setattr(host.virt, "detach", refuse)
    failed, done = host.plug(wanting(True), progress())
    assert (str(failed[PLUG]), done) == ("the guest did not let go of the accelerator within 60 s", False)
    assert (len(mdevs(sysfs)), host.virt.plugs(SERVER)) == (1, {PLUG: True})


def test_what_a_guest_has_let_go_of_late_is_told_and_not_attached_again(wanting: Any) -> None:
    present = PresentServer(*(SERVER, Power.RUNNING, Launch.THIS_BOOT), plugs={PLUG: True}, let_go=frozenset({PLUG}))
    (action,) = plan.plan([wanting(False)], plan.Present([present]))
    assert action == plan.Observe(SERVER, "active", plugs=(PLUG,), let_go=(PLUG,))
    (action,) = plan.plan([wanting(True)], plan.Present([present]))
    assert isinstance(action, plan.Plug)


def test_what_is_begun_is_not_told_to_be_there_and_what_leaves_is_until_it_is_gone(wanting: Any) -> None:
    def seen(leaves: bool, attached: bool, **server: Any) -> Any:
        known = {"power": Power.PAUSED, "launch": Launch.THIS_BOOT, "plugs": {PLUG: attached}, **server}
        present = PresentServer(SERVER, **known)
        (action,) = plan.plan([wanting(leaves)], plan.Present([present]))
        return action

    assert seen(False, attached=False).plugs == ()
    assert seen(True, attached=False).plugs == (PLUG,)
    assert isinstance(seen(False, attached=False, power=Power.RUNNING), plan.Plug)
    # First what the server was ordered to do.
    ordered = {**wanting(False), "order": {"number": 1, "power": "running", "reboot": None}}
    server = PresentServer(SERVER, Power.RUNNING, Launch.THIS_BOOT)
    assert plan.plan([ordered], plan.Present([server])) == [plan.Obey(ordered)]
    server = PresentServer(SERVER, Power.RUNNING, Launch.THIS_BOOT, CarriedOut(1))
    assert plan.plan([ordered], plan.Present([server])) == [plan.Plug(ordered, "active", CarriedOut(1))]
