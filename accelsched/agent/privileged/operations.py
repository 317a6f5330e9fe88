# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""All that is done as root. Each function checks what it is given, whoever gives it, and takes no path.

What it says went wrong is an :class:`OSError` as the kernel answers, or a
:class:`accelsched.agent.devices.base.DeviceError`; what was never to be asked is a :class:`ValueError`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelsched import errors, names
from accelsched.agent.devices import base, cleaning, sysfs
from accelsched.agent.devices.fpga import executables
from accelsched.agent.privileged.context import ROOT, conf
from accelsched.conf import fpga

_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PARENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")  # mtty, or a PCI address
_PROVIDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_INSTANCE_FILE = re.compile(r"console\.log(\.0)?|snapshot|nvram|disk(\.config|\.rescue|\.[0-9a-f-]{36})?")
_SMI_TIMEOUT_S = 60.0
_MDEVCTL_TIMEOUT_S = 60.0

# What nvidia-smi is asked, and told, by name; {}: the numbers that go with it.
_SMI: Mapping[str, Sequence[str]] = {
    "types": ("vgpu", "-s", "-v"),
    "profiles": ("mig", "-lgip"),
    "placements": ("mig", "-lgipp"),
    "instances": ("mig", "-lgi"),
    "create": ("mig", "-cgi", "{}:{}", "-C"),
    "destroy compute": ("mig", "-dci", "-gi", "{}"),
    "destroy": ("mig", "-dgi", "-gi", "{}"),
}
# What it is asked of all GPUs.
_SMI_OF_ALL: Mapping[str, Sequence[str]] = {
    "addresses": ("--query-gpu=index,pci.bus_id", "--format=csv,noheader"),
    "topology": ("topo", "-m"),
}
_XRT_TOOLS = {"platform": "xbmgmt", "dynamic-regions": "xbutil"}  # by the report that they make


@ROOT.entrypoint
def create_mdev(parent: str, type_id: str, uuid: str) -> None:
    """Make a mediated device that carries our mark.

    :param parent: PCI address, or name of a virtual device
    """
    _check(_PARENT, parent, "name of a parent")
    _check(_TYPE, type_id, "type of mediated devices")
    sysfs.write(_sysfs() / "class/mdev_bus" / parent / "mdev_supported_types" / type_id / "create", _mdev(uuid))


@ROOT.entrypoint
def remove_mdev(uuid: str) -> None:
    """Remove a mediated device that carries our mark, unless somebody holds it.

    :raises OSError: EBUSY among others
    """
    device = _sysfs() / "bus/mdev/devices" / _mdev(uuid)
    _refuse_in_use(device)
    sysfs.write(device / "remove", "1")


@ROOT.entrypoint
def define_mdev(parent: str, type_id: str, uuid: str) -> None:
    """Have mdevctl make a mediated device that carries our mark whenever its parent comes.

    :param parent: as :func:`create_mdev`
    """
    _check(_PARENT, parent, "name of a parent")
    _check(_TYPE, type_id, "type of mediated devices")
    _mdevctl("define", "--uuid", _mdev(uuid), "--parent", parent, "--type", type_id, "--auto")


@ROOT.entrypoint
def undefine_mdev(uuid: str) -> None:
    """Have mdevctl forget a mediated device that carries our mark, at every parent."""
    _mdevctl("undefine", "--uuid", _mdev(uuid))


def _mdevctl(*arguments: str) -> None:
    command = ["mdevctl", *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_MDEVCTL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise base.DeviceError(f"{' '.join(command)}: {exc}") from exc
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).decode("utf-8", "replace").split())[-200:]
        raise base.DeviceError(f"{' '.join(command)} ended with status {done.returncode}: {said}")


@ROOT.entrypoint
def set_vgpu_type(address: str, number: int) -> None:
    """Make a virtual function a vGPU, or with 0 none any more."""
    text = str(_number(number))
    sysfs.write(_sysfs() / "bus/pci/devices" / _address(address) / "nvidia/current_vgpu_type", text)


