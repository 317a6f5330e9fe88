# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Live migration as the source's libvirt does it: peer to peer, with the disk, and watched while it goes on."""

from __future__ import annotations

import contextlib
import enum
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import libvirt
from lxml import etree
from oslo_config import cfg

from accelsched import wire
from accelsched.agent.virt.base import Progress

_LOOK_AGAIN_S = 0.5
_TOLD_EVERY_S = 5.0


class Whereabouts(enum.Enum):
    """Where a domain is, as the libvirt says that it was on."""

    HERE = "here"
    ON_ITS_WAY = "on its way"
    OFF = "off"  # here, and not running
    GONE = "gone"


def whereabouts(domain: Any) -> Whereabouts:
    """Say where a domain is.

    :param domain: None when there is none
    """
    if domain is None:
        return Whereabouts.GONE
    if not domain.isActive():
        left = list(domain.state()) == [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED]
        return Whereabouts.GONE if left else Whereabouts.OFF
    leaves = job(domain).get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
    return Whereabouts.ON_ITS_WAY if leaves else Whereabouts.HERE


def job(domain: Any) -> Mapping[str, Any]:
    """Return what libvirt says of what it does about a domain; nothing when it does nothing."""
    stats: dict[str, Any] = domain.jobStats()
    return stats if stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) != libvirt.VIR_DOMAIN_JOB_NONE else {}


def has_landed(domain: Any) -> bool:
    """Tell whether a domain runs here, and does not only receive its memory yet."""
    if domain is None or not domain.isActive():
        return False
    state, reason = domain.state()
    receives = (libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)
    return not (state == libvirt.VIR_DOMAIN_PAUSED and reason in receives)


