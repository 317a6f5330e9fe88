# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Every option of every process. ``CONF`` is the process's own; tests make theirs with :func:`new`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from keystoneauth1 import loading as ks_loading
from oslo_config import cfg
from oslo_db import options as db_options
from oslo_log import log
from oslo_policy import opts as policy_options

from accelsched import errors, rpc
from accelsched.conf import (
    agent,
    api,
    compute,
    devices,
    filter_scheduler,
    fpga,
    glance,
    image_cache,
    libvirt,
    metrics,
    pci,
    privsep,
    quota,
    scheduler,
    service,
    standalone,
    zones,
)

_MODULES = (
    agent,
    api,
    compute,
    devices,
    filter_scheduler,
    fpga,
    glance,
    image_cache,
    libvirt,
    metrics,
    pci,
    privsep,
    quota,
    scheduler,
    service,
    standalone,
    zones,
)


def register(conf: cfg.ConfigOpts) -> None:
    """Register every option of this package, and those of the oslo libraries it reads, on ``conf``."""
    for module in _MODULES:
        conf.register_opts(module.OPTS, group=None if module.GROUP == "DEFAULT" else module.GROUP)
    ks_loading.register_session_conf_options(conf, glance.GROUP)
    ks_loading.register_auth_conf_options(conf, glance.GROUP)
    ks_loading.register_adapter_conf_options(conf, glance.GROUP)
    db_options.set_defaults(conf)
    conf.set_default("max_pool_size", 16, group="database")
    policy_options.set_defaults(conf)
    log.register_options(conf)
    rpc.register_options(conf)


def new() -> cfg.ConfigOpts:
    """Return a fresh set of options with every option registered and nothing read."""
    conf = cfg.ConfigOpts()
    register(conf)
    return conf


def parse(
    conf: cfg.ConfigOpts,
    argv: Sequence[str],
    prog: str,
    version: str | None = None,
    prepare: Callable[[cfg.ConfigOpts], None] | None = None,
) -> None:
    """Read the command line and the files, and check every option now rather than when it is first needed.

    :param prepare: called between reading and checking, to let a command's own options override others
    :raises accelsched.errors.ConfigurationError: with one line that names the option and what is wrong with it
    """
    try:
        conf(list(argv), project="accelsched", prog=prog, version=version)
    except (cfg.ConfigFilesNotFoundError, cfg.ConfigFilesPermissionDeniedError) as exc:
        raise errors.ConfigurationError(f"configuration file: {exc}") from exc
    except cfg.ConfigFileParseError as exc:
        raise errors.ConfigurationError(" ".join(str(exc).split())) from exc
    if prepare is not None:
        prepare(conf)
    for module in _MODULES:
        for opt in module.OPTS:
            _check(conf, opt, module.GROUP)
    for group, opts in [*db_options.list_opts(), *rpc.list_options()]:
        for opt in opts:
            _check(conf, opt, group or "DEFAULT")
    agent.check(conf)
    api.check(conf)
    compute.check(conf)
    devices.check(conf)
    filter_scheduler.check(conf)
    fpga.check(conf)
    libvirt.check(conf)
    metrics.check(conf)
    pci.check(conf)


def _check(conf: cfg.ConfigOpts, opt: cfg.Opt, group: str) -> None:
    try:
        _ = conf[opt.dest] if group == "DEFAULT" else conf[group][opt.dest]
    except (ValueError, cfg.Error) as exc:
        raise errors.ConfigurationError(f"[{group}] {opt.name}: {' '.join(str(exc).split())}") from exc


def list_opts() -> Iterable[tuple[str, Iterable[cfg.Opt]]]:
    """Return (group, options) pairs for oslo-config-generator."""
    return [
        *((module.GROUP, module.OPTS) for module in _MODULES),
        (
            glance.GROUP,
            list(
                itertools.chain(
                    ks_loading.get_session_conf_options(),
                    ks_loading.get_auth_common_conf_options(),
                    ks_loading.get_auth_plugin_conf_options("v3password"),
                    ks_loading.get_adapter_conf_options(),
                )
            ),
        ),
    ]