@ROOT.entrypoint
def nvidia_smi(what: str, address: str, numbers: Sequence[int] = ()) -> tuple[int, str, str, str]:
    """Ask NVIDIA's command something about a GPU, or tell it something.

    :param what: a key of the table above
    :returns: its exit status, what it printed, what it complained of, and the command
    """
    if what not in _SMI or len(numbers) != "".join(_SMI[what]).count("{}"):
        raise ValueError(f"nvidia-smi is not asked for {what!r} with {len(numbers)} numbers")
    told = iter([str(_number(number)) for number in numbers])
    arguments = [re.sub("{}", lambda _: next(told), part) for part in _SMI[what]]
    return _smi([*arguments, "-i", _address(address)])


@ROOT.entrypoint
def ask_nvidia_smi(what: str) -> str:
    """Return what NVIDIA's command says of all GPUs.

    :param what: addresses or topology
    :raises accelsched.agent.devices.base.DeviceError: when it fails
    """
    if what not in _SMI_OF_ALL:
        raise ValueError(f"nvidia-smi is not asked for {what!r}")
    status, said, complaint, command = _smi(_SMI_OF_ALL[what])
    if status:
        raise base.DeviceError(f"{command} ended with status {status}: {' '.join((said + complaint).split())[-200:]}")
    return said


def _smi(arguments: Sequence[str]) -> tuple[int, str, str, str]:
    command = [conf().devices.nvidia_smi, *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SMI_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise base.DeviceError(f"{' '.join(command)}: {exc}") from exc
    said, complaint = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    return done.returncode, said, complaint, " ".join(command)


@ROOT.entrypoint
def clean(addresses: Sequence[str]) -> dict[str, Any]:
    """Run the operator's command that cleans PCI functions; return the fields of a :class:`cleaning.Cleaning`."""
    options = conf().devices
    if not options.cleaning_command:
        raise ValueError("[devices] cleaning_command is not set")
    checked = [_address(address) for address in addresses]
    return dataclasses.asdict(cleaning.run(options.cleaning_command, checked, options.cleaning_timeout))


@ROOT.entrypoint
def program_dfl(provider: str, management: str, blank_of: str | None = None) -> tuple[str, str] | None:
    """Program the region of an Intel card by OPAE, with the bitstream that is in the region's file.

    :param provider: name of the region's provider, which its files are named after
    :param blank_of: interface id of the blank bitstream, a file of the configuration, to take instead
    :returns: why it failed, and what the executable said; None when it did not
    """
    domain, bus, rest = _address(management).split(":")
    device, function = rest.split(".")
    bitstream, lock = _bitstream("dfl", provider, blank_of), _lock("dfl", provider)
    options = conf().fpga
    if options.opae_tool == "fpgaconf":
        where = ["--segment", f"0x{domain}", "--bus", f"0x{bus}", "--device", f"0x{device}", "--function"]
        arguments = [*where, f"0x{function}", bitstream]
    else:
        arguments = [bitstream, management]
    return _run(Path(options.opae_path) / options.opae_tool, arguments, options.program_timeout, lock)


@ROOT.entrypoint
def program_xilinx(provider: str, address: str, blank_of: str | None = None) -> tuple[str, str] | None:
    """Program the region of a Xilinx card by XRT; as :func:`program_dfl`.

    :param address: of the card's user function
    """
    bitstream, lock = _bitstream("xilinx", provider, blank_of), _lock("xilinx", provider)
    arguments = ["program", "--device", _address(address), "--user", bitstream]
    return _xrt("xbutil", arguments, conf().fpga.program_timeout, lock)


@ROOT.entrypoint
def examine_xilinx(report: str, address: str) -> str:
    """Return what XRT reports of the card with a function, as the JSON that it writes.

    :param report: platform or dynamic-regions
    :raises accelsched.agent.devices.base.DeviceError: when it fails
    """
    tool = _XRT_TOOLS.get(report)
    if tool is None:
        raise ValueError(f"{report!r} is no report of XRT's that is needed")
    with tempfile.TemporaryDirectory(prefix="accelsched-") as directory:
        output = Path(directory, "report.json")
        where = ["--device", _address(address), "--report", report, "--format", "JSON", "--output", str(output)]
        failure = _xrt(tool, ["examine", *where], conf().fpga.examine_timeout, Path(directory, "lock"))
        if failure is not None:
            raise base.DeviceError(failure[0])
        try:
            return output.read_text("utf-8")
        except (OSError, ValueError) as exc:
            raise base.DeviceError(f"{tool} examine told nothing of {address} that can be understood") from exc


@ROOT.entrypoint
def own_instance_file(server_uuid: str, name: str) -> None:
    """Give a file of a server, which QEMU or libvirt made, to who owns the directory of servers: the agent's user."""
    _check(_UUID, server_uuid, "uuid of a server")
    _check(_INSTANCE_FILE, name, "file of a server")
    # The agent's user can put links into its own directories. None is followed, and no file with two names is taken.
    with contextlib.ExitStack() as opened:

        def enter(path: str | Path, flags: int, within: int | None = None) -> int:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=within)
            opened.callback(os.close, descriptor)
            return descriptor

        servers = enter(Path(conf().state_path) / "instances", os.O_DIRECTORY)
        file = enter(name, os.O_NONBLOCK, enter(server_uuid, os.O_DIRECTORY, servers))
        found, owner = os.fstat(file), os.fstat(servers)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise ValueError(f"{name} of server {server_uuid} is not a file of its own")
        os.fchown(file, owner.st_uid, owner.st_gid)
        os.fchmod(file, stat.S_IMODE(found.st_mode) & 0o777 | stat.S_IRUSR | stat.S_IWUSR)


