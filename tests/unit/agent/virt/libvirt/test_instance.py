# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A server's directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from accelsched.agent.virt.base import Launch
from accelsched.agent.virt.libvirt.instance import Instance, server_uuids, tail

SERVER = "aaaaaaaa-0000-4000-8000-000000000001"


@pytest.mark.parametrize("uuid", ["", "_base", "../../etc", f"{SERVER}/..", SERVER.upper(), f"{SERVER}\n"])
def test_only_a_uuid_names_a_directory(tmp_path: Path, uuid: str) -> None:
    with pytest.raises(ValueError, match="uuid"):
        Instance(tmp_path, uuid)


def test_it_is_made_and_removed_as_often_as_asked(tmp_path: Path) -> None:
    instance = Instance(tmp_path / "instances", SERVER)
    assert server_uuids(tmp_path / "instances") == []
    instance.create()
    instance.create()
    (tmp_path / "instances/_base").mkdir()
    assert server_uuids(tmp_path / "instances") == [SERVER]
    assert instance.directory.stat().st_mode & 0o777 == 0o711
    instance.disk.write_text("x")
    instance.remove()
    instance.remove()
    assert server_uuids(tmp_path / "instances") == []


def test_it_remembers_in_which_boot_of_the_host_its_domain_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = Instance(tmp_path, SERVER)
    instance.create()
    assert instance.launch is Launch.NEVER
    instance.mark_launched()
    assert instance.launch is Launch.THIS_BOOT
    monkeypatch.setattr("accelsched.agent.virt.libvirt.instance.boot_id", lambda: "the next boot")
    assert instance.launch is Launch.EARLIER_BOOT
    instance.mark_launched()
    assert instance.launch is Launch.THIS_BOOT


def test_the_end_of_a_console_goes_back_into_the_file_that_was_rolled_over(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    assert tail(console, 100) == ""
    console.write_bytes(b"new\xff\n")
    assert tail(console, 100) == "new\ufffd\n"
    (tmp_path / "console.log.0").write_bytes(b"old\n")
    assert tail(console, 100) == "old\nnew\ufffd\n"
    assert tail(console, 7) == "d\nnew\ufffd\n"
    assert tail(console, 2) == "\ufffd\n"
