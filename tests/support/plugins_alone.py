# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""One plug-in asked by itself about a small fleet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from fleets import PictureBuilder
from oslo_config import cfg

from accelsched import conf as options
from accelsched import wire
from accelsched.scheduler import hosts as hosts_
from accelsched.scheduler import request
from accelsched.scheduler.filters.base import Filter
from accelsched.scheduler.hosts import Hosts
from accelsched.scheduler.request import RequestSpec
from accelsched.scheduler.table import Aggregate
from accelsched.scheduler.weighers.base import Weigher

Made = TypeVar("Made")


def made(kind: type[Made], **overrides: Any) -> Made:
    """Make a plug-in with some options of any group set."""
    conf = options.new()
    options.parse(conf, [], "test")
    for name, value in overrides.items():
        conf.set_override(name, value, group=_group_of(conf, name))
    return kind(conf)  # type: ignore[call-arg]


def _group_of(conf: cfg.ConfigOpts, name: str) -> str:
    for group in ("filter_scheduler", "metrics", "scheduler"):
        if name in conf[group]:
            return group
    raise AssertionError(f"no option {name}")


def image(**properties: str) -> wire.ImageSpec:
    """Return an image of id ``image`` with these properties."""
    return {
        "id": "image",
        "name": "image",
        "disk_format": "qcow2",
        "size": 1,
        "min_disk_gb": 0,
        "min_ram_mb": 0,
        "os_hash_algo": None,
        "os_hash_value": None,
        "properties": properties,
    }


def asked(
    extra_specs: Mapping[str, str] | None = None,
    properties: Mapping[str, str] | None = None,
    **about: Any,
) -> RequestSpec:
    """Return a request of project ``p`` for a flavor named ``small``."""
    flavor: wire.FlavorSpec = {
        "name": "small",
        "vcpus": 1,
        "ram_mb": 1024,
        "disk_gb": 1,
        "extra_specs": dict(extra_specs or {}),
    }
    project = about.pop("project_id", "p")
    return request.RequestSpec(project, flavor, None if properties is None else image(**properties), **about)


def aggregate(name: str, **metadata: str) -> Aggregate:
    """Return an aggregate; its uuid is its name."""
    return Aggregate(name, name, metadata)


def aligned(builder: PictureBuilder, placed: Mapping[str, int] | None = None, **facts: Any) -> Hosts:
    """Return a fleet's hosts.

    :param placed: servers of the present request that were put on hosts, by the host's name
    :param facts: fields of Facts; counts and a group's members as mappings by the host's name
    """
    picture, told = builder.picture(), builder.facts(**facts)
    usage = {name: columns.used[: columns.size].copy() for name, columns in picture.classes.items()}
    hosts = hosts_.align(picture, told, usage)
    for name, count in (placed or {}).items():
        hosts.count(np.array([told.table.number_of[name]]), count)
    return hosts


def tally(builder: PictureBuilder, **by_name: int) -> Any:
    """Return a column of the builder's hosts: int64."""
    return np.array([by_name.get(row.name, 0) for row in builder.table], dtype=np.int64)


def passing(filter_: Filter, hosts: Hosts, spec: RequestSpec) -> set[str]:
    """Return the names of the hosts that pass."""
    mask = filter_.mask(hosts, spec)
    assert mask.dtype == np.bool_
    assert mask.shape == (len(hosts),)
    assert filter_.reason(spec)
    return {row.name for row, passes in zip(hosts.rows, mask, strict=True) if passes}


def weights(weigher: Weigher, hosts: Hosts, spec: RequestSpec) -> dict[str, float]:
    """Return raw weights by host; weighing each host by itself must say the same as weighing all."""
    together = weigher.weigh(hosts, spec)
    assert together.dtype == np.float64
    alone = np.concatenate([weigher.weigh(hosts.take([index]), spec) for index in range(len(hosts))])
    np.testing.assert_allclose(together, alone)
    return {row.name: float(weight) for row, weight in zip(hosts.rows, together, strict=True)}
