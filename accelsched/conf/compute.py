# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[compute]``: which CPUs of a host servers may use, by Nova's names."""

from __future__ import annotations

from oslo_config import cfg

from accelsched import cpu_sets, errors

GROUP = "compute"

OPTS = [
    cfg.StrOpt(
        "cpu_dedicated_set",
        help="CPUs of an agent's host for servers that want CPUs of their own (PCPU): 4-12,^8,15. Without it there are "
        "none.",
    ),
    cfg.StrOpt(
        "cpu_shared_set",
        help="CPUs of an agent's host over which all other servers' CPUs float (VCPU). Without it: all, or none where "
        "cpu_dedicated_set is set.",
    ),
]


def dedicated(conf: cfg.ConfigOpts) -> frozenset[int]:
    """Return the CPUs of ``cpu_dedicated_set``.

    :raises accelsched.errors.ConfigurationError: when it is no set of CPUs
    """
    return _set(conf, "cpu_dedicated_set") or frozenset()


def shared(conf: cfg.ConfigOpts, every: frozenset[int]) -> frozenset[int]:
    """Return the CPUs that servers share.

    :param every: CPU that the host has
    :raises accelsched.errors.ConfigurationError: when the option is no set of CPUs
    """
    chosen = _set(conf, "cpu_shared_set")
    if chosen is None:
        return frozenset() if dedicated(conf) else every
    return chosen


def check(conf: cfg.ConfigOpts) -> None:
    """Check what the option types cannot.

    :raises accelsched.errors.ConfigurationError: naming the option
    """
    if both := dedicated(conf) & shared(conf, frozenset()):
        raise errors.ConfigurationError(
            f"[compute] cpu_shared_set: CPUs {cpu_sets.format(both)} are in cpu_dedicated_set too"
        )


def check_host(conf: cfg.ConfigOpts, every: frozenset[int]) -> None:
    """Check that a host has the CPUs that it is to offer.

    :param every: CPU that the host has
    :raises accelsched.errors.ConfigurationError: naming the option
    """
    for option in ("cpu_dedicated_set", "cpu_shared_set"):
        if missing := (_set(conf, option) or frozenset()) - every:
            raise errors.ConfigurationError(
                f"[compute] {option}: CPUs {cpu_sets.format(missing)} are not among this host's, "
                f"{cpu_sets.format(every)}"
            )


def _set(conf: cfg.ConfigOpts, option: str) -> frozenset[int] | None:
    text = conf.compute[option]
    if text is None:
        return None
    try:
        cpus = cpu_sets.parse(text)
    except ValueError as exc:
        raise errors.ConfigurationError(f"[compute] {option}: {exc}") from exc
    if not cpus:
        raise errors.ConfigurationError(f"[compute] {option}: {text!r} names no CPU")
    return cpus
