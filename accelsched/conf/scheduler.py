# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[scheduler]``: how requests become hosts and devices."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "scheduler"

OPTS = [
    cfg.IntOpt(
        "max_attempts",
        default=3,
        min=1,
        help="Hosts on which a server's first build is tried before the server is an error; and hosts that are tried "
        "for a live migration whose host nobody named, before the server stays where it is.",
    ),
    cfg.BoolOpt(
        "evacuate_on_failure",
        default=False,
        help="Evacuate the servers of a host when it is forced down. Whoever forces a host down then says that it is "
        "off, or cut off from everything its servers share with others (fenced).",
    ),
    cfg.ListOpt(
        "prefilters",
        default=[
            "require_tenant_aggregate",
            "map_az_to_placement_aggregate",
            "require_image_type_support",
            "compute_status_filter",
            "isolate_aggregates",
            "transform_image_metadata",
            "accelerators_filter",
            "packed_virtqueue_filter",
            "routed_networks_filter",
            "remote_managed_ports_filter",
            "ephemeral_encryption_filter",
            "virtio_sound_filter",
            "tpm_secret_security_filter",
            "owner_nova_filter",
        ],
        help="Prefilters (entry points accelsched.scheduler.prefilters), in order. Nova's are all there; those that it "
        "switches on by an option have that option here too.",
    ),
    cfg.ListOpt(
        "filters",
        default=[
            "ForcedHostFilter",
            "ComputeFilter",
            "ComputeCapabilitiesFilter",
            "ImagePropertiesFilter",
            "ServerGroupAntiAffinityFilter",
            "ServerGroupAffinityFilter",
            "SameHostFilter",
            "DifferentHostFilter",
        ],
        help="Filters (entry points accelsched.scheduler.filters), in order. The default is Nova's, and what obeys a "
        "request that names its host or other servers' hosts.",
    ),
    cfg.ListOpt(
        "weighers",
        default=[
            "RAMWeigher",
            "CPUWeigher",
            "DiskWeigher",
            "IoOpsWeigher",
            "NumInstancesWeigher",
            "HypervisorVersionWeigher",
            "PCIWeigher",
            "MetricsWeigher",
            "ServerGroupSoftAffinityWeigher",
            "ServerGroupSoftAntiAffinityWeigher",
            "BuildFailureWeigher",
            "CrossCellWeigher",
            "ImagePropertiesWeigher",
            "AcceleratorPackWeigher",
            "LinkedDevicesWeigher",
            "VgpuTypeWeigher",
        ],
        help="Weighers (entry points accelsched.scheduler.weighers). The default is all of Nova's, and our own for "
        "devices.",
    ),
    cfg.BoolOpt(
        "limit_tenants_to_placement_aggregate",
        default=False,
        help="require_tenant_aggregate: projects that an aggregate names in metadata filter_tenant_id* go there only.",
    ),
    cfg.BoolOpt(
        "placement_aggregate_required_for_tenants",
        default=False,
        help="require_tenant_aggregate: projects that no aggregate names go nowhere, instead of anywhere.",
    ),
    cfg.BoolOpt(
        "query_placement_for_image_type_support",
        default=False,
        help="require_image_type_support: hosts must have the trait COMPUTE_IMAGE_TYPE_* of the image's disk format.",
    ),
    cfg.BoolOpt(
        "enable_isolated_aggregate_filtering",
        default=False,
        help="isolate_aggregates: hosts of aggregates with metadata trait:NAME=required take only servers whose flavor "
        "or image requires these traits.",
    ),
    cfg.BoolOpt(
        "image_metadata_prefilter",
        default=False,
        help="transform_image_metadata: hosts must have the traits that the image's hw_* properties stand for.",
    ),
    cfg.BoolOpt(
        "query_placement_for_routed_network_aggregates",
        default=False,
        help="routed_networks_filter: takes effect once there is a network service to ask.",
    ),
    cfg.BoolOpt(
        "require_owner_trait",
        default=False,
        help="owner_nova_filter: hosts must have the trait OWNER_NOVA, where Cyborg manages some devices of the fleet.",
    ),
    cfg.FloatOpt(
        "accelerator_pack_weight_multiplier",
        default=1.0,
        help="AcceleratorPackWeigher: positive fills devices in use before it opens an empty one, negative spreads.",
    ),
    cfg.FloatOpt(
        "best_fit_weight_multiplier",
        default=1.0,
        help="BestFitWeigher: positive fills hosts, negative empties them.",
    ),
    cfg.FloatOpt(
        "fragmentation_weight_multiplier",
        default=1.0,
        help="FragmentationWeigher: positive avoids idle devices that nobody can use.",
    ),
    cfg.FloatOpt(
        "linked_devices_weight_multiplier",
        default=5.0,
        help="LinkedDevicesWeigher: positive keeps a server's devices within one link partition, and partitions whole.",
    ),
    cfg.FloatOpt(
        "vgpu_type_weight_multiplier",
        default=2.0,
        help="VgpuTypeWeigher: positive takes devices that carry the type before those that others could still use.",
    ),
    cfg.IntOpt(
        "outlook_requests",
        default=1000,
        min=1,
        max=100_000,
        help="The most recent requests with a place, from which weighers that ask for it (FragmentationWeigher) learn "
        "what to expect.",
    ),
    cfg.FloatOpt(
        "outlook_interval",
        default=60.0,
        min=0.05,
        help="Seconds after which these requests are read again.",
    ),
    cfg.FloatOpt(
        "planned_weight_multiplier",
        default=10.0,
        help="PlannedWeigher: more than the others together, which decide among places that are as good by the plan.",
    ),
    cfg.IntOpt(
        "service_down_time",
        default=60,
        min=1,
        help="Seconds without a heartbeat after which a host gets nothing new.",
    ),
    cfg.FloatOpt(
        "poll_interval",
        default=5.0,
        min=0.05,
        help="Seconds between looks for requests whose message was lost.",
    ),
    cfg.IntOpt(
        "claim_attempts",
        default=10,
        min=1,
        max=100,
        help="Times that losers of a race for the same devices are placed again.",
    ),
    cfg.FloatOpt(
        "lease_seconds",
        default=60.0,
        min=1.0,
        help="How long a scheduler may work on a request before another takes it over.",
    ),
    cfg.IntOpt(
        "relaxation_tries",
        default=150,
        min=0,
        max=100_000,
        help="Decisions that may be made, for a request that found no host, to find out what it would have had to do "
        "without. Each takes about as long as the one that failed. 0: nobody is told.",
    ),
    cfg.IntOpt(
        "explanation_retention_hours",
        default=168,
        min=1,
        help="How long the explanation of a decision is kept.",
    ),
]
