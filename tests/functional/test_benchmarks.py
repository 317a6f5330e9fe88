# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run, at the size of a toy; what they measure decides nothing here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_the_placement_benchmark_measures_ours(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    rows = ["candidates-vgpu", "candidates-isolate", "providers", "feed", "put", "load", "put-sqlite"]
    size = ["--hosts", "12", "--load-hosts", "16", "--only", "accelsched"]
    effort = ["--repeats", "3", "--rounds", "1", "--burst", "4"]
    ran = subprocess.run(
        [sys.executable, _BENCHMARKS / "placement.py", *size, *effort, "--json", result, "--rows", *rows],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    measured = {row["name"]: row for row in json.loads(result.read_text())["fleets"][0]["rows"]}
    # Half of the hosts have GPUs with the trait; seven of ten whole-GPU hosts are free.
    answers = {name: measured[name]["extra"]["answers"]["accelsched"] for name in rows[:3]}
    assert answers == {"candidates-vgpu": 24, "candidates-isolate": 7, "providers": 48}
    for name in ("put", "put-sqlite", "load"):
        figure = measured[name]["figures"]["accelsched"]
        assert figure["rate"] > 0
        assert figure["note"] == "", "something was refused that fits"


def test_calls_are_measured_to_their_claims(tmp_path: Path) -> None:
    size = ["--hosts", "12", "--calls", "6", "--servers", "3", "--schedulers", "2"]
    result = tmp_path / "result.json"
    # It checks by itself that every server has what it asked for, once.
    command = [sys.executable, _BENCHMARKS / "scheduler.py", *size, "--json", result]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(result.read_text())
    assert (told["calls"], told["servers_a_call"], told["schedulers"]) == (6, 3, 2)
    assert told["servers_per_second"] > 0


def test_a_fleet_is_measured_from_create_to_gone() -> None:
    # It checks by itself that nothing is lost or left.
    size = ["--hosts", "8", "--servers", "12", "--report-seconds", "2"]
    ran = subprocess.run(
        [sys.executable, _BENCHMARKS / "fleet.py", *size], check=False, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr


def test_lists_of_servers_are_measured(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = [sys.executable, _BENCHMARKS / "servers.py", "--servers", "1000", "--repeats", "2", "--json", result]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    shown = {row["name"]: row["servers"] for row in json.loads(result.read_text())["rows"]}
    assert shown["a project's 10, in full"] == 10
    assert shown["a page of 1,000, in full"] == 990


@pytest.mark.parametrize("kind", [["--devices", "2"], ["--numa"]])
def test_decisions_are_measured(tmp_path: Path, kind: list[str]) -> None:
    result = tmp_path / "result.json"
    size = ["--hosts", "20", "--servers", "30", *kind, "--repeats", "1"]
    done = subprocess.run(
        [sys.executable, _BENCHMARKS / "scheduler.py", *size, "--json", result], check=True, capture_output=True
    )
    told = json.loads(result.read_text())
    assert json.loads(done.stdout) == told
    assert (told["hosts"], told["servers"]) == (20, 30)
    assert told["decisions_per_second"] > 0
