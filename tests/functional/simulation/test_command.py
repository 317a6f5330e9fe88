# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``accelsched-simulate`` as an operator runs it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("accelsched-simulate")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a fleet and three times as many arrivals as it can take."""
    directory = tmp_path_factory.mktemp("site")
    rng = random.Random(1)
    nodes = ["sn,cpu_milli,memory_mib,gpu,model"]
    nodes += [f"node-{i},{rng.choice([32000, 96000])},262144,{rng.choice([2, 8])},T4" for i in range(12)]
    pods = ["name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec"]
    for number in range(400):
        gpus, milli = rng.choice([(0, 0), (1, 250), (1, 470), (1, 1000), (2, 1000)])
        pods.append(f"pod-{number},{rng.choice([2000, 6000, 12000])},8192,{gpus},{milli},")
    (directory / "nodes.csv").write_text("\n".join(nodes) + "\n")
    (directory / "pods.csv").write_text("\n".join(pods) + "\n")
    return directory


def simulate(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "--nodes", site / "nodes.csv", "--arrivals", site / "pods.csv", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("arguments", [("--history", "pods.csv"), ()])
def test_every_arrival_is_decided_and_the_summary_agrees(
    site: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    out, summary = tmp_path / "out.jsonl", tmp_path / "out.json"
    arguments = tuple(str(site / one) if one.endswith(".csv") else one for one in arguments)
    done = simulate(site, *arguments, "--seed", "5", "--decisions", str(out), "--summary", str(summary))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["pod"] for line in lines] == [f"pod-{number}" for number in range(400)]
    assert all(line["gpus"] == [] for line in lines if line["node"] is None)
    told = json.loads(summary.read_text())
    assert told["placed"] == sum(line["node"] is not None for line in lines)
    assert told["refused"] > 0
    assert told["seed"] == 5


@pytest.mark.parametrize("name", ["plot.svg", "plot.png"])
def test_a_plot_is_drawn(site: Path, tmp_path: Path, name: str) -> None:
    done = simulate(site, "--policy", "fgd", "--plot", str(tmp_path / name))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["policy"] == "fgd"
    begin = (tmp_path / name).read_bytes()[:200]
    assert begin.startswith(b"\x89PNG") or b"<?xml" in begin


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--policy", "none"), "policy"),
        (("--plot", "drawing.pdf"), "ends neither in .png nor in .svg"),
        (("--history", "/absent.csv"), "/absent.csv"),
        (("--decisions", "/absent/out.jsonl"), "/absent/out.jsonl"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(site: Path, arguments: tuple[str, ...], complaint: str) -> None:
    done = simulate(site, *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
