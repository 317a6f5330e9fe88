# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[filter_scheduler]``: options of filters and weighers, by Nova's names."""

from __future__ import annotations

from oslo_config import cfg

from accelsched import errors

GROUP = "filter_scheduler"


def _multiplier(name: str, default: float, text: str, **bounds: float) -> cfg.FloatOpt:
    overridden = f" Metadata {name} of an aggregate overrides it for the aggregate's hosts; the least value wins."
    return cfg.FloatOpt(name, default=default, help=text + overridden, **bounds)


OPTS = [
    cfg.IntOpt(
        "max_io_ops_per_host",
        default=8,
        min=0,
        help="IoOpsFilter, AggregateIoOpsFilter: servers that may be building on a host at the same time.",
    ),
    cfg.IntOpt(
        "max_instances_per_host",
        default=50,
        min=1,
        help="NumInstancesFilter, AggregateNumInstancesFilter: servers that a host may have.",
    ),
    cfg.ListOpt("isolated_images", default=[], help="IsolatedHostsFilter: ids of images that go to isolated hosts."),
    cfg.ListOpt("isolated_hosts", default=[], help="IsolatedHostsFilter: hosts for isolated images."),
    cfg.BoolOpt(
        "restrict_isolated_hosts_to_isolated_images",
        default=True,
        help="IsolatedHostsFilter: isolated hosts take nothing but isolated images.",
    ),
    cfg.StrOpt(
        "aggregate_image_properties_isolation_namespace",
        help="AggregateImagePropertiesIsolation: only metadata keys that begin with this are looked at.",
    ),
    cfg.StrOpt(
        "aggregate_image_properties_isolation_separator",
        default=".",
        help="AggregateImagePropertiesIsolation: what stands between the namespace and the rest of a key.",
    ),
    cfg.StrOpt(
        "image_properties_default_architecture",
        help="ImagePropertiesFilter: architecture of images that do not say theirs, x86_64 for example.",
    ),
    _multiplier(
        "ram_weight_multiplier",
        1.0,
        "RAMWeigher: positive spreads by free memory, negative packs.",
    ),
    _multiplier("cpu_weight_multiplier", 1.0, "CPUWeigher: positive spreads by free CPUs, negative packs."),
    _multiplier("disk_weight_multiplier", 1.0, "DiskWeigher: positive spreads by free disk, negative packs."),
    _multiplier("io_ops_weight_multiplier", -1.0, "IoOpsWeigher: negative prefers hosts that build fewer servers."),
    _multiplier(
        "num_instances_weight_multiplier",
        0.0,
        "NumInstancesWeigher: positive packs by number of servers, negative spreads.",
    ),
    _multiplier(
        "hypervisor_version_weight_multiplier", 1.0, "HypervisorVersionWeigher: positive prefers newer hypervisors."
    ),
    _multiplier(
        "pci_weight_multiplier",
        1.0,
        "PCIWeigher: positive keeps servers without PCI devices off hosts that have many.",
        min=0.0,
    ),
    _multiplier(
        "soft_affinity_weight_multiplier",
        1.0,
        "ServerGroupSoftAffinityWeigher: how much soft affinity counts.",
        min=0.0,
    ),
    _multiplier(
        "soft_anti_affinity_weight_multiplier",
        1.0,
        "ServerGroupSoftAntiAffinityWeigher: how much soft anti-affinity counts.",
        min=0.0,
    ),
    _multiplier(
        "build_failure_weight_multiplier",
        1000000.0,
        "BuildFailureWeigher: how much builds that failed on a host, since the last that succeeded, count against it.",
    ),
    _multiplier(
        "cross_cell_move_weight_multiplier",
        1000000.0,
        "CrossCellWeigher: has no effect, for there are no cells here.",
    ),
    _multiplier(
        "image_props_weight_multiplier",
        0.0,
        "ImagePropertiesWeigher: positive puts servers with like images together, negative apart.",
    ),
    cfg.ListOpt(
        "image_props_weight_setting",
        default=[],
        help="ImagePropertiesWeigher: image properties that count, as name=weight; all, with weight 1, when empty.",
    ),
]


def check(conf: cfg.ConfigOpts) -> None:
    """Check what oslo.config cannot.

    :raises accelsched.errors.ConfigurationError: naming the option
    """
    weights(conf.filter_scheduler.image_props_weight_setting, "[filter_scheduler] image_props_weight_setting")


def weights(items: list[str], option: str) -> dict[str, float]:
    """Return weights by name.

    :param items: ``name=weight``
    :raises accelsched.errors.ConfigurationError: naming the option
    """
    found: dict[str, float] = {}
    for item in items:
        name, _, weight = item.partition("=")
        try:
            found[name.strip()] = float(weight)
        except ValueError as exc:
            raise errors.ConfigurationError(f"{option}: {item!r} is not name=weight") from exc
    return found
