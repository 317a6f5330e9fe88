# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Where servers run decides a part of accelsched's configuration, and is told honestly."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from oslo_config import cfg
from stack import hypervisor, service
from stack.errors import StackError
from stack.hypervisor import Host
from stack.identity import Keystone
from stack.image import Glance
from stack.quickstart import Stack
from stack.sites import LabMachine, Site, ThisMachine

from accelsched import conf as options

EMULATED = Host("qemu", "there is no /dev/kvm", ())
REAL = Host("kvm", "kvm ran", ("0000:01:00.0",))


def _configuration(state_dir: Path, site: Site) -> cfg.ConfigOpts:
    """Return accelsched's options, read from the file that the service would be started with."""
    keystone = Keystone(state_dir)
    standalone = service.Standalone(state_dir, keystone, Glance(state_dir, keystone))
    file = state_dir / "accelsched.conf"
    file.write_text(standalone.configuration_text(site.options()))
    conf = options.new()
    options.parse(conf, ["--config-file", str(file)], "test")
    return conf


def _this_machine(state_dir: Path, host: Host, monkeypatch: pytest.MonkeyPatch) -> ThisMachine:
    monkeypatch.setattr("stack.sites.look", lambda: host)
    monkeypatch.setattr("stack.hypervisor.Hypervisor.start", lambda _self, _kvm_works: None)
    monkeypatch.setattr("stack.sites.reachable_by_qemu", lambda _directory: None)
    site = ThisMachine(state_dir)
    site.start()
    return site


def test_a_machine_without_mediated_devices_gets_simulated_ones_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = _this_machine(tmp_path, EMULATED, monkeypatch)
    conf = _configuration(tmp_path, site)
    assert conf.agent.device_drivers == ["simulated"]
    assert conf.libvirt.virt_type == "qemu"
    notes = "\n".join(site.notes())
    assert "SIMULATED" in notes
    assert "TCG" in notes


def test_a_machine_with_mediated_devices_uses_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = _this_machine(tmp_path, REAL, monkeypatch)
    conf = _configuration(tmp_path, site)
    assert conf.agent.device_drivers == ["mdev", "pci"]
    assert conf.libvirt.virt_type == "kvm"
    notes = "\n".join(site.notes())
    assert "0000:01:00.0" in notes
    assert "SIMULATED" not in notes
    assert "TCG" not in notes


def test_in_the_lab_the_agent_is_elsewhere_and_rabbitmq_between(tmp_path: Path) -> None:
    conf = _configuration(tmp_path, LabMachine(tmp_path))
    assert conf.standalone.services == ["api", "scheduler"]
    assert conf.transport_url.startswith("rabbit://")
    assert "@127.0.0.1:" in conf.transport_url


def test_the_service_asks_keystone_and_glance_as_its_own_user(tmp_path: Path) -> None:
    conf = _configuration(tmp_path, LabMachine(tmp_path))
    assert conf.api.auth_strategy == "keystone"
    assert conf.glance.region_name == "RegionOne"
    text = (tmp_path / "accelsched.conf").read_text()
    assert text.count(f"password = {Keystone(tmp_path).passwords.get('accelsched')}") == 2


def test_the_machine_is_looked_at_not_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelsched.agent.virt.kvm.kvm_works", lambda: hypervisor.kvm.KvmProbe(False, "it crawls"))
    assert hypervisor.look(tmp_path) == Host("qemu", "it crawls", ())
    (tmp_path / "class" / "mdev_bus" / "0000:01:00.0").mkdir(parents=True)
    assert hypervisor.look(tmp_path).mdev_parents == ("0000:01:00.0",)


def test_a_directory_that_qemu_cannot_pass_is_named() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "closed" / "state").mkdir(parents=True)
        assert hypervisor.reachable_by_qemu(folder / "closed" / "state") is None
        (folder / "closed").chmod(0o700)
        assert hypervisor.reachable_by_qemu(folder / "closed" / "state") == folder / "closed"


def test_a_running_stack_does_not_change_its_place(tmp_path: Path) -> None:
    stack = Stack(tmp_path, lab=True)
    assert stack.site.name == LabMachine.name
    (tmp_path / "site").write_text(stack.site.name)
    assert Stack(tmp_path).site.name == LabMachine.name, "status and stop know where it runs"
    stack.service.daemon.start(["sleep", "60"])
    try:
        with pytest.raises(
            StackError, match=r"run on the hardware lab.*tools/quickstart --lab.*tools/quickstart stop first"
        ):
            Stack(tmp_path, lab=False)
    finally:
        stack.service.daemon.stop()
    assert Stack(tmp_path, lab=False).site.name == ThisMachine.name


def test_two_at_once_are_told_apart(tmp_path: Path) -> None:
    with (
        Stack(tmp_path).exclusively(),
        pytest.raises(StackError, match="another quickstart is at work"),
        Stack(tmp_path).exclusively(),
    ):
        pass
