# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Mediated devices that are defined with mdevctl: an executable in its place checks what it is told, and does it.

The real one is in the lab.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from accelsched.agent.devices.base import DeviceError, MdevAttachment
from accelsched.agent.devices.mdev import MdevDriver

SERVER = "aaaaaaaa-0000-4000-8000-000000000001"
GPU = "0000:41:00.0"
STRANGER = "11111111-2222-4333-8444-555555555555"
LEFT = "acce15ed-0000-8000-a000-000000000009"  # carries our mark

_MDEVCTL = """\
#!/bin/sh
set -e
cd {root}
echo "$*" >> calls
[ ! -e fails ] || {{ echo "Error: no space left" >&2; exit 1; }}
case $* in
  "define --uuid "*" --parent "*" --type "*" --auto")
    [ ! -e "etc/mdevctl.d/$5/$3" ] || exit 2
    mkdir -p "etc/mdevctl.d/$5"
    echo "{{\\"mdev_type\\": \\"$7\\", \\"start\\": \\"auto\\", \\"attrs\\": []}}" > "etc/mdevctl.d/$5/$3" ;;
  "undefine --uuid "*) ls etc/mdevctl.d/*/"$3" >&2 && rm etc/mdevctl.d/*/"$3" ;;
  *) exit 3 ;;
esac
"""


@pytest.fixture
def gpu(sysfs: Any) -> Path:
    path: Path = sysfs.add_function(GPU, "10de", "25b6", group=7)
    sysfs.add_mdev_parent(path, {"nvidia-2": 4})
    return path


class Mdevctl:
    """The command, and what it has been told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin").mkdir()
        (root / "etc/mdevctl.d/scripts.d").mkdir(parents=True)
        command = root / "bin/mdevctl"
        command.write_text(_MDEVCTL.format(root=root))
        command.chmod(0o755)

    def calls(self) -> list[str]:
        """Return the calls since this was asked last."""
        path = self.root / "calls"
        told = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return told

    def defined(self) -> dict[str, str]:
        """Return the types of what is defined, by PARENT/UUID."""
        files = (path for path in (self.root / "etc/mdevctl.d").rglob("*") if path.is_file())
        return {f"{path.parent.name}/{path.name}": json.loads(path.read_bytes())["mdev_type"] for path in files}

    def define(self, parent: str, uuid: str, type_id: str = "nvidia-2") -> None:
        path = self.root / "etc/mdevctl.d" / parent / uuid
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"mdev_type": type_id, "start": "auto"}))


@pytest.fixture
def mdevctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mdevctl:
    made = Mdevctl(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return made


@pytest.fixture
def wanted(gpu: Path) -> Any:
    vgpu = {"group": "", "provider_uuid": "b", "provider_name": "node1_pci_0000_41_00_0"}
    return {**vgpu, "resources": {"VGPU": 1}}


def prepared(driver: MdevDriver, wanted: Any) -> str:
    (made,) = driver.prepare(SERVER, wanted)
    assert isinstance(made, MdevAttachment)
    return made.uuid


def test_a_device_is_defined_while_it_is_there_and_nothing_is_executed_while_nothing_changes(
    context: Any, mdevctl: Mdevctl, wanted: Any
) -> None:
    driver = MdevDriver(context)
    mark = prepared(driver, wanted)
    assert mdevctl.calls() == [f"define --uuid {mark} --parent {GPU} --type nvidia-2 --auto"]
    assert prepared(driver, wanted) == mark
    driver.repair()
    assert [device.mark for device in driver.present()] == [mark]
    assert mdevctl.calls() == []
    driver.release(SERVER)
    assert mdevctl.calls() == [f"undefine --uuid {mark}"]
    assert (mdevctl.defined(), driver.present()) == ({}, [])


def test_definitions_follow_the_journal(context: Any, mdevctl: Mdevctl, wanted: Any) -> None:
    driver = MdevDriver(context)
    mark = prepared(driver, wanted)
    mdevctl.calls()
    (mdevctl.root / "etc/mdevctl.d" / GPU / mark).unlink()
    mdevctl.define("0000:42:00.0", mark)
    mdevctl.define("0000:43:00.0", mark, "nvidia-9")
    MdevDriver(context).repair()
    assert mdevctl.defined() == {f"{GPU}/{mark}": "nvidia-2"}
    assert len(mdevctl.calls()) == 2


def test_one_that_nobody_wants_is_nobodys_device_and_those_of_others_are_not_looked_at(
    context: Any, mdevctl: Mdevctl, gpu: Path
) -> None:
    mdevctl.define(GPU, LEFT)
    mdevctl.define(GPU, STRANGER)
    driver = MdevDriver(context)
    driver.repair()
    assert [(device.mark, device.server_uuid) for device in driver.present()] == [(LEFT, None)]
    driver.remove(LEFT)
    assert mdevctl.defined() == {f"{GPU}/{STRANGER}": "nvidia-2"}
    assert driver.present() == []


def test_a_command_that_fails_hinders_no_server_and_is_not_tried_again_at_once(
    context: Any, mdevctl: Mdevctl, wanted: Any, caplog: pytest.LogCaptureFixture
) -> None:
    driver = MdevDriver(context)
    (mdevctl.root / "fails").touch()
    with caplog.at_level(logging.WARNING):
        mark = prepared(driver, wanted)
    assert "no space left" in caplog.text
    driver.repair()
    assert len(mdevctl.calls()) == 1
    assert [device.server_uuid for device in driver.present()] == [SERVER]

    mdevctl.define(GPU, mark)
    driver.release(SERVER)
    assert [device.server_uuid for device in driver.present()] == [None]
    with pytest.raises(DeviceError, match="no space left"):
        driver.remove(mark)
    (mdevctl.root / "fails").unlink()
    MdevDriver(context).remove(mark)
    assert (mdevctl.defined(), driver.present()) == ({}, [])


def test_without_mdevctl_all_is_as_it_was(context: Any, wanted: Any, tmp_path: Path) -> None:
    driver = MdevDriver(context)
    prepared(driver, wanted)
    driver.repair()
    assert not (tmp_path / "etc").exists()
    driver.release(SERVER)
    assert driver.present() == []
