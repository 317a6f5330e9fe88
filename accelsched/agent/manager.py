# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The agent: keeps one host, or many simulated ones, as the control plane wants them.

Three threads do everything periodic: *heartbeat* says who is alive and reports hosts anew when they changed, *sync*
compares what is wanted with what is there and starts actions, *reporter* tells how servers are. A bounded pool does the
work. RPC only ever makes one of them look sooner.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from oslo_config import cfg
from oslo_log import log
from stevedore import driver as stevedore_driver
from stevedore.exception import NoMatches

from accelsched import errors, rpc, wire
from accelsched.agent import handover
from accelsched.agent.devices.base import DeviceDriver, HostContext
from accelsched.agent.endpoint import Endpoint
from accelsched.agent.executor import Executor
from accelsched.agent.host import Host
from accelsched.agent.identity import Identity
from accelsched.agent.link import Backoff, Link
from accelsched.agent.plan import plan
from accelsched.agent.reporter import Reporter
from accelsched.agent.virt.base import VirtDriver
from accelsched.agent.workers import Workers

LOG = log.getLogger(__name__)

# Reports of many simulated hosts: so many between two heartbeats, by so many threads.
_REPORT_BATCH = 500
_REPORT_THREADS = 8
# How long a stopping agent waits for a control plane that does not answer.
_HANG_UP_S = 5.0


