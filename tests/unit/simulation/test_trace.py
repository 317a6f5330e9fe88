# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from accelsched import errors
from accelsched.simulation import trace

NODES = "sn,cpu_milli,memory_mib,gpu,model\n"
PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n"


def written(directory: Path, text: str) -> Path:
    path = directory / "some.csv"
    path.write_text(text)
    return path


def test_a_pod_asks_for_each_gpu_in_a_group_of_its_own(tmp_path: Path) -> None:
    (pod,) = trace.read_pods(written(tmp_path, PODS + "p,4000,1024.0,2,1000,A|B\n"))
    query = trace.request_of(pod, frozenset({"A", "B", "C-1"})).query()
    assert query.isolate
    assert [dict(group.resources) for group in query.groups] == [
        {"VCPU": 4000, "MEMORY_MB": 1024},
        {trace.GPU_CLASS: 1000},
        {trace.GPU_CLASS: 1000},
    ]
    assert [group.forbidden for group in query.groups] == [
        frozenset(),
        {"CUSTOM_GPU_MODEL_C_1"},
        {"CUSTOM_GPU_MODEL_C_1"},
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sn,cpu_milli,memory_mib,gpu\na,1,1,1\n", "no column model"),
        (NODES + "a,1,1,1,T4\na,1,1,1,T4\n", "line 3: sn: a is there twice"),
        (NODES + "a,many,1,1,T4\n", "line 2: cpu_milli: 'many' is not a number"),
        (NODES + "a,-1,1,1,T4\n", "line 2: cpu_milli: -1 is not between"),
        (NODES + "a,1,1,1000,T4\n", "line 2: gpu: more than 64"),
        (NODES, "no host"),
    ],
)
def test_hosts_that_make_no_sense_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(errors.InvalidError, match=complaint):
        trace.read_nodes(written(tmp_path, text))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [("p,1,1,1,0,", "asks for none of each"), ("p,1,inf,0,0,", "not a number"), ("p,1,1,99,1000,", "more than 64")],
)
def test_pods_that_make_no_sense_are_refused(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(errors.InvalidError, match=complaint):
        trace.read_pods(written(tmp_path, PODS + line + "\n"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidError, match="absent"):
        trace.read_nodes(tmp_path / "absent.csv")
