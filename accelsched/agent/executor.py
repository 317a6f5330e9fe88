# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Carries out what the plan says, one action at a time for each server, and tells how it went."""

from __future__ import annotations

import functools
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Literal, cast

from oslo_log import log

from accelsched import errors, wire
from accelsched.agent import plan
from accelsched.agent.host import Host
from accelsched.agent.reporter import Reporter
from accelsched.agent.virt.base import NO_ORDER, CarriedOut, InterruptedBuildError, Progress, UnfitTargetError, to_run
from accelsched.agent.workers import Key, Workers
from accelsched.failpoints import Point, reach

LOG = log.getLogger(__name__)

Told = Callable[[str], None]
SnapshotStep = Literal["image_pending_upload", "image_uploading"]  # as in wire.Observation

# How a server is that has obeyed.
_STATES: dict[str, plan.State] = {
    "running": "active",
    "stopped": "stopped",
    "paused": "paused",
    "suspended": "suspended",
    "rescued": "rescued",
}
# States in which a server has its interface.
_THERE = frozenset({"active", "stopped", "paused", "suspended", "rescued"})
_MESSAGE_MAX = 500
_DETAILS_MAX = 8000


class Executor:
    """Turns actions into work of a thread pool."""

    def __init__(self, workers: Workers, reporter: Reporter, look_again: Callable[[str], None]) -> None:
        """
        :param look_again: called with a host's name when its servers should be compared anew soon
        """
        self._workers = workers
        self._reporter = reporter
        self._look_again = look_again
        self._lock = threading.Lock()
        self._logged: set[tuple[str, str, str]] = set()  # failed removals that were logged
        # What was done about servers' FPGA regions, by job: told with whatever is told of the server after that.
        self._programming: defaultdict[Key, dict[str, wire.Programming]] = defaultdict(dict)

    def act(self, host: Host, action: plan.Action) -> None:
        """Start an action; what is being worked on already is left alone."""
        match action:
            case plan.Observe(server_uuid, state, fault, order, incarnation, plugs, let_go):
                seen = functools.partial(self._observe, host, server_uuid, state, fault=fault, order=order)
                seen(incarnation=incarnation, plugs=plugs, let_go=let_go)
            case plan.Build(assignment):
                build = functools.partial(self._build, host, assignment)
                # One that is built but is not to run has an order to be carried out.
                self._submit(host, assignment["server_uuid"], build, True, look=not to_run(assignment))
            case plan.Await(assignment):
                prepare = functools.partial(self._await, host, assignment)
                self._submit(host, assignment["server_uuid"], prepare, True)
            case plan.Hasten(server_uuid):
                self._hasten(host, server_uuid)
            case plan.Resume(assignment):
                self._submit(host, assignment["server_uuid"], lambda stop: self._resume(host, assignment, stop), True)
            case plan.Complete(assignment):
                self._submit(host, assignment["server_uuid"], lambda stop: self._complete(host, assignment, stop), True)
            case plan.Obey(assignment):
                self._submit(
                    host, assignment["server_uuid"], lambda stop: self._obey(host, assignment, stop), True, True
                )
            case plan.Plug(assignment):
                again = threading.Event()
                plug = functools.partial(self._plug, host, action, again)
                self._submit(host, assignment["server_uuid"], plug, True, again=again)
            case plan.Remove(server_uuid, announce):
                # What is not to be announced may have to be built anew.
                remove = functools.partial(self._remove, host, server_uuid, announce)
                self._submit(host, server_uuid, lambda _stop: remove(), False, look=not announce)
            case plan.RemoveDevice(driver, mark):
                self._submit(host, mark, lambda _stop: self._remove_device(host, driver, mark), False)
            case plan.Tidy(assignment, then):
                tidy = functools.partial(self._tidy, host, assignment, then)
                self._submit(host, assignment["server_uuid"], lambda _stop: tidy(), False)
            case plan.Cancel(server_uuid):
                self._workers.cancel((host.name, server_uuid))

    def _submit(
        self,
        host: Host,
        key: str,
        action: Callable[[threading.Event], None],
        builds: bool,
        look: bool = False,
        again: threading.Event | None = None,
    ) -> None:
        """Run an action in a thread.

        :param builds: whether it ends when the server is not wanted any more
        :param look: whether the server is looked at afterwards
        :param again: set by the action when the server is to be looked at afterwards
        """

        def done(cancelled: bool) -> None:
            if cancelled or look or (again is not None and again.is_set()):
                self._look_again(host.name)

        def run(cancelled: threading.Event) -> None:
            try:
                action(cancelled)
            except Exception:  # the next comparison finds whatever was left undone
                LOG.exception("An action on %s of host %s failed", key, host.name)

        self._workers.submit((host.name, key), run, builds=builds, done=done)

    def _observe(
        self,
        host: Host,
        server_uuid: str,
        state: plan.State,
        detail: str = "",
        fault: wire.Fault | None = None,
        order: CarriedOut = NO_ORDER,
        incarnation: int = 1,
        snapshot: SnapshotStep | None = None,
        migration: wire.LiveProgress | None = None,
        plugs: Collection[str] | None = None,
        plug_faults: Mapping[str, wire.Fault] | None = None,
        let_go: Collection[str] = (),
    ) -> None:
        seen: wire.Observation = {
            "host": host.name,
            "server_uuid": server_uuid,
            "state": state,
            "detail": detail,
            "fault": fault,
        }
        if incarnation > 1:
            seen["incarnation"] = incarnation
        if order.number:
            seen |= {"order": order.number, "order_fault": order.fault}
        if snapshot is not None:
            seen["snapshot"] = snapshot
        if migration is not None:
            seen["migration"] = migration
        if plugs is not None:
            seen["plugs"] = list(plugs)
        if plug_faults:
            seen["plug_faults"] = dict(plug_faults)
        if let_go:
            seen["let_go"] = list(let_go)
        if state in _THERE:
            try:
                interface = host.virt.interface(server_uuid)
            except errors.UnavailableError:  # what is not known now is told at the next comparison, with the rest
                return
            if interface is not None:
                seen["interface"] = interface
        with self._lock:
            if jobs := self._programming.get((host.name, server_uuid)):
                seen["programming"] = list(jobs.values())
            if state == "gone":
                self._programming.pop((host.name, server_uuid), None)
        self._reporter.observe(seen)

    def _progress(self, host: Host, assignment: wire.Assignment, cancelled: threading.Event, told: Told) -> Progress:
        """Return how an action tells how far it is.

        :param told: called with what is done next
        """
        server_uuid = assignment["server_uuid"]

        def programming(job: wire.Programming) -> None:
            with self._lock:
                self._programming[host.name, server_uuid][job["uuid"]] = job
            # A server that was built before stays what it was while it is building.
            detail = f"{job['state']} a bitstream for {job['provider_name']}"
            self._observe(host, server_uuid, "building", detail, incarnation=assignment.get("incarnation", 1))

        def migration(progress: wire.LiveProgress) -> None:
            self._observe(host, server_uuid, "active", incarnation=assignment.get("incarnation", 1), migration=progress)

        return Progress(told, cancelled, programming, migration)

    def _build(self, host: Host, assignment: wire.Assignment, cancelled: threading.Event) -> None:
        server_uuid = assignment["server_uuid"]
        observe = functools.partial(self._observe, host, server_uuid, incarnation=assignment.get("incarnation", 1))
        if not self._made(host, assignment, host.build, cancelled):
            return
        if "origin" in assignment and not to_run(assignment):
            LOG.info("Server %s came from host %s", server_uuid, assignment["origin"]["host"])
            return
        LOG.info("Server %s runs", server_uuid)
        observe("active", order=_last_order(assignment))

    def _await(self, host: Host, assignment: wire.Assignment, cancelled: threading.Event) -> None:
        if self._made(host, assignment, host.await_server, cancelled):
            LOG.info("Server %s may come from host %s", assignment["server_uuid"], assignment["incoming"]["host"])
            incarnation = assignment.get("incarnation", 1)
            self._observe(host, assignment["server_uuid"], "awaited", incarnation=incarnation)

    def _made(
        self,
        host: Host,
        assignment: wire.Assignment,
        make: Callable[[wire.Assignment, Progress], None],
        cancelled: threading.Event,
    ) -> bool:
        """Make what there shall be of a server; where that fails, tell its owner and leave nothing of it."""
        server_uuid = assignment["server_uuid"]
        observe = functools.partial(self._observe, host, server_uuid, incarnation=assignment.get("incarnation", 1))
        progress = self._progress(host, assignment, cancelled, lambda detail: observe("building", detail))
        try:
            make(assignment, progress)
        except InterruptedBuildError:
            LOG.info("Building server %s was interrupted", server_uuid)
            return False
        except errors.UnavailableError as exc:  # the hypervisor is away, nothing is wrong with the server
            self._log_once(host, server_uuid, "built", exc)
            return False
        except Exception as exc:  # whatever it is, the owner is told and nothing stays behind
            why = f"{exc}: {exc.__cause__}" if exc.__cause__ else str(exc)
            LOG.warning("Server %s could not be built: %s", server_uuid, why, exc_info=not _expected(exc))
            failure = plan.Failure(plan.fingerprint(assignment), fault_of(exc))
            host.failures.record(server_uuid, failure)
            self._clean_up(host, server_uuid)
            observe("error", fault=failure.fault)
            return False
        return True

    def _hasten(self, host: Host, server_uuid: str) -> None:
        try:
            host.virt.hasten(server_uuid)
        except errors.AccelschedError as exc:  # it has gone just now, or is tried again at the next comparison
            self._log_once(host, server_uuid, "hastened", exc)

    def _resume(self, host: Host, assignment: wire.Assignment, cancelled: threading.Event) -> None:
        server_uuid = assignment["server_uuid"]
        observe = functools.partial(self._observe, host, server_uuid, incarnation=assignment.get("incarnation", 1))
        try:
            host.build(assignment, self._progress(host, assignment, cancelled, lambda _detail: None))
        except InterruptedBuildError:
            return
        except Exception as exc:  # tried again at the next comparison; the owner's disk is never removed for it
            self._log_once(host, server_uuid, "started again", exc)
            observe("stopped", "could not be started again", fault_of(exc))
            return
        LOG.info("Server %s runs again", server_uuid)
        state = _STATES[assignment["order"]["power"]] if "order" in assignment else "active"
        observe(state, order=_last_order(assignment))

    def _complete(self, host: Host, assignment: wire.Assignment, cancelled: threading.Event) -> None:
        server_uuid = assignment["server_uuid"]
        try:
            host.build(assignment, self._progress(host, assignment, cancelled, lambda _detail: None))
        except InterruptedBuildError:
            return
        except Exception as exc:  # tried again at the next comparison; it runs meanwhile
            self._log_once(host, server_uuid, "given back its devices", exc)

    def _obey(self, host: Host, assignment: wire.Assignment, cancelled: threading.Event) -> None:
        server_uuid, order = assignment["server_uuid"], assignment["order"]
        incarnation = assignment.get("incarnation", 1)
        fault: wire.Fault | None = None

        def told(detail: str) -> None:
            if "snapshot" in order:
                step = cast("SnapshotStep", detail)
                self._observe(host, server_uuid, _STATES[order["power"]], incarnation=incarnation, snapshot=step)

        try:
            host.obey(assignment, self._progress(host, assignment, cancelled, told))
        except InterruptedBuildError:
            return
        except errors.UnavailableError as exc:
            self._log_once(host, server_uuid, f"made {order['power']}", exc)
            return
        except Exception as exc:  # the owner is told; the server is left as it is, and to its next order
            fault = fault_of(exc)
            LOG.warning(
                "Order %s of server %s failed: %s", order["number"], server_uuid, exc, exc_info=not _expected(exc)
            )
        reach(Point.AGENT_ORDER_CARRIED_OUT)
        host.virt.carried_out(server_uuid, CarriedOut(order["number"], fault))
        reach(Point.AGENT_ORDER_NOTED)

    def _plug(self, host: Host, action: plan.Plug, again: threading.Event, cancelled: threading.Event) -> None:
        assignment = action.assignment
        server_uuid = assignment["server_uuid"]
        try:
            failed, done = host.plug(assignment, self._progress(host, assignment, cancelled, lambda _detail: None))
        except InterruptedBuildError:
            return
        except errors.UnavailableError as exc:
            self._log_once(host, server_uuid, "given what it is to have", exc)
            return
        if done:
            again.set()
        for plug, why in failed.items():
            LOG.warning("Accelerator %s of server %s: %s (%s)", plug, server_uuid, why, why.__cause__)
        if failed:
            faults = {plug: fault_of(why) for plug, why in failed.items()}
            told = functools.partial(self._observe, host, server_uuid, action.state, order=action.order)
            told(incarnation=assignment.get("incarnation", 1), plug_faults=faults)

    def _remove(self, host: Host, server_uuid: str, announce: bool) -> None:
        if self._clean_up(host, server_uuid):
            LOG.info("Server %s was removed", server_uuid)
            if announce:
                self._observe(host, server_uuid, "gone")

    def _remove_device(self, host: Host, driver: str, mark: str) -> None:
        try:
            host.remove_device(driver, mark)
        except Exception as exc:  # tried again at the next comparison
            self._log_once(host, mark, "removed", exc)
        else:
            LOG.info("Device %s, which was nobody's, was removed", mark)

    def _tidy(self, host: Host, assignment: wire.Assignment, then: plan.Observe) -> None:
        try:
            host.tidy(assignment)
        except Exception as exc:  # tried again at the next comparison
            self._log_once(host, assignment["server_uuid"], "rid of what it needs no more", exc)
        else:
            self.act(host, then)

    def _clean_up(self, host: Host, server_uuid: str) -> bool:
        try:
            host.remove(server_uuid)
        except Exception as exc:  # tried again at the next comparison
            self._log_once(host, server_uuid, "removed", exc)
            return False
        return True

    def _log_once(self, host: Host, what: str, attempt: str, exc: Exception) -> None:
        key = (host.name, what, f"{attempt}: {exc}")
        with self._lock:
            known = key in self._logged
            if len(self._logged) > 1000:
                self._logged.clear()
            self._logged.add(key)
        if not known:
            LOG.warning(
                "%s on %s could not be %s, trying again: %s", what, host.name, attempt, exc, exc_info=not _expected(exc)
            )


def _last_order(assignment: wire.Assignment) -> CarriedOut:
    """Return the order that a server which has just been built has with it: building it carried that out."""
    order = assignment.get("order")
    return CarriedOut(order["number"]) if order and to_run(assignment) else NO_ORDER


def fault_of(exc: Exception) -> wire.Fault:
    """Return a fault for the server's owner; what was not foreseen goes to the operator's part only."""
    if _expected(exc):
        fault: wire.Fault = {
            "message": " ".join(str(exc).split())[:_MESSAGE_MAX],
            "details": repr(exc.__cause__ or exc)[:_DETAILS_MAX],
        }
        if isinstance(exc, UnfitTargetError):
            fault["unfit_target"] = True
        return fault
    trace = "".join(traceback.format_exception(exc))
    return {"message": f"Unexpected {type(exc).__name__} on the host", "details": trace[-_DETAILS_MAX:]}


def _expected(exc: Exception) -> bool:
    return isinstance(exc, errors.AccelschedError)
