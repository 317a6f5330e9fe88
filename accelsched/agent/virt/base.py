# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The contract of virt drivers."""

from __future__ import annotations

import enum
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from accelsched import errors, wire
from accelsched.agent.devices import base as devices


class BuildError(errors.AccelschedError):
    """A server could not be made; the text is fit for its owner."""


class PowerError(errors.AccelschedError):
    """A server could not be paused, suspended or stopped; the text is fit for its owner."""


class PlugError(errors.AccelschedError):
    """An accelerator could not be attached to a server, or detached; the text is fit for its owner."""


class MigrationError(errors.AccelschedError):
    """A server that runs could not go elsewhere, and stays; the text is fit for its owner."""


class UnfitTargetError(MigrationError):
    """It cannot go to that host, which was found out before anything moved; perhaps to another one."""


class SnapshotError(errors.AccelschedError):
    """No image could be made of a server's disk; the text is fit for its owner."""


class InterruptedBuildError(Exception):
    """The build was told to stop. Nothing is wrong with it; it can be resumed or torn down."""


class Power(enum.Enum):
    """What a server's domain does."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    SUSPENDED = "suspended"  # stopped, its memory saved
    ABSENT = "absent"  # files only


class Launch(enum.Enum):
    """When a server's domain was started last, as far as this host remembers."""

    NEVER = "never"
    THIS_BOOT = "this boot"
    EARLIER_BOOT = "earlier boot"


@dataclass(frozen=True)
class CarriedOut:
    """The last of a server's orders (:class:`accelsched.wire.PowerOrder`) that was carried out, or tried."""

    number: int = 0  # 0: there was none yet
    fault: wire.Fault | None = None  # why it did not work


NO_ORDER = CarriedOut()


@dataclass(frozen=True)
class PresentServer:
    """Something of a server that is on this host and carries our mark."""

    uuid: str
    power: Power
    launch: Launch
    order: CarriedOut = NO_ORDER
    incarnation: int = 1  # of the assignment that it was begun for
    rescued: bool = False  # its domain boots from another disk than its own, or did last
    kept_disks: frozenset[str] = frozenset()  # ids of wire.KeptDisk of which there is a copy
    awaited: bool = False  # all is ready here for it to come while it runs
    # What was attached to it while it was there, by the accelerator's id; False: begun, and not known to be done.
    plugs: Mapping[str, bool] = field(default_factory=dict)
    let_go: frozenset[str] = frozenset()  # those of them that its guest let go of when nobody waited for that any more
    lacks: bool = False  # it runs without a device of its own that it was to let go of for a while


@dataclass(frozen=True)
class Capacity:
    """What a host has in all."""

    cpus: int  # that servers share
    memory_mb: int
    disk_gb: int
    dedicated_cpus: int = 0


@dataclass(frozen=True)
class Snapshot:
    """A file with all that was on a server's disk at one moment; whoever is given it removes it."""

    path: Path
    disk_format: str  # as Glance names it


def rescue_image(assignment: wire.Assignment) -> wire.ImageSpec | None:
    """Return what a server is to be rescued with; None when it is to boot from its own disk."""
    order = assignment.get("order")
    return order.get("rescue") if order is not None and order["power"] == "rescued" else None


def to_run(assignment: wire.Assignment) -> bool:
    """Tell whether a server is to run."""
    return "order" not in assignment or assignment["order"]["power"] in ("running", "rescued")


def leaving_plugs(assignment: wire.Assignment) -> list[str]:
    """Return the accelerators that are to be detached: a start leaves them out, and their devices to be given back."""
    plugs = [device["plug"] for device in assignment["devices"] if "plug" in device]
    return sorted({plug["id"] for plug in plugs if plug["leaves"]})


class Progress:
    """How a long action says what it does, and learns that it should stop."""

    def __init__(
        self,
        report: Callable[[str], None],
        cancelled: threading.Event,
        programming: Callable[[wire.Programming], None] = lambda _job: None,
        migration: Callable[[wire.LiveProgress], None] = lambda _progress: None,
    ) -> None:
        """
        :param programming: called with an FPGA region's programming whenever it is further
        :param migration: called with how far a live migration is
        """
        self._report = report
        self.cancelled = cancelled
        self.programming = programming
        self.migration = migration

    def step(self, detail: str) -> None:
        """Say what is done next.

        :raises InterruptedBuildError: when it should not be done any more
        """
        self.check()
        self._report(detail)

    def check(self) -> None:
        """Return only when the action should go on.

        :raises InterruptedBuildError: when it should not
        """
        if self.cancelled.is_set():
            raise InterruptedBuildError


class RemoteFiles(Protocol):
    """A server's files on the host that has set it aside: :class:`accelsched.agent.handover.Source`."""

    host: str

    def files(self) -> dict[str, int]: ...
    def fetch(self, name: str, size: int, path: Path) -> None: ...


class RunningServer(RemoteFiles, Protocol):
    """A server that runs on another host: :class:`accelsched.agent.handover.Source`."""

    def departure(self) -> wire.Departure: ...