def _sysfs() -> Path:
    return Path(conf().devices.sysfs_root)


def _check(pattern: re.Pattern[str], text: str, what: str) -> str:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise ValueError(f"{str(text)[:80]!r} is no {what}")
    return text


def _address(address: str) -> str:
    if not isinstance(address, str) or "\n" in address or not names.is_pci_address(address):
        raise ValueError(f"{str(address)[:80]!r} is no PCI address")
    return address


def _mdev(uuid: str) -> str:
    if not isinstance(uuid, str) or not names.is_own_mdev(uuid):
        raise ValueError(f"{str(uuid)[:80]!r} does not carry our mark")
    return uuid


def _number(number: int) -> int:
    if not isinstance(number, int) or not 0 <= number < 1 << 31:
        raise ValueError(f"{number!r} is no number from 0 on")
    return number


def _files(how: str, provider: str, suffix: str) -> Path:
    _check(_PROVIDER, provider, "name of a provider")
    return Path(conf().state_path) / "fpgas" / how / f"{provider}.{suffix}"


def _lock(how: str, provider: str) -> Path:
    return _files(how, provider, "lock")


def _bitstream(how: str, provider: str, blank_of: str | None) -> str:
    """Return the path of a bitstream: the region's own, or of a blank one that is a file of the configuration."""
    if blank_of is None:
        path = _files(how, provider, "bitstream")
    else:
        path = Path(fpga.blank_of(conf(), _check(_UUID, blank_of, "interface id")) or "")
        if not path.is_absolute():
            raise ValueError(f"no file of [fpga] blank_bitstreams is for interface {blank_of}")
    if path.is_symlink():
        raise ValueError(f"{path} is a link")
    return str(path)


def _xrt(tool: str, arguments: Sequence[str], timeout_s: float, lock: Path) -> tuple[str, str] | None:
    directory = Path(conf().fpga.xrt_path)
    return _run(directory / tool, arguments, timeout_s, lock, {"XILINX_XRT": str(directory.parent)})


def _run(
    executable: Path,
    arguments: Sequence[str],
    timeout_s: float,
    lock: Path,
    environment: Mapping[str, str] | None = None,
) -> tuple[str, str] | None:
    """Return why an executable failed and what it said, which an exception could not bring across; None: it did not."""
    try:
        executables.run(executable, arguments, timeout_s, lock=lock, environment=environment)
    except base.DeviceError as exc:
        said = exc.__cause__
        return str(exc), str(said) if isinstance(said, errors.AccelschedError) else ""
    return None


def _refuse_in_use(device: Path) -> None:
    """Refuse to remove a device that somebody holds: the kernel would block the writer until it is let go.

    A VFIO group can be opened once only (Documentation/driver-api/vfio.rst), so EBUSY tells that it is held.
    """
    group = device / "iommu_group"
    if not group.exists():
        return
    try:
        os.close(os.open(Path("/dev/vfio") / group.resolve().name, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return
    except OSError as exc:
        if exc.errno == errno.EBUSY:
            raise base.DeviceError(f"mediated device {device.name} is in use") from exc
