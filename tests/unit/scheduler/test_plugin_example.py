# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The plug-ins that doc/source/how-to/write-a-plugin.rst shows do what it says."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from fleets import PictureBuilder

from accelsched import conf as options
from accelsched.scheduler import request
from accelsched.scheduler.filters.base import Filter
from accelsched.scheduler.pipeline import Decision, decide
from accelsched.scheduler.plugins import Plugins
from accelsched.scheduler.weighers.base import Weigher

EXAMPLE = Path(__file__).resolve().parents[3] / "doc/source/examples/gpusite"


@pytest.fixture(scope="module")
def gpusite() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpusite", EXAMPLE / "gpusite.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpusite"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fleet() -> PictureBuilder:
    builder = PictureBuilder()
    builder.host("r1-plain")
    builder.host("r1-gpu", gpus=2, used=6)
    builder.host("r2-gpu", gpus=1)
    return builder


def place(
    gpusite: ModuleType, fleet: PictureBuilder, specs: dict[str, str], hints: dict[str, str], multiplier: float = 1.0
) -> Decision:
    conf = options.new()
    options.parse(conf, [], "test")
    weigher = gpusite.FreeVgpuWeigher(conf)
    conf.set_override("free_vgpu_weight_multiplier", multiplier, group="gpusite")
    plugins = Plugins((), (gpusite.NoGpuWastedFilter(conf), gpusite.RackHintFilter(conf)), (weigher,))
    flavor = {"name": "f", "vcpus": 1, "ram_mb": 1024, "disk_gb": 1, "extra_specs": specs}
    spec = request.build(flavor, None, project_id="p", hints=hints)  # type: ignore[arg-type]
    return decide(fleet.picture(), fleet.hosts, spec, 1, plugins, "seed")


def chosen(decision: Decision) -> str:
    (selection,) = decision.selections
    return selection.host.name


VGPU = {"resources:VGPU": "1"}


def test_a_server_without_a_vgpu_goes_where_there_is_none(gpusite: ModuleType, fleet: PictureBuilder) -> None:
    decision = place(gpusite, fleet, {}, {})
    assert chosen(decision) == "r1-plain"
    removed = [stage for stage in decision.explanation.stages if stage["name"] == "NoGpuWastedFilter"]
    assert [(stage["hosts_removed"], stage["reason"]) for stage in removed] == [
        (2, "kept free for servers that want a vGPU")
    ]


def test_without_such_a_host_it_finds_none(gpusite: ModuleType, fleet: PictureBuilder) -> None:
    decision = place(gpusite, fleet, {}, {"rack": "r2"})
    assert not decision.selections
    assert "NoGpuWastedFilter removed 2" in (decision.explanation.failure or "")


@pytest.mark.parametrize(("multiplier", "host"), [(1.0, "r1-gpu"), (-1.0, "r2-gpu")])
def test_more_free_vgpus_weigh_more(gpusite: ModuleType, fleet: PictureBuilder, multiplier: float, host: str) -> None:
    assert chosen(place(gpusite, fleet, VGPU, {}, multiplier)) == host  # 2 + 8 free against 8


def test_the_hint_wins_over_the_weight(gpusite: ModuleType, fleet: PictureBuilder) -> None:
    assert chosen(place(gpusite, fleet, VGPU, {"rack": "r2"})) == "r2-gpu"


def test_entry_points_name_the_classes(gpusite: ModuleType) -> None:
    groups = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]["entry-points"]
    kinds = {"accelsched.scheduler.filters": Filter, "accelsched.scheduler.weighers": Weigher}
    assert groups.keys() == kinds.keys()
    for group, kind in kinds.items():
        for name, target in groups[group].items():
            assert target == f"gpusite:{name}"
            assert issubclass(getattr(gpusite, name), kind)
