# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``tools/quickstart``: from nothing to a server with a vGPU, and what runs, and the end of it.

Every step looks first at what is there, so a run that was interrupted anywhere is finished by the next.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from stack import accounts, clouds, environment, files, guest, progress
from stack.client import OpenStackClient
from stack.demonstration import Demonstration
from stack.errors import StackError
from stack.identity import Keystone
from stack.image import Glance, Images
from stack.service import Standalone
from stack.sites import LabMachine, Site, ThisMachine

DEFAULT_STATE_DIR = Path("/var/lib/accelsched")


class Stack:
    """Everything that one state directory holds.

    :param state_dir: absolute
    :param lab: have the servers in the hardware lab's machine; None for what was started before
    :param ports: of accelsched, Keystone and Glance, on loopback
    """

    def __init__(
        self, state_dir: Path, lab: bool | None = None, ports: tuple[int, int, int] = (8790, 5000, 9292)
    ) -> None:
        self.state_dir = state_dir
        self.clouds_yaml = state_dir / "clouds.yaml"
        self.keystone = Keystone(state_dir, ports[1])
        self.glance = Glance(state_dir, self.keystone, ports[2])
        self.service = Standalone(state_dir, self.keystone, self.glance, ports[0])
        self._site_file = state_dir / "site"
        self.site = self._site(lab)

    def _site(self, lab: bool | None) -> Site:
        sites: dict[str, type[ThisMachine] | type[LabMachine]] = {s.name: s for s in (ThisMachine, LabMachine)}
        started = self._site_file.read_text().strip() if self._site_file.exists() else ThisMachine.name
        wanted = started if lab is None else (LabMachine if lab else ThisMachine).name
        if wanted != started and self.service.daemon.pid() is not None:
            go_on = " --lab" if started == LabMachine.name else ""
            raise StackError(
                f"the servers of {self.state_dir} run on {started}. To go on there: tools/quickstart{go_on}. "
                "To change: tools/quickstart stop first"
            )
        return sites[wanted](self.state_dir)

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Keep others from starting or stopping the same stack meanwhile.

        :raises StackError: when somebody is at it
        """
        files.directory(self.state_dir)
        with (self.state_dir / "quickstart.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError(f"another quickstart is at work in {self.state_dir}; wait for it") from None
            yield

    def start(self) -> None:
        """Bring everything up."""
        files.write(self._site_file, self.site.name)
        with ThreadPoolExecutor(max_workers=2) as pool:
            # The two sides do not need each other until the service joins them.
            for side in [pool.submit(self.site.start), pool.submit(self._start_neighbours)]:
                side.result()
        self.service.start(self.site.home(), self.site.options())
        self.site.join(self.keystone, self.glance)

    def _start_neighbours(self) -> None:
        environment.services_python()
        with ThreadPoolExecutor(max_workers=2) as pool:
            for started in [pool.submit(self.keystone.start), pool.submit(self.glance.start)]:
                started.result()
        with progress.step("users, roles and catalog") as step:
            changes = accounts.ensure(self.keystone, accounts.catalog(self.glance.url, self.service.url))
            step.detail = f"{changes} new" if changes else "all there already"
        clouds.write(self.clouds_yaml, self.keystone)
        built = guest.build()
        with progress.step("images") as step:
            image = Images(self.keystone.session(), self.glance.url).ensure_guest(built)
            step.detail = f"{image['name']} with its kernel and ramdisk, kernel {built.kernel_release}"

    def stop(self) -> None:
        """End everything that this stack started, dependants first."""
        with progress.step("stopping accelsched") as step:
            step.detail = "done" if self.service.stop() else "did not run"
        with progress.step("ending the servers' domains") as step:
            step.detail = self.site.end_domains()
        for name, stop in (("Glance", self.glance.stop), ("Keystone", self.keystone.stop)):
            with progress.step(f"stopping {name}") as step:
                step.detail = "done" if stop() else "did not run"
        with progress.step(f"leaving {self.site.name}") as step:
            step.detail = self.site.stop()

    def status(self) -> bool:
        """Print what runs; return whether all of it does."""
        daemons = (
            (self.keystone.daemon, self.keystone.url),
            (self.glance.daemon, self.glance.url),
            (self.service.daemon, self.service.url),
        )
        complete = True
        for daemon, url in daemons:
            pid = daemon.pid()
            complete &= pid is not None
            progress.say(f"{daemon.name:22} {f'runs, process {pid}, {url}' if pid else f'stopped; log {daemon.log}'}")
        domains = self.site.domains()
        progress.say(f"{'running servers':22} {len(domains)}, on {self.site.name}")
        for name in domains:
            progress.say(f"  {name}")
        return complete


def main(argv: list[str] | None = None) -> int:
    """Carry out one command; return its exit status: 0 done, 1 failed, 3 for a status of which not all runs."""
    arguments = _parser().parse_args(argv)
    # Everything is on loopback, which no proxy reaches.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(
        filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"])
    )
    signal.signal(signal.SIGTERM, _interrupt)
    commands: dict[str, Callable[[Stack], int]] = {"start": _start, "status": _status, "stop": _stop}
    lab = arguments.lab if arguments.command == "start" else None
    ports = (arguments.port, arguments.keystone_port, arguments.glance_port)
    try:
        return commands[arguments.command](Stack(arguments.state_dir.absolute(), lab, ports))
    except StackError as exc:
        print(f"quickstart: {exc}\nRun it again when that is put right; what was done stays done.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("quickstart: interrupted; run it again to go on, or: tools/quickstart stop", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/quickstart",
        description="A server with a vGPU on this machine: Keystone, Glance, accelsched and libvirt, all on loopback.",
        epilog="Example: tools/quickstart && OS_CLIENT_CONFIG_FILE=/var/lib/accelsched/clouds.yaml "
        "openstack --os-cloud accelsched server list",
    )
    parser.add_argument("command", nargs="?", choices=["start", "status", "stop"], default="start")
    parser.add_argument(
        "--lab", action="store_true", help="run the agent in the hardware lab's machine, with real mediated devices"
    )
    parser.add_argument("--state-dir", type=Path, default=DEFAULT_STATE_DIR, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=8790, help="of accelsched, default: %(default)s")
    parser.add_argument("--keystone-port", type=int, default=5000, metavar="PORT", help="default: %(default)s")
    parser.add_argument("--glance-port", type=int, default=9292, metavar="PORT", help="default: %(default)s")
    return parser


def _start(stack: Stack) -> int:
    # The front in Bash, which installed things, began earlier.
    began = float(os.environ.get("QUICKSTART_BEGAN") or time.time())
    with stack.exclusively():
        stack.start()
        client = OpenStackClient(stack.clouds_yaml)
        server_id = Demonstration(client, stack.keystone.session(), stack.service).run()
        _explain(stack, server_id, time.time() - began)
    return 0


def _explain(stack: Stack, server_id: str, elapsed_s: float) -> None:
    progress.say("")
    for line in stack.site.notes():
        progress.say(line)
    progress.say(f"The stack runs on, after {elapsed_s:.0f} s; state and logs: {stack.state_dir}")
    progress.say("")
    progress.say("Use it:")
    progress.say(f"  export PATH={Path(sys.executable).parent}:$PATH")
    progress.say(f"  export OS_CLIENT_CONFIG_FILE={stack.clouds_yaml} OS_CLOUD=accelsched")
    progress.say("  openstack server list; openstack resource provider list; openstack console log show quickstart")
    progress.say(f"  openstack accel server explain {server_id}")
    progress.say("  openstack --os-cloud accelsched-demo server list     (an ordinary user's view)")
    this = "" if stack.state_dir == DEFAULT_STATE_DIR else f" --state-dir {stack.state_dir}"
    progress.say(f"  tools/quickstart status{this}; tools/quickstart stop{this}")


def _status(stack: Stack) -> int:
    return 0 if stack.status() else 3


def _stop(stack: Stack) -> int:
    with stack.exclusively():
        stack.stop()
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