@dataclass(frozen=True)
class Downtime:
    """How long a guest may stand still at the end: raised in steps until it gets through."""

    ms: int
    steps: int
    delay_s: float

    def after(self, seconds: float) -> int:
        """Return what is allowed so long after the begin, ms."""
        step = min(int(seconds / self.delay_s) + 1, self.steps)
        return max(self.ms * step // self.steps, 1)


# What is in a device is copied while the guest stands still, and for a GPU's memory that takes its time: whoever wants
# such a server moved wants that. So these follow from the devices, and the operator's are for guests without.
_OF_DEVICES = Downtime(ms=500_000, steps=3, delay_s=3.0)


def downtime(definition: etree._Element, options: cfg.ConfigOpts) -> Downtime:
    """Return how long a guest may stand still.

    :param options: ``[libvirt]``
    """
    if definition.find("devices/hostdev") is not None:
        return _OF_DEVICES
    return Downtime(
        options.live_migration_downtime, options.live_migration_downtime_steps, options.live_migration_downtime_delay
    )


def flags(definition: etree._Element, options: cfg.ConfigOpts) -> int:
    """Return libvirt's flags for a migration."""
    chosen = (
        libvirt.VIR_MIGRATE_LIVE
        | libvirt.VIR_MIGRATE_PEER2PEER
        | libvirt.VIR_MIGRATE_PERSIST_DEST
        | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    )
    if any(disk.find("readonly") is None for disk in definition.iterfind("devices/disk")):
        chosen |= libvirt.VIR_MIGRATE_NON_SHARED_INC  # what its image has is there already
    if options.live_migration_permit_auto_converge:
        chosen |= libvirt.VIR_MIGRATE_AUTO_CONVERGE
    if options.live_migration_with_native_tls:
        chosen |= libvirt.VIR_MIGRATE_TLS
    return int(chosen)


def parameters(landing: wire.Landing, options: cfg.ConfigOpts) -> dict[str, Any]:
    """Return libvirt's parameters for a migration."""
    address = landing["address"]
    told = {
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: landing["xml"],
        libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: landing["xml"],
        libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{f'[{address}]' if ':' in address else address}",
    }
    if options.live_migration_bandwidth:
        told[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = options.live_migration_bandwidth
    return told


class Watch:
    """Sees a migration through: tells how far it is, lets the guest stand still longer, ends it when it is told to."""

    def __init__(self, domain: Any, allowed: Downtime, options: cfg.ConfigOpts, gib: float, progress: Progress) -> None:
        """
        :param gib: how much there is to be copied
        """
        self._domain = domain
        self._allowed = allowed
        self._limit_s = options.live_migration_completion_timeout * max(gib, 1.0)
        self._force = options.live_migration_timeout_action == "force_complete"
        self._progress = progress
        self.moved = False  # whether anything was seen to have been sent

    def until(self, over: Callable[[float], bool]) -> bool:
        """Watch until it is over.

        :param over: waits so many seconds at most, and tells whether it is
        :returns: whether it took too long and was ended for that
        """
        began = told_at = time.monotonic()
        set_ms, late = 0, False
        while not over(_LOOK_AGAIN_S):
            # What libvirt answers when the migration ended just now, or has not quite begun, is of no use.
            with contextlib.suppress(libvirt.libvirtError):
                since = time.monotonic() - began
                if self._progress.cancelled.is_set():
                    self._domain.abortJob()
                    continue
                if (ms := self._allowed.after(since)) != set_ms:
                    self._domain.migrateSetMaxDowntime(ms, 0)
                    set_ms = ms
                if self._limit_s and since > self._limit_s and not late:
                    self._domain.suspend() if self._force else self._domain.abortJob()
                    late = True
                stats = job(self._domain)
                self.moved |= any(stats.get(key, 0) > 0 for key in ("memory_processed", "disk_processed"))
                if time.monotonic() - told_at >= _TOLD_EVERY_S or told_at == began:
                    told_at = time.monotonic()
                    if stats:
                        self._progress.migration(told(stats))
        return late and not self._force


def told(stats: Mapping[str, Any]) -> wire.LiveProgress:
    """Return how far a migration is."""
    return {
        "memory_total": stats.get("memory_total", 0),
        "memory_processed": stats.get("memory_processed", 0),
        "memory_remaining": stats.get("memory_remaining", 0),
        "disk_total": stats.get("disk_total", 0),
        "disk_processed": stats.get("disk_processed", 0),
        "disk_remaining": stats.get("disk_remaining", 0),
    }


# What the other host's libvirt answers when it is asked to make ready, or this one when it does not let it in.
_OF_TARGET = frozenset(
    {
        libvirt.VIR_ERR_CPU_INCOMPATIBLE,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_NO_CONNECT,
        libvirt.VIR_ERR_AUTH_FAILED,
    }
)
_UNREACHED = (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC)


def is_about_target(error: libvirt.libvirtError) -> bool:
    """Tell whether another host might do, by what libvirt says of a migration that failed."""
    code = error.get_error_code()
    return code in _OF_TARGET or (code, error.get_error_domain()) == _UNREACHED


class Sending:
    """One call of libvirt's that does not return before the migration is over, in a thread of its own.

    Over a connection of its own, too: libvirtd answers only some calls of one connection at a time, five unless told
    otherwise, and these go on for long.
    """

    def __init__(self, here: str, server_uuid: str, there: str, parameters_: Mapping[str, Any], flags_: int) -> None:
        """
        :param here: URI of the libvirt that has the domain
        :param there: URI by which that reaches the other one
        """
        self.error: libvirt.libvirtError | None = None
        self._here = here
        self._call: Callable[[Any], object] = lambda connection: connection.lookupByUUIDString(
            server_uuid
        ).migrateToURI3(there, dict(parameters_), flags_)
        self._thread = threading.Thread(target=self._run, name="live-migration", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with contextlib.closing(libvirt.open(self._here)) as connection:
                self._call(connection)
        except libvirt.libvirtError as exc:
            self.error = exc

    def over(self, seconds: float) -> bool:
        """Wait so long at most, and tell whether it is over."""
        self._thread.join(seconds)
        return not self._thread.is_alive()
