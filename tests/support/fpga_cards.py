# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""FPGA cards that are directories, as the kernel's documents show them, and bitstreams for them.

Intel's: Documentation/fpga/dfl.rst and, in ABI/testing, sysfs-class-fpga-region and sysfs-platform-dfl-*.
The executables that program them are in ``fpga_executables``: they check what they are given, and do as the file
``mood`` in the tree says: work, fail, lie (say that they worked) or hang.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

INTERFACE = "9926ab6d-6c92-5a68-aabc-a7d84c545738"
FUNCTION = "d8424dc4-a4a3-c413-f89e-433683f9040b"
BLANK = "00000000-1111-2222-3333-444444444444"
FOUND = "f7df405c-bd7a-cf72-22f1-44b0b93acd18"  # what is on a card at first


def install(directory: Path) -> Path:
    """Install the executables for the cards in ``directory/sys``; return where they are."""
    there = directory / "bin"
    if not there.exists():
        shutil.copytree(Path(__file__).parent / "fpga_executables", there, symlinks=True)
    return there


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def _function(root: Path, address: str, vendor: str, product: str, driver: str) -> Path:
    path = root / "devices/pci0000:00" / address
    write(path / "vendor", f"0x{vendor}")
    write(path / "device", f"0x{product}")
    write(path / "numa_node", "1")
    group = root / "kernel/iommu_groups" / address
    group.mkdir(parents=True)
    (path / "iommu_group").symlink_to(group)
    bound = root / "bus/pci/drivers" / driver
    bound.mkdir(parents=True, exist_ok=True)
    (path / "driver").symlink_to(bound)
    (root / "bus/pci/devices").mkdir(parents=True, exist_ok=True)
    (root / "bus/pci/devices" / address).symlink_to(path)
    return path


def _port(root: Path, function: Path, region: str, function_id: str) -> None:
    write(function / f"fpga_region/{region}/dfl-port.0/afu_id", function_id.replace("-", ""))
    (root / "class/fpga_region").mkdir(parents=True, exist_ok=True)
    (root / "class/fpga_region" / region).symlink_to(function / "fpga_region" / region)


def add_dfl_card(root: Path, address: str = "0000:3b:00.0", *, virtual: str | None = None, ports: int = 1) -> Path:
    """Make an Intel card; with ``virtual``, its port is a virtual function's. Return where its function is told."""
    physical = _function(root, address, "8086", "09c4", "dfl-pci")
    number = len(list((root / "class/fpga_region").glob("*")))
    container, inner = f"region{number}", f"region{number + 1}"
    fme = physical / f"fpga_region/{container}/dfl-fme.0"
    write(fme / "ports_num", str(ports))
    write(fme / "bitstream_id", "0x2300011001030f")
    write(fme / f"dfl-fme-region.1/fpga_region/{inner}/compat_id", INTERFACE.replace("-", ""))
    owner = physical
    if virtual is None:
        _port(root, physical, container, FOUND)
    else:
        (root / "class/fpga_region").mkdir(parents=True, exist_ok=True)
        (root / "class/fpga_region" / container).symlink_to(physical / "fpga_region" / container)
        owner = _function(root, virtual, "8086", "09c5", "dfl-pci")
        (physical / "virtfn0").symlink_to(owner)
        _port(root, owner, f"region{number + 2}", FOUND)
    (root / "class/fpga_region" / inner).symlink_to(fme / f"dfl-fme-region.1/fpga_region/{inner}")
    return next(owner.glob("fpga_region/*/dfl-port.0/afu_id"))


def gbs(function_id: str = FUNCTION, interface_id: str = INTERFACE) -> bytes:
    """Return a bitstream for Intel's cards."""
    image = {
        "interface-uuid": interface_id,
        "magic-no": 488605312,
        "accelerator-clusters": [{"name": "afu", "total-contexts": 1, "accelerator-type-uuid": function_id}],
    }
    text = json.dumps({"version": 1, "afu-image": image, "platform-name": ""}).encode()
    return bytes.fromhex("58656f6e46504741b747425376303031") + len(text).to_bytes(4, "little") + text + b"\xa5" * 4096


def add_xilinx_card(root: Path, slot: str = "0000:65:00") -> Path:
    """Make an Alveo card; return where its executables keep what is loaded."""
    _function(root, f"{slot}.0", "10ee", "5020", "xclmgmt")
    user = _function(root, f"{slot}.1", "10ee", "5021", "xocl")
    write(user / "loaded", FOUND)
    write(user / "interface", INTERFACE)
    return user / "loaded"


def xclbin(function_id: str = FUNCTION, interface_id: str = INTERFACE) -> bytes:
    """Return a bitstream for Xilinx' cards: the header of one, and something."""
    header = bytearray(512)
    header[:8] = b"xclbin2\0"
    header[336:352] = bytes.fromhex(interface_id.replace("-", ""))
    header[416:432] = bytes.fromhex(function_id.replace("-", ""))
    return bytes(header) + b"\x5a" * 4096