class Destination(Protocol):
    """The host that a server which runs is to go to: :class:`accelsched.agent.handover.Destination`."""

    host: str
    aborted: bool

    def landing(self, domain: str) -> wire.Landing: ...
    def landed(self) -> bool: ...


class VirtDriver(ABC):
    """Runs servers. Every method may be repeated after a kill at any line, and called from several threads."""

    simulated: ClassVar[bool] = False

    def __init__(self, context: devices.HostContext) -> None:
        self.context = context

    @abstractmethod
    def hypervisor(self) -> wire.HypervisorReport:
        """Say what runs the servers.

        :raises accelsched.errors.UnavailableError: when it does not answer now
        """

    @abstractmethod
    def capacity(self) -> Capacity:
        """Return what the host has."""

    def numa(self) -> wire.NumaTopology | None:
        """Return the host's NUMA nodes, None when it cannot tell.

        :raises accelsched.errors.UnavailableError: when the hypervisor does not answer now
        """
        return None

    @abstractmethod
    def traits(self) -> frozenset[str]:
        """Return the traits of the host that come from how servers run."""

    @abstractmethod
    def servers(self) -> list[PresentServer]:
        """Return every server of this node of which something is here.

        :raises accelsched.errors.UnavailableError: when that cannot be told now
        """

    @abstractmethod
    def build(self, assignment: wire.Assignment, attachments: Sequence[devices.Attachment], progress: Progress) -> None:
        """Make whatever is missing of a server and have it run; what is there already stays as it is.

        One that is paused or suspended goes on where it was. One whose order says that it is rescued boots from the
        disk of :meth:`prepare_rescue`, which is removed when it is no longer rescued. A disk that its flavor has grown
        beyond grows; of one that may be wanted again (:class:`accelsched.wire.KeptDisk`) a copy is kept first.

        :raises BuildError: when it cannot be made
        :raises accelsched.errors.UnavailableError: when the hypervisor does not answer now
        :raises InterruptedBuildError: when told to stop
        """

    @abstractmethod
    def prepare_rescue(self, assignment: wire.Assignment, progress: Progress) -> None:
        """Make the disk that a server is to be rescued with, while it goes on as it does.

        :raises BuildError: when it cannot be made
        :raises InterruptedBuildError: when told to stop
        """

    @abstractmethod
    def stop(self, server_uuid: str, grace_s: float, progress: Progress) -> None:
        """Stop a server's domain; the next :meth:`build` boots it anew.

        :param grace_s: how long the guest may take to shut down by itself before it is switched off; 0 for at once
        :raises accelsched.errors.UnavailableError: when the hypervisor does not answer now
        :raises InterruptedBuildError: when told to stop waiting
        """

    @abstractmethod
    def pause(self, server_uuid: str) -> None:
        """Have the CPUs of a server that runs stand still.

        :raises PowerError: when the hypervisor refuses
        """

    @abstractmethod
    def suspend(self, server_uuid: str, timeout_s: float, progress: Progress) -> None:
        """Save the memory of a server that runs, and stop it. Its next :meth:`build` has it go on with all its devices.

        :param timeout_s: seconds that the guest may take to let go of devices which cannot be saved
        :raises PowerError: when the hypervisor refuses, or the guest; it runs on then
        :raises InterruptedBuildError: when told to stop waiting
        """

    @abstractmethod
    def snapshot(self, server_uuid: str, progress: Progress) -> Snapshot:
        """Copy what is on a server's disk, while it goes on as it does.

        :raises SnapshotError: when that cannot be done
        :raises accelsched.errors.UnavailableError: when the hypervisor does not answer now
        :raises InterruptedBuildError: when told to stop
        """

    @abstractmethod
    def plugs(self, server_uuid: str) -> Mapping[str, bool]:
        """Return what was attached to a server while it was there, as :class:`PresentServer` has it.

        :raises accelsched.errors.UnavailableError: when the hypervisor does not answer now
        """

    @abstractmethod
    def attach(self, server_uuid: str, plug: str, attachments: Sequence[devices.Attachment]) -> None:
        """Attach an accelerator to a server; to one that does not run, from its next start on.

        :param plug: id of the accelerator
        :raises PlugError: when the hypervisor refuses
        :raises accelsched.errors.UnavailableError: when it does not answer now
        """

    @abstractmethod
    def detach(self, server_uuid: str, plug: str, timeout_s: float, progress: Progress) -> None:
        """Detach an accelerator from a server, with its guest's consent; it is not forgotten yet.

        :param timeout_s: seconds that the guest may take; if it lets go later, :class:`PresentServer` says so
        :raises PlugError: when it does not let go, or the hypervisor refuses
        :raises accelsched.errors.UnavailableError: when the hypervisor does not answer now
        :raises InterruptedBuildError: when told to stop waiting
        """

    @abstractmethod
    def forget_plug(self, server_uuid: str, plug: str) -> None:
        """Forget an accelerator that was detached, when its devices are given back.

        :raises accelsched.errors.UnavailableError: when the hypervisor does not answer now
        """

    @abstractmethod
    def put_aside(self, server_uuid: str) -> None:
        """Take a server that is stopped out of the hypervisor; its files stay, and the next :meth:`build` starts it.

        :raises PowerError: when the hypervisor refuses
        """

    @abstractmethod
    def files_aside(self, server_uuid: str) -> Mapping[str, Path]:
        """Return what another host needs of a server that is set aside, by name.

        :raises accelsched.errors.NotFoundError: when nothing of it is here
        :raises accelsched.errors.ConflictError: when it is not set aside
        """

    @abstractmethod
    def take_over(self, assignment: wire.Assignment, source: RemoteFiles, progress: Progress) -> None:
        """Fetch what is missing of a server's files from where it was set aside, before its first :meth:`build`.

        One that is not to run is stopped then, as one that had run here.

        :raises BuildError: when they are not what they should be
        :raises accelsched.errors.AccelschedError: as ``source`` does
        :raises InterruptedBuildError: when told to stop
        """

    @abstractmethod
    def departure(self, server_uuid: str) -> wire.Departure:
        """Return what another host must know of a server, to make ready for it while it runs here.

        :raises accelsched.errors.NotFoundError: when nothing of it is here
        """

    @abstractmethod
    def departing_files(self, server_uuid: str) -> Mapping[str, Path]:
        """Return the files of a server that another host needs and nobody writes to, by name.

        :raises accelsched.errors.NotFoundError: when nothing of it is here
        """

    @abstractmethod
    def await_server(
        self,
        assignment: wire.Assignment,
        attachments: Sequence[devices.Attachment],
        source: RunningServer,
        progress: Progress,
    ) -> None:
        """Make all that a server needs which is to come while it runs, but for what comes with it.

        :raises BuildError: when that cannot be made
        :raises accelsched.errors.AccelschedError: as ``source`` does
        :raises InterruptedBuildError: when told to stop
        """

    @abstractmethod
    def landing(self, server_uuid: str, domain: str) -> wire.Landing:
        """Return what a server that is awaited finds here.

        :param domain: its definition where it runs
        :raises accelsched.errors.NotFoundError: when it is not awaited here
        :raises accelsched.errors.ConflictError: when what was made for it does not fit
        """

    @abstractmethod
    def landed(self, server_uuid: str) -> bool:
        """Tell whether a server that was awaited runs here now.

        :raises accelsched.errors.UnavailableError: when the hypervisor does not answer now
        """

    @abstractmethod
    def send(self, assignment: wire.Assignment, destination: Destination, progress: Progress) -> None:
        """Have a server go to another host as it runs, or find that it has gone; nothing of it runs here then.

        :raises MigrationError: when it stays, as it is
        :raises UnfitTargetError: so too, and another host may do
        :raises accelsched.errors.UnavailableError: when it cannot be told now where it is
        :raises InterruptedBuildError: when told to stop; it stays then
        """

    @abstractmethod
    def hasten(self, server_uuid: str) -> None:
        """Have a server that is on its way stand still until it is there.

        :raises PowerError: when the hypervisor refuses
        """

    @abstractmethod
    def forget_disks(self, server_uuid: str, wanted: str | None) -> None:
        """Remove the copies of a server's disk (:class:`accelsched.wire.KeptDisk`) but for the one that is wanted."""

    @abstractmethod
    def carried_out(self, server_uuid: str, order: CarriedOut) -> None:
        """Remember, as long as anything of the server is here, which of its orders was the last."""

    @abstractmethod
    def destroy(self, server_uuid: str) -> None:
        """Stop a server of ours and remove all that is left of it."""

    def tidy(self, assignments: Sequence[wire.Assignment]) -> None:
        """Remove what is kept for servers and no server has used for long. Called often; it need not do it each time.

        :param assignments: all that is wanted on this host
        """
        return

    def interface(self, server_uuid: str) -> wire.Interface | None:
        """Say which network a server is on, and what is known of its addresses there; None when it is on none.

        :raises accelsched.errors.UnavailableError: when the hypervisor does not answer now
        """
        return None

    @abstractmethod
    def diagnostics(self, server_uuid: str) -> wire.Diagnostics:
        """Return what a server's domain does at this moment.

        :raises accelsched.errors.NotFoundError: when the server is not here, or does not run
        """

    @abstractmethod
    def inject_nmi(self, server_uuid: str) -> None:
        """Have a server's guest get a non-maskable interrupt.

        :raises accelsched.errors.NotFoundError: when the server is not here, or does not run
        :raises accelsched.errors.ConflictError: when the hypervisor refuses, or cannot
        """

    @abstractmethod
    def console_output(self, server_uuid: str) -> str:
        """Return what is kept of a server's serial console.

        :raises accelsched.errors.NotFoundError: when the server is not here
        """

    def close(self) -> None:  # noqa: B027 - not every driver keeps connections
        """Let go of connections; servers keep running."""
