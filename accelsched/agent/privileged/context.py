# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Who carries the operations out: this process, or a helper of it that is root."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from oslo_config import cfg
from oslo_log import log
from oslo_privsep import capabilities, daemon, priv_context

from accelsched import conf as options
from accelsched import errors
from accelsched.conf import privsep

LOG = log.getLogger(__name__)

# Of the helper itself; what it executes has what root has. DAC_*: sysfs, and files that QEMU's user has; CHOWN, FOWNER:
# to hand such a file over; SYS_ADMIN, SYS_RAWIO, SYS_RESOURCE: drivers ask for them; KILL: executables that are slow.
_CAPABILITIES = {
    capabilities.CAP_CHOWN,
    capabilities.CAP_DAC_OVERRIDE,
    capabilities.CAP_DAC_READ_SEARCH,
    capabilities.CAP_FOWNER,
    capabilities.CAP_KILL,
    capabilities.CAP_SYS_ADMIN,
    capabilities.CAP_SYS_RAWIO,
    capabilities.CAP_SYS_RESOURCE,
}


class _Context(priv_context.PrivContext):
    """Starts its helper again if that ends, where it can."""

    forked = False  # the helper was, and nobody here is root any more

    def start(self, method: priv_context.Method = priv_context.Method.ROOTWRAP) -> None:
        """Start the helper; called by the library too, when one that was there has ended.

        :raises accelsched.errors.UnavailableError: when there can be none
        """
        if self.forked:
            LOG.critical(
                "The agent's helper has ended, and only root can start another: the agent ends, to be started anew"
            )
            os.kill(os.getpid(), signal.SIGTERM)
            raise errors.UnavailableError("the agent's helper has ended")
        try:
            super().start(method)
        except (OSError, daemon.FailedToDropPrivileges) as exc:
            raise errors.UnavailableError(f"the agent's helper cannot be started: {exc}") from exc
        self.forked = method is priv_context.Method.FORK


ROOT = _Context(
    "accelsched",
    cfg_section=privsep.GROUP,
    pypath=f"{__name__}.ROOT",
    # In a container root has not all of them; to keep one that is not there is an error.
    capabilities=sorted(_CAPABILITIES & {*capabilities.get_caps()[1]}),
)
cfg.CONF.set_default("thread_pool_size", privsep.THREADS, group=privsep.GROUP)
# Until start() says otherwise: also for who uses a driver alone.
ROOT.set_client_mode(False)

_configured: list[cfg.ConfigOpts] = []  # at most one


def start(conf: cfg.ConfigOpts) -> None:
    """Have operations carried out as the configuration says; called once, before there are threads.

    :raises accelsched.errors.ConfigurationError: when the user is not there, or no helper can be had
    """
    use(conf)
    user = conf.agent.user
    if os.geteuid() != 0:
        if user not in (None, pwd.getpwuid(os.geteuid()).pw_name):
            raise errors.ConfigurationError(f"[agent] user: only an agent that root starts can become {user}")
        _begin(conf, priv_context.Method.ROOTWRAP)
        return
    if user is None:
        ROOT.set_client_mode(False)
        return
    try:
        account = pwd.getpwnam(user)
    except KeyError as exc:
        raise errors.ConfigurationError(f"[agent] user: this host has no user {user}") from exc
    if account.pw_uid == 0:
        raise errors.ConfigurationError("[agent] user: root is what the agent is without it")
    with _deaf():
        _begin(conf, priv_context.Method.FORK)
    _become(account)


def use(conf: cfg.ConfigOpts) -> None:
    """Have operations of this process read this configuration."""
    _configured[:] = [conf]


def conf() -> cfg.ConfigOpts:
    """Return the configuration by which operations are carried out: in a helper that was not forked, its own."""
    if not _configured:
        own = options.new()
        files = [option for file in cfg.CONF.config_file or () for option in ("--config-file", file)]
        options.parse(own, files, "accelsched-agent")
        use(own)
    return _configured[0]


def _begin(conf: cfg.ConfigOpts, method: priv_context.Method) -> None:
    """Start the helper now: what stands against it is to be known before a device is wanted."""
    cfg.CONF.set_override("thread_pool_size", conf.privsep.thread_pool_size, group=privsep.GROUP)
    command = conf.privsep.helper_command or shlex.join(_default_command(conf.config_file or ()))
    cfg.CONF.set_override("helper_command", command, group=privsep.GROUP)
    ROOT.set_client_mode(True)
    this = os.getpid()
    try:
        ROOT.start(method)
    except BaseException as exc:
        if os.getpid() != this:  # the helper, forked, which must not go on as if it were the agent
            os._exit(1)
        if isinstance(exc, errors.UnavailableError):
            raise errors.ConfigurationError(
                f"this agent is not to be root, and has no helper: {command}: {exc}"
            ) from exc
        raise


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Have a process that is forked meanwhile not hear signals to stop: it ends with the agent.

    A terminal, or a service manager, may send them to both. Other than being ignored, being handled is not passed on to
    what the helper executes.
    """
    came: list[int] = []
    before = {
        stop: signal.signal(stop, lambda number, _frame: came.append(number))
        for stop in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for stop, handler in before.items():
            signal.signal(stop, handler)
        for number in came:
            signal.raise_signal(number)


def _default_command(files: Iterable[str]) -> list[str]:
    helper = Path(sys.executable).with_name("privsep-helper")
    return ["sudo", "-n", str(helper), *(part for file in files for part in ("--config-file", file))]


def _become(account: pwd.struct_passwd) -> None:
    os.initgroups(account.pw_name, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    os.environ.update({"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name})
    groups = ", ".join(sorted(grp.getgrgid(number).gr_name for number in os.getgroups()))
    LOG.info("The agent is user %s from now on, of groups %s", account.pw_name, groups)
    # What is loaded later would fail one by one, each time with another message.
    for prefix in (sys.prefix, sys.base_prefix):
        if not os.access(prefix, os.R_OK | os.X_OK):
            raise errors.ConfigurationError(
                f"[agent] user: {account.pw_name} cannot read {prefix}, from which the agent runs: install Python and "
                "accelsched where others than root may read, not in a home folder"
            )