class Agent:
    """Everything of one agent process, started and stopped as a whole."""

    def __init__(self, conf: cfg.ConfigOpts, transport: Any, simulate: int = 0) -> None:
        """
        :param transport: from :func:`accelsched.rpc.transport`
        :param simulate: stand for so many simulated hosts ``HOST-0001`` ... instead of for this one
        :raises accelsched.errors.ConfigurationError: when a driver or the state directory cannot be used
        """
        self._conf = conf
        self._transport = transport
        self._identity = Identity.claim(Path(conf.state_path))
        try:
            if simulate:
                hosts = _simulated_hosts(conf, self._identity, simulate, handover.client(transport))
            else:
                hosts = [_host(conf, self._identity, handover.client(transport))]
        except BaseException:
            self._identity.release()
            raise
        self._hosts = {host.name: host for host in hosts}
        # A host's name is not unique if two simulators run on one machine; their queues must be.
        self.queue = f"{conf.agent.host}.{self._identity.node_uuid[:8]}"
        self._controller = rpc.ControllerClient(transport)
        self._link = Link()
        self._stopping = threading.Event()
        self._reporter = Reporter(self._controller.report_observations, self._link)
        self._workers = Workers(conf.agent.build_threads, "agent-build")
        self._executor = Executor(self._workers, self._reporter, lambda host: self._look_again([host]))
        self._reported: dict[str, wire.HostReport] = {}  # as last accepted, by host
        self._refused: dict[str, str] = {}  # why a host was not accepted or not reported, as logged, by host
        self._hints = threading.Condition()
        self._hinted: set[str] = set()
        self._server: rpc.Server | None = None  # once it was started
        self._threads = [
            threading.Thread(target=target, name=f"agent-{name}", daemon=True)
            for name, target in (("rpc", self._serve), ("heartbeat", self._heartbeat_loop), ("sync", self._sync_loop))
        ]

    @property
    def hosts(self) -> Sequence[str]:
        """Names of the hosts this agent stands for."""
        return list(self._hosts)

    def start(self) -> None:
        """Start all threads and answer RPC; returns at once, whether or not the control plane answers."""
        LOG.info("Agent %s stands for %s", self.queue, _named(list(self._hosts)))
        self._reporter.start()
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float = 20.0) -> bool:
        """Stop. Servers keep running; builds are interrupted between two steps and resumed by the next start.

        :param timeout: seconds to wait for what is being done
        :returns: whether that ended in time; a thread that waits for a dead message broker is left to its wait
        """
        deadline = time.monotonic() + timeout
        self._stopping.set()
        with self._hints:
            self._hints.notify_all()
        if self._server is not None:
            self._server.stop()
            self._server.wait()
        clean = self._workers.stop(timeout)
        self._reporter.stop(_HANG_UP_S)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(min(deadline - time.monotonic(), _HANG_UP_S), 0.1))
        for host in self._hosts.values():
            host.virt.close()
        self._identity.release()
        LOG.info("Agent %s stopped", self.queue)
        return clean

    def _serve(self) -> None:
        """Answer RPC; getting to the message broker may take any time, and nothing else waits for it."""
        endpoint = Endpoint(self._hosts, self._look_again, self._conf.agent.console_bytes)
        server = rpc.serve(self._transport, rpc.AGENT_TOPIC, self.queue, endpoint)
        server.start()
        self._server = server
        if self._stopping.is_set():
            server.stop()

    # --- heartbeats and reports ---------------------------------------------------------------------------------

    def _heartbeat_loop(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                complete = self._beat()
            except Exception as exc:  # whatever it is, the next beat tries again
                self._link.failed("heartbeat", exc)
                self._stopping.wait(min(backoff.next(), self._conf.agent.report_interval))
            else:
                self._link.succeeded("heartbeat")
                backoff.reset()
                if complete:
                    self._stopping.wait(self._conf.agent.report_interval)

    def _beat(self) -> bool:
        """Report hosts that are new or changed, then say that all of them are alive.

        :returns: whether every host had its turn; a fleet is reported in parts, so that no part goes silent meanwhile
        :raises Exception: when the control plane does not answer
        """
        # Only the real look for changes again; most simulated hosts are reported once.
        pending = [host for host in self._hosts.values() if not (host.constant and host.name in self._reported)]
        tried = pending[:_REPORT_BATCH]
        fine = self._report(tried)
        silent = {host.name for host in tried} - fine
        alive = [name for name in self._hosts if name in self._reported and name not in silent]
        unknown = self._controller.heartbeat(alive) if alive else []
        for name in unknown:
            self._reported.pop(name, None)
            self._reporter.forget(name)
        if unknown:
            LOG.info("The control plane asks for %s anew", _named(unknown))
        return bool(silent) or (len(tried) == len(pending) and not unknown)

    def _report(self, hosts: Sequence[Host]) -> set[str]:
        """Report hosts whose picture is not what was accepted last.

        :returns: names of those that can be said to be alive
        :raises Exception: when the control plane does not answer
        """
        if len(hosts) <= 1:
            return {host.name for host in hosts if self._report_one(host)}
        with ThreadPoolExecutor(_REPORT_THREADS, thread_name_prefix="agent-report") as pool:
            fine = list(pool.map(self._report_one, hosts))
        return {host.name for host, is_fine in zip(hosts, fine, strict=True) if is_fine}

    def _report_one(self, host: Host) -> bool:
        if self._stopping.is_set():
            return False
        try:
            report = host.report(self.queue)
        except Exception as exc:  # a host that cannot look at itself must not be given servers
            self._refuse(host.name, exc)
            return False
        if report != self._reported.get(host.name):
            try:
                numbered: wire.HostReport = {**report, "said": self._link.said()}
                self._identity.join(self._controller.report_host(numbered, self._identity.control_plane()))
            except (errors.ConflictError, errors.InvalidError) as exc:
                self._reported.pop(host.name, None)
                self._refuse(host.name, exc)
                return False
            first = host.name not in self._reported
            self._reported[host.name] = report
            if first:
                self._look_again([host.name])
        if self._refused.pop(host.name, None):
            LOG.info("Host %s takes part again", host.name)
        return True

    def _refuse(self, host: str, error: Exception) -> None:
        reason = str(error)
        if self._refused.get(host) != reason:
            self._refused[host] = reason
            expected = isinstance(error, errors.AccelschedError)
            LOG.error("Host %s takes no part: %s", host, reason, exc_info=None if expected else error)

    # --- reconciliation -----------------------------------------------------------------------------------------

    def _look_again(self, hosts: Iterable[str]) -> None:
        with self._hints:
            self._hinted.update(hosts)
            self._hints.notify_all()

    def _sync_loop(self) -> None:
        backoff = Backoff()
        due = time.monotonic() + self._conf.agent.sync_interval
        while True:
            with self._hints:
                self._hints.wait_for(lambda: self._stopping.is_set() or self._hinted, max(due - time.monotonic(), 0))
                hinted, self._hinted = self._hinted, set()
            if self._stopping.is_set():
                return
            complete = time.monotonic() >= due
            # Only what was accepted: another node may own the name of the rest, and so their servers.
            hosts = [host for name, host in self._hosts.items() if name in self._reported]
            if not complete:
                hosts = [host for host in hosts if host.name in hinted]
            try:
                self._sync(hosts)
            except Exception as exc:  # whatever it is, everything is compared again
                self._link.failed("fetch_assignments", exc)
                due = time.monotonic() + min(backoff.next(), self._conf.agent.sync_interval)
            else:
                backoff.reset()
                if complete:
                    due = time.monotonic() + self._conf.agent.sync_interval

    def _sync(self, hosts: Sequence[Host]) -> None:
        """Fetch what is wanted on these hosts and start what is to be done about it.

        :raises Exception: when the control plane does not answer; then nothing was done
        """
        if not hosts:
            return
        assignments: defaultdict[str, list[wire.Assignment]] = defaultdict(list)
        names = [host.name for host in hosts]
        for assignment in self._controller.fetch_assignments(names, self._identity.control_plane()):
            assignments[assignment["host"]].append(assignment)
        self._link.succeeded("fetch_assignments")
        for host in hosts:
            try:
                self._reconcile(host, assignments[host.name])
            except Exception as exc:  # one host that cannot be looked at must not keep the others waiting
                self._refuse(host.name, exc)

    def _reconcile(self, host: Host, assignments: list[wire.Assignment]) -> None:
        # In this order: what is being worked on is left alone, so whatever ends after that is in the picture.
        work = self._workers.work(host.name)
        wanted = {assignment["server_uuid"] for assignment in assignments}
        host.departing = frozenset(assignment["server_uuid"] for assignment in assignments if "leaving" in assignment)
        host.failures.keep(wanted)
        self._reporter.forget(host.name, wanted)
        failures = host.failures.all()
        resume = self._conf.agent.resume_guests_state_on_host_boot
        for action in plan(assignments, host.present(assignments), failures=failures, work=work, resume=resume):
            self._executor.act(host, action)
        host.virt.tidy(assignments)


def _named(hosts: Sequence[str]) -> str:
    return f"host {hosts[0]}" if len(hosts) == 1 else f"{len(hosts)} hosts"


def _load(namespace: str, name: str, option: str) -> Callable[[HostContext], Any]:
    """Return a driver's class.

    :raises accelsched.errors.ConfigurationError: when there is none of that name, or it cannot be imported
    """
    failures: list[str] = []

    def failed(_manager: object, _entry_point: object, error: BaseException) -> None:
        failures.append(f"{type(error).__name__}: {error}")

    try:
        manager: stevedore_driver.DriverManager[Any] = stevedore_driver.DriverManager(
            namespace, name, on_load_failure_callback=failed, on_missing_entrypoints_callback=None
        )
    except NoMatches as exc:
        reason = failures[0] if failures else "there is no such driver"
        raise errors.ConfigurationError(f"[agent] {option}: {name!r}: {reason}") from exc
    driver: Callable[[HostContext], Any] = manager.driver
    return driver


def device_drivers(context: HostContext) -> dict[str, DeviceDriver]:
    """Return the device drivers that are configured, by name and in their order.

    :raises accelsched.errors.ConfigurationError: when one cannot be used
    """
    names = context.conf.agent.device_drivers
    return {name: _load("accelsched.agent.devices", name, "device_drivers")(context) for name in names}


def _host(conf: cfg.ConfigOpts, identity: Identity, agents: rpc.AgentClient) -> Host:
    context = HostContext(conf, conf.agent.host, identity.node_uuid, Path(conf.state_path))
    virt: VirtDriver = _load("accelsched.agent.virt", conf.agent.virt_driver, "virt_driver")(context)
    return Host(context, virt, device_drivers(context), agents)


def _simulated_hosts(conf: cfg.ConfigOpts, identity: Identity, count: int, agents: rpc.AgentClient) -> list[Host]:
    virt = _load("accelsched.agent.virt", "simulated", "virt_driver")
    devices = _load("accelsched.agent.devices", "simulated", "device_drivers")
    hosts = []
    for number in range(1, count + 1):
        name = f"{conf.agent.host}-{number:04d}"
        context = HostContext(conf, name, identity.of_host(name), Path(conf.state_path))
        hosts.append(Host(context, virt(context), {"simulated": devices(context)}, agents))
    return hosts
