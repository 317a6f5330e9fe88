# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The lab, started once for all its tests: the machine, a control plane beside it, the agent inside."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from labvm import build, cache, machine, observe, packages, report
from labvm.agent import Agent, Helper
from labvm.control import ControlPlane
from labvm.machine import GPUS, HOST, Machine
from labvm.report import Report
from stack import progress

_ROOT = Path(__file__).parents[2]
_LOGS = pytest.StashKey[list[Path]]()
_REPORT = pytest.StashKey[Report]()
_LOG_TAIL_BYTES = 6000


def pytest_configure(config: pytest.Config) -> None:
    """Begin a report."""
    config.addinivalue_line("markers", "way(name, seen): a way that the test is of, and what is seen if it works")
    config.stash[_REPORT] = Report()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the ends of all logs with a test that failed: the machine is gone when somebody reads of it."""
    told = yield
    for marker in reversed(list(item.iter_markers("way"))):
        item.config.stash[_REPORT].add(*marker.args, failed=told.failed)
    if told.failed:
        for log in (path for path in item.config.stash.get(_LOGS, []) if path.exists()):
            told.sections.append((str(log), log.read_text(errors="replace")[-_LOG_TAIL_BYTES:]))
    return told


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the report, and keep it where what the lab builds is."""
    text = config.stash[_REPORT].text()
    if text:
        path = cache.root() / report.NAME
        path.write_text(text)
        terminalreporter.section(str(path))
        terminalreporter.write(text)


@pytest.fixture(scope="session")
def logs(pytestconfig: pytest.Config) -> list[Path]:
    """Files to be shown when a test fails."""
    return pytestconfig.stash.setdefault(_LOGS, [])


@pytest.fixture(scope="session")
def starting(logs: list[Path]) -> Iterator[Future[ControlPlane]]:
    """The control plane, which starts while the machine boots."""
    with cache.lock("control"):
        control = ControlPlane(cache.root() / "control")
        logs += control.logs

        def start() -> ControlPlane:
            control.start(progress.silent)
            return control

        try:
            with ThreadPoolExecutor(1) as pool:
                yield pool.submit(start)
        finally:
            control.stop()


@pytest.fixture(scope="session")
def control_plane(starting: Future[ControlPlane]) -> ControlPlane:
    """Keystone, Glance, RabbitMQ and accelsched's API and scheduler, on free ports of loopback."""
    return starting.result()


@pytest.fixture(scope="session")
def lab_vm(starting: Future[ControlPlane], logs: list[Path], pytestconfig: pytest.Config) -> Iterator[Machine]:
    """A machine of the lab, made for these tests."""
    with machine.throwaway(build.build(), "tests") as running:
        logs.append(running.folder / "console.log")
        pytestconfig.stash[_REPORT].versions.update(report.versions(running, _ROOT))
        yield running


@pytest.fixture(scope="session")
def peer_vms(starting: Future[ControlPlane], logs: list[Path], pytestconfig: pytest.Config) -> Iterator[list[Machine]]:
    """Two machines that a network joins, with a kernel, QEMU and libvirt that can carry a mediated device over."""
    artifacts = build.build(packages.BACKPORTS)
    with ExitStack() as running, ThreadPoolExecutor() as pool:
        starts = [machine.throwaway(artifacts, name) for name in ("peer1", "peer2")]
        machines = list(pool.map(running.enter_context, starts))
        logs += [booted.folder / "console.log" for booted in machines]
        pytestconfig.stash[_REPORT].others.append(report.versions(machines[0], _ROOT))
        yield machines


@pytest.fixture(scope="session")
def peers(peer_vms: list[Machine], control_plane: ControlPlane, logs: list[Path]) -> Iterator[list[Agent]]:
    """The agents inside the two. From now on servers are placed there, and not on the first: such tests come last."""
    helpers = (Helper.FORKED, Helper.SUDO)
    agents = [Agent(one, control_plane.neighbours(), helper) for one, helper in zip(peer_vms, helpers, strict=True)]
    for one in agents:
        logs.append(one.log)
        one.start()
    for one in agents:
        control_plane.wait_until_reported(one)
    services = control_plane.show("compute", "service", "list")
    if HOST in [service["Host"] for service in services]:
        control_plane.openstack("compute", "service", "set", "--disable", HOST, "nova-compute")
    yield agents
    for one in agents:
        one.stop()


@pytest.fixture(scope="session")
def strangers(lab_vm: Machine) -> tuple[str, str]:
    """A mediated device on the first GPU and a domain that uses it, made by hand before there was an agent."""
    mdev, domain = str(uuid4()), str(uuid4())
    observe.make_mdev(lab_vm, mdev, GPUS[0], "labgpu-1")
    xml = _STRANGER.format(domain=domain, mdev=mdev)
    lab_vm.channel.check(["virsh", "create", "--paused", "/dev/stdin"], input_=xml)
    return mdev, domain


_STRANGER = """\
<domain type='kvm'>
  <name>stranger</name><uuid>{domain}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices>
    <memballoon model='none'/>
    <hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='{mdev}'/></source></hostdev>
  </devices>
</domain>
"""


@pytest.fixture(scope="session")
def agent(
    lab_vm: Machine, control_plane: ControlPlane, strangers: tuple[str, str], logs: list[Path]
) -> Iterator[Agent]:
    """The agent inside the machine, which has reported its host."""
    agent = Agent(lab_vm, control_plane.neighbours())
    logs.append(agent.log)
    agent.start()
    control_plane.wait_until_reported(agent)
    yield agent
    agent.stop()
