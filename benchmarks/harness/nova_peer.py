# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Nova's part of ``benchmarks/scheduler.py``; runs where Nova is installed, not accelsched.

Reads what to do as JSON on standard input and answers on standard output. The loop is what Nova's scheduler does for
each instance of a request: its enabled filters over all hosts, its weighers over those left, and the chosen host's
state moved along. Hosts are Nova's own ``HostState``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import metadata

# Nova and its libraries write to standard output now and then.
_ANSWER = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import nova.conf  # noqa: E402
from nova import context, objects  # noqa: E402
from nova.objects import fields  # noqa: E402
from nova.pci import stats  # noqa: E402
from nova.scheduler import filters, host_manager, weights  # noqa: E402
from nova.virt import hardware  # noqa: E402
from oslo_utils import timeutils, uuidutils  # noqa: E402

CONF = nova.conf.CONF


def _host(number: int, size: dict) -> host_manager.HostState:
    name = f"host-{number}"
    host = host_manager.HostState(name, name, uuidutils.generate_uuid())
    host.uuid = uuidutils.generate_uuid()
    host.total_usable_ram_mb = host.free_ram_mb = size["MEMORY_MB"]
    host.free_disk_mb = size["DISK_GB"] * 1024
    host.total_usable_disk_gb = size["DISK_GB"]
    host.disk_mb_used = 0
    host.vcpus_total, host.vcpus_used = size["VCPU"], 0
    host.num_instances = host.num_io_ops = 0
    host.cpu_allocation_ratio = host.ram_allocation_ratio = host.disk_allocation_ratio = 1.0
    host.hypervisor_type, host.hypervisor_version = "QEMU", 8000000
    host.numa_topology = host.pci_stats = None
    host.metrics = objects.MonitorMetricList(objects=[])
    host.aggregates, host.instances, host.allocation_candidates = [], {}, []
    host.failed_builds = 0
    now = timeutils.utcnow(with_timezone=True)
    host.service = {
        "host": name, "binary": "nova-compute", "disabled": False, "updated_at": now, "last_seen_up": now,
        "created_at": now, "forced_down": False, "topic": "compute", "report_count": 1,
    }  # fmt: skip
    host.updated = now
    return host


def _add_numa(host: host_manager.HostState, numa: dict, taken: list) -> None:
    host.numa_topology = objects.NUMATopology(
        cells=[
            objects.NUMACell(
                id=node["node"], socket=node["socket"], cpuset=set(), pcpuset=set(node["dedicated_cpus"]),
                memory=node["memory_mb"], cpu_usage=0, memory_usage=0, siblings=[set(core) for core in node["cores"]],
                pinned_cpus=set(node["dedicated_cpus"]) & set(taken),
                mempages=[
                    objects.NUMAPagesTopology(size_kb=int(size), total=total, used=0, reserved=0)
                    for size, total in node["pages"].items()
                ],
            )
            for node in numa["nodes"]
        ]
    )  # fmt: skip
    pools = [
        objects.PciDevicePool(
            vendor_id=numa["alias"]["vendor_id"], product_id=numa["alias"]["product_id"], numa_node=node["node"],
            count=2, tags={"dev_type": "type-PCI"},
        )
        for node in numa["nodes"]
    ]  # fmt: skip
    host.pci_stats = stats.PciDeviceStats(host.numa_topology, objects.PciDevicePoolList(objects=pools))
    # One for each host: of the devices of a host, Placement's candidates would be several.
    host.allocation_candidates = [{"mappings": {}}]


def _ask_numa(spec: objects.RequestSpec, numa: dict) -> None:
    spec.flavor.extra_specs = numa["extra"]
    spec.numa_topology = hardware.numa_get_constraints(spec.flavor, spec.image)
    spec.pci_requests = objects.InstancePCIRequests(
        requests=[
            objects.InstancePCIRequest(
                count=1, spec=[{key: numa["alias"][key] for key in ("vendor_id", "product_id")}],
                numa_policy=numa["alias"]["numa_policy"], request_id=uuidutils.generate_uuid(),
            )
        ]
    )  # fmt: skip


def _spec(servers: int, flavor: dict) -> objects.RequestSpec:
    return objects.RequestSpec(
        context.get_admin_context(),
        flavor=objects.Flavor(
            name="f", flavorid="f", memory_mb=flavor["MEMORY_MB"], vcpus=flavor["VCPU"], root_gb=flavor["DISK_GB"],
            ephemeral_gb=0, swap=0, extra_specs={}, rxtx_factor=1.0, vcpu_weight=0, disabled=False, is_public=True,
        ),
        image=objects.ImageMeta(id=uuidutils.generate_uuid(), properties=objects.ImageMetaProps()),
        numa_topology=None, pci_requests=objects.InstancePCIRequests(requests=[]), project_id="p", user_id="u",
        availability_zone=None, num_instances=servers, scheduler_hints={}, instance_group=None, retry=None,
        requested_destination=None, force_hosts=None, force_nodes=None, ignore_hosts=None, limits=None,
        instance_uuid=uuidutils.generate_uuid(), is_bfv=False,
        network_metadata=objects.NetworkMetadata(physnets=set(), tunneled=False), requested_resources=[],
        request_level_params=objects.RequestLevelParams(), security_groups=objects.SecurityGroupList(objects=[]),
    )  # fmt: skip


def main() -> None:
    """Place the servers and answer how fast that went."""
    asked = json.load(sys.stdin)
    CONF([], project="nova", default_config_files=[])
    objects.register_all()
    assert fields  # its enumerations are looked up by name
    filter_handler = filters.HostFilterHandler()
    found = {cls.__name__: cls for cls in filter_handler.get_matching_classes(CONF.filter_scheduler.available_filters)}
    names = CONF.filter_scheduler.enabled_filters
    if "numa" in asked:
        names = [*names, "NUMATopologyFilter", "PciPassthroughFilter"]
    enabled = [found[name]() for name in names]
    weight_handler = weights.HostWeightHandler()
    weighers = [cls() for cls in weight_handler.get_matching_classes(CONF.filter_scheduler.weight_classes)]
    hosts = [_host(number, asked["size"]) for number in range(asked["hosts"])]
    spec = _spec(asked["servers"], asked["flavor"])
    if "numa" in asked:
        for host, taken in zip(hosts, asked["numa"]["taken"], strict=True):
            _add_numa(host, asked["numa"], taken)
        _ask_numa(spec, asked["numa"])
    started = time.perf_counter()
    for number in range(asked["servers"]):
        left = filter_handler.get_filtered_objects(enabled, hosts, spec, number)
        best = weight_handler.get_weighed_objects(weighers, left, spec)[0]
        best.obj.consume_from_request(spec)
    seconds = time.perf_counter() - started
    _ANSWER.write(
        json.dumps(
            {
                "name": f"nova {metadata.version('nova')}",
                "servers": asked["servers"],
                "seconds": round(seconds, 3),
                "decisions_per_second": round(asked["servers"] / seconds, 3),
                "filters": [type(one).__name__ for one in enabled],
                "weighers": [type(one).__name__ for one in weighers],
            }
        )
    )
    _ANSWER.flush()


if __name__ == "__main__":
    main()
