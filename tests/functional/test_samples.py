# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The samples under etc/accelsched are what the code says today."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from accelsched.conf import glance

TOP = Path(__file__).resolve().parents[2]
COMMITTED = TOP / "etc/accelsched"
STALE = "run tools/generate-samples and commit what it wrote"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("samples")
    environment = {**os.environ, "ACCELSCHED_VENV": sys.prefix}
    subprocess.run([TOP / "tools/generate-samples", directory], env=environment, check=True, capture_output=True)
    return directory


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^\[(\w+)\]$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_configuration_sample_is_fresh(fresh: Path) -> None:
    committed, now = (sections((d / "accelsched.conf.sample").read_text()) for d in (COMMITTED, fresh))
    # keystoneauth's options are in [glance] too; they change when it does, ours when we do.
    committed_glance, now_glance = committed.pop("glance"), now.pop("glance")
    assert committed == now, STALE
    for option in glance.OPTS:
        (line,) = re.findall(rf"^#{option.name} = .*$", now_glance, flags=re.MULTILINE)
        assert line in committed_glance, STALE


def test_policy_sample_is_fresh(fresh: Path) -> None:
    committed, now = ((d / "policy.yaml.sample").read_text() for d in (COMMITTED, fresh))
    assert committed == now, STALE


def test_samples_name_no_host_of_ours(fresh: Path) -> None:
    assert os.uname().nodename not in re.findall(r"[\w.-]+", (fresh / "accelsched.conf.sample").read_text())


def test_the_generator_configuration_covers_the_libraries(tmp_path: Path) -> None:
    written = tmp_path / "all.conf"
    subprocess.run(
        [
            *(Path(sys.prefix) / "bin/oslo-config-generator", "--config-file", COMMITTED / "config-generator.conf"),
            *("--output-file", written),
        ],
        check=True,
        capture_output=True,
    )
    assert {"DEFAULT", "api", "database", "keystone_authtoken", "oslo_policy"} <= sections(written.read_text()).keys()
