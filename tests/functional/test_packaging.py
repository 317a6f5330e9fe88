# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What a wheel carries, by installing one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel from what git knows, install it where nothing of the checkout is, return its bin directory."""
    work = tmp_path_factory.mktemp("wheel")
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", TOP, work / "checkout"], check=True)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", work / "dist", work / "checkout"], check=True)
    (wheel,) = (work / "dist").glob("accelsched-*.whl")
    environment = work / "venv"
    venv.create(environment)
    python = environment / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", wheel], check=True)
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    # Its dependencies are those of this environment; the wheel's own code comes first.
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin"


def test_a_wheel_carries_its_migrations(installed: Path, tmp_path: Path) -> None:
    config = tmp_path / "accelsched.conf"
    config.write_text(f"[database]\nconnection = sqlite:///{tmp_path / 'a.sqlite'}\n")
    command = [installed / "accelsched-manage", "--config-file", config, "db"]
    upgrade = subprocess.run([*command, "upgrade"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert upgrade.stdout.startswith("empty -> ")
    again = subprocess.run([*command, "upgrade"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "nothing to do" in again.stdout


def test_a_wheel_carries_its_sample_configuration(installed: Path) -> None:
    assert (installed.parent / "etc" / "accelsched" / "accelsched.conf.sample").is_file()


def test_a_wheel_has_a_version_of_its_own(installed: Path) -> None:
    shown = subprocess.run(
        [installed / "accelsched-manage", "--version"], capture_output=True, text=True, check=True
    ).stdout
    assert not shown.startswith("0.0.0")


def test_a_plug_in_of_somebody_else_installs_from_its_own_package(installed: Path, tmp_path: Path) -> None:
    config = tmp_path / "accelsched.conf"
    config.write_text(
        f"[database]\nconnection = sqlite:///{tmp_path / 'a.sqlite'}\n"
        "[scheduler]\nfilters = ForcedHostFilter,ComputeFilter,NoGpuWastedFilter,RackHintFilter\n"
        "weighers = RAMWeigher,FreeVgpuWeigher\n"
    )
    check = [installed / "accelsched-status", "--config-file", config, "upgrade", "check"]
    before = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert before.returncode == 255
    assert "no plug-in named NoGpuWastedFilter, RackHintFilter" in before.stderr
    source = tmp_path / "gpusite"
    shutil.copytree(TOP / "doc/source/examples/gpusite", source)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "--python", installed / "python", "install", "--no-deps", source], check=True)
    after = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Success: scheduler plug-ins: all load" in after.stdout, after.stderr
