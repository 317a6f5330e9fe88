# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""An agent that is not root: its process is truly another user's, and a helper does what takes root."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import patience
import pytest

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[2]
AS_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
SERVER = "aaaaaaaa-0000-4000-8000-000000000001"
VIRTUAL = ["0000:42:00.4", "0000:42:00.5"]


def _fake_sysfs() -> Any:
    path = HERE.parents[1] / "unit/agent/fake_sysfs.py"
    spec = importlib.util.spec_from_file_location("fake_sysfs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FakeSysfs


@pytest.fixture
def directory() -> Iterator[Path]:
    """Return a directory that nobody can reach, as pytest's own are not."""
    path = Path("/var/tmp") / f"accelsched-unprivileged-{os.getpid()}"
    path.mkdir(mode=0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def configuration(directory: Path) -> Path:
    sysfs = _fake_sysfs()(directory / "sys")
    gpu = sysfs.add_function("0000:41:00.0", "10de", "25b6", group=7)
    sysfs.add_mdev_parent(gpu, {"nvidia-2": 4})
    (gpu / "mdev_supported_types/nvidia-2/create").write_text("")
    sysfs.add_function("0000:42:00.0", "10de", "26b9", pci_class="0x030200", group=8)
    sysfs.add_virtual_functions("0000:42:00.0", VIRTUAL, "26b9", first_group=20)
    sysfs.add_vendor_vgpus(VIRTUAL)
    for attribute in (directory / "sys").rglob("*"):
        if attribute.is_file():
            attribute.chmod(0o200 if attribute.name == "create" else 0o644)
    smi = directory / "nvidia-smi"
    smi.write_text(
        '#!/bin/sh\n[ "$(id -u)" = 0 ] || exit 9\ncat <<END\n'
        "    vGPU Type ID                  : 0x2\n"
        "        Name                      : NVIDIA L40S-8Q\n"
        "        Max Instances             : 2\nEND\n"
    )
    cleaner = directory / "clean"
    cleaner.write_text('#!/bin/sh\necho "$(id -u) cleans $*"\n')
    for script in (smi, cleaner):
        script.chmod(0o755)
    nobody = pwd.getpwnam("nobody")
    state = directory / "state"
    for path in (state, state / "instances", state / "instances" / SERVER):
        path.mkdir(mode=0o711)
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    console = state / "instances" / SERVER / "console.log"
    console.write_text("login:")  # virtlogd's
    console.chmod(0o600)
    file = directory / "accelsched.conf"
    file.write_text(
        f"[DEFAULT]\nstate_path = {state}\n[agent]\nhost = node1\n"
        f"[devices]\nsysfs_root = {directory}/sys\nnvidia_smi = {smi}\ncleaning_command = {cleaner} --full\n"
    )
    return file


def reachable(directory: Path) -> list[str]:
    """Return what runs a command where any user reaches Python and the checkout, as on a host that has them installed.

    Where they are below a directory that is root's alone, the command gets file systems of its own, in which that
    directory has nothing else.
    """
    needed = [TOP, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()]
    hidden = {parent for path in needed for parent in path.parents if not parent.stat().st_mode & stat.S_IXOTH}
    commands = ["set -e"]
    for number, top in enumerate(sorted(path for path in hidden if not hidden & {*path.parents})):
        aside = directory / f"aside{number}"
        commands += [f"mkdir {aside}", f"mount --bind {top} {aside}", f"mount -t tmpfs -o mode=755 none {top}"]
        for path in sorted({path for path in needed if top in path.parents}):
            if not any(other in path.parents for other in needed):
                commands += [f"mkdir -p {path}", f"mount --bind {aside / path.relative_to(top)} {path}"]
    return ["unshare", "--mount", "sh", "-c", "\n".join([*commands, 'exec "$@"']), "sh"]


def execute(directory: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    everything = [*reachable(directory), *map(str, command)]
    return subprocess.run(everything, capture_output=True, text=True, timeout=60, check=False, cwd="/")


def run(directory: Path, *command: str | Path) -> dict[str, Any]:
    done = execute(directory, *command)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def check(told: dict[str, Any], directory: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    assert told["uid"] == nobody.pw_uid
    assert 0 not in told["groups"]
    created = directory / "sys/class/mdev_bus/0000:41:00.0/mdev_supported_types/nvidia-2/create"
    assert created.read_text() == told["created"]
    assert told["alone"] == "refused"
    attribute = directory / "sys/bus/pci/devices" / told["virtual function"] / "nvidia/current_vgpu_type"
    assert attribute.read_text().startswith("2")
    assert "is no PCI address" in told["bad address"]
    assert told["missing"] == 2
    assert told["cleaned"]["output"] == "0 cleans --full 0000:41:00.0\n"
    assert told["console"] == "login:"
    assert (directory / "state/instances" / SERVER / "console.log").stat().st_uid == nobody.pw_uid
    for record in (directory / "state").rglob("*"):
        assert record.stat().st_uid == nobody.pw_uid, record


def test_root_leaves_a_helper_behind_and_becomes_another_user(configuration: Path, directory: Path) -> None:
    text = configuration.read_text().replace("[agent]\n", "[agent]\nuser = nobody\n")
    configuration.write_text(text)
    told = run(directory, sys.executable, HERE / "unprivileged.py", configuration)
    check(told, directory)
    assert told["without helper"] == "the agent's helper has ended"
    assert told["came"] == [signal.SIGTERM]  # it cannot go on


def test_another_user_has_a_command_start_the_helper(configuration: Path, directory: Path) -> None:
    """Stands in for sudo, which is not installed everywhere: a server, run by root, of what it is asked to start."""
    asked, answered = directory / "asked", directory / "answered"
    for fifo in (asked, answered):
        os.mkfifo(fifo)
        os.chown(fifo, pwd.getpwnam("nobody").pw_uid, -1)
    helper = directory / "helper"
    helper.write_text(f'#!/bin/sh\necho "$@" > {asked}\nexit "$(cat {answered})"\n')
    helper.chmod(0o755)
    as_root = f'read arguments < {asked}; "$0" --config-file {configuration} $arguments; echo $? > {answered}'
    privsep_helper = Path(sys.executable).with_name("privsep-helper")
    with configuration.open("a") as file:
        file.write(f"[privsep]\nhelper_command = {helper}\n")
    with subprocess.Popen(["sh", "-c", as_root, privsep_helper]) as root:
        try:
            told = run(directory, *AS_NOBODY, sys.executable, HERE / "unprivileged.py", configuration)
        finally:
            root.kill()
    check(told, directory)


def test_an_agent_that_can_get_no_helper_says_so(configuration: Path, directory: Path) -> None:
    with configuration.open("a") as file:
        file.write("[privsep]\nhelper_command = /bin/false\n")
    agent = Path(sys.executable).with_name("accelsched-agent")
    done = execute(directory, *AS_NOBODY, agent, "--config-file", configuration)
    assert done.returncode == 2, done.stderr
    assert "this agent is not to be root, and has no helper: /bin/false" in done.stderr


def test_a_user_who_cannot_read_the_agents_python_is_no_user_for_it(configuration: Path, directory: Path) -> None:
    configuration.write_text(configuration.read_text().replace("[agent]\n", "[agent]\nuser = nobody\n"))
    private = directory / "home"
    private.mkdir(mode=0o700)
    agent = "import sys; from accelsched.cmd.agent import main; sys.base_prefix = sys.argv.pop(1); sys.exit(main())"
    done = execute(directory, sys.executable, "-c", agent, private, "--config-file", configuration)
    assert done.returncode == 2, done.stderr
    assert f"nobody cannot read {private}, from which the agent runs: install" in done.stderr


def test_the_agent_itself_runs_as_another_user_and_its_helper_ends_with_it(
    configuration: Path, directory: Path
) -> None:
    text = configuration.read_text().replace("[agent]\n", "[agent]\nuser = nobody\nvirt_driver = simulated\n")
    configuration.write_text(text.replace("[DEFAULT]\n", "[DEFAULT]\ntransport_url = rabbit://127.0.0.1:9/\n"))
    agent = [Path(sys.executable).with_name("accelsched-agent"), "--config-file", configuration]
    with subprocess.Popen([*reachable(directory), *map(str, agent)], stderr=subprocess.PIPE, cwd="/") as process:
        try:
            node = directory / "state/node_uuid"
            patience.wait(lambda: node.exists() and node.read_text())  # by exec the shell has become the agent
            assert users(process.pid) == [pwd.getpwnam("nobody").pw_uid, 0]
            assert node.stat().st_uid == pwd.getpwnam("nobody").pw_uid
            helper = children(process.pid)[0]
        finally:
            process.terminate()
            try:
                _, said = process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert process.returncode == 0, said
    patience.wait(lambda: not Path(f"/proc/{helper}").exists())


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def users(pid: int) -> list[int]:
    """Return the uids of a process and its children."""
    return [Path(f"/proc/{one}").stat().st_uid for one in (pid, *children(pid))]
