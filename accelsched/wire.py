# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The shapes of every message that crosses RPC.

Plain JSON-able dictionaries, typed. Both sides import only this module, so an agent needs nothing of the control
plane. A new key is optional for at least one release (rolling upgrade). What an agent must know, lest it leaves it
undone and nobody hears, is a new minor version of what agents understand; a changed meaning is a new major one.

=======  ==========================================================================================
version  agents understand
=======  ==========================================================================================
1.0      assignments with orders to run, stop, pause, suspend and reboot; sync, console_output
1.1      snapshot and rescue in orders, restore in assignments, what FPGAs are to be programmed with, plugs of devices;
         diagnostics
1.2      away in orders, incoming in assignments: live migration
1.3      trigger_crash_dump
1.4      suspend a server with devices that cannot be saved: its guest lets go of them, and has them again afterwards
=======  ==========================================================================================
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

AGENT_VERSION = "1.4"
"""What agents of this release understand. They say so in their reports; one that does not say understands 1.0."""


class InventoryReport(TypedDict):
    """One resource class of one provider; amounts in the class's own units."""

    total: int
    reserved: int
    min_unit: int
    max_unit: int
    step_size: int
    allocation_ratio: float


class ProviderReport(TypedDict):
    """One resource provider of a host: the host itself (no parent) or one of its devices."""

    uuid: str
    name: str
    parent: str | None  # uuid, None for the host's own (root) provider
    inventories: dict[str, InventoryReport]  # by resource class
    traits: list[str]
    how: NotRequired[str]  # the way in which the device is handed out: mdev, vfio, pci, simulated ...
    # How its classes share it: {"type": "one_type" | "budget" | "slices", ...}, as PUT /v1/.../capacity_rule takes it.
    capacity_rule: NotRequired[dict[str, Any]]
    # What is wrong with the device, as the end of a sentence about it: "does not answer". The rest is as it was before.
    fault: NotRequired[str]


class HypervisorReport(TypedDict):
    """What runs the servers on this host."""

    type: str  # QEMU, simulated
    version: int  # as libvirt encodes it: major * 1_000_000 + minor * 1_000 + release
    hostname: str
    cpu_arch: str  # as uname says it: x86_64, aarch64
    virt_type: str  # kvm, qemu (software emulation), simulated
    host_ip: NotRequired[str]  # where it is known
    libvirt_version: NotRequired[int]  # encoded like version
    kernel: NotRequired[str]  # as uname says it: 6.1.0-18-amd64


class NumaNode(TypedDict):
    """One NUMA node of a host, as far as servers may use it."""

    node: int
    socket: NotRequired[int | None]
    shared_cpus: list[int]  # [compute] cpu_shared_set
    dedicated_cpus: list[int]  # [compute] cpu_dedicated_set
    cores: list[list[int]]  # CPUs that are threads of one core
    memory_mb: int
    pages: dict[str, int]  # number of pages by size in KiB, the ordinary ones among them


class NumaTopology(TypedDict):
    """The NUMA nodes of a host. Which node a device is on, its provider's trait CUSTOM_NUMA_NODE_<n> says."""

    nodes: list[NumaNode]


class NumaPlacedNode(TypedDict):
    """Where one NUMA node of a server is on its host."""

    node: int  # of the host
    shared_cpus: list[int]  # the server's CPUs that float over the host's shared ones
    pins: dict[str, int]  # the host's CPU by the server's, which is a string as JSON has it
    memory_mb: int
    page_kb: int | None  # None: no size was asked for


class Said(TypedDict):
    """Which of the things that an agent says this is; one that arrives after a later one is old."""

    run: str  # of the agent's process, drawn when it starts
    number: int  # grows within the run


class HostReport(TypedDict):
    """A host's whole picture of itself; sending it twice changes nothing."""

    host: str
    node_uuid: str  # uuid of the root provider; kept by the agent in its state directory
    agent: str  # RPC server name (queue) of the agent process that stands for this host
    simulated: bool  # True when the host or all its devices are simulated
    hypervisor: HypervisorReport
    providers: list[ProviderReport]  # parents before children, the root first
    numa: NotRequired[NumaTopology]  # where the host has NUMA nodes, one at least, and the agent can tell
    rpc_version: NotRequired[str]  # AGENT_VERSION of the agent's release
    said: NotRequired[Said]


class Plug(TypedDict):
    """What was attached to a server that was there already, or is to be."""

    id: str  # of the accelerator, a uuid
    leaves: bool  # it is to be detached


class DeviceAllocation(TypedDict):
    """What one request group of a server was given on one provider."""

    group: str  # suffix of the request group; "" for the unsuffixed one
    provider_uuid: str
    provider_name: str
    resources: dict[str, int]  # amount by resource class
    # By resource class, the first memory slice of each unit, ascending; only where the provider's rule has positions.
    positions: NotRequired[dict[str, list[int]]]
    plug: NotRequired[Plug]  # none: the server has it from its beginning to its end


class FlavorSpec(TypedDict):
    """The flavor as it was when the server was made."""

    name: str
    vcpus: int
    ram_mb: int
    disk_gb: int
    extra_specs: dict[str, str]


class ImageSpec(TypedDict):
    """The image as it was when the server was made."""

    id: str
    name: str
    disk_format: str
    size: int  # bytes
    min_disk_gb: int
    min_ram_mb: int
    os_hash_algo: str | None
    os_hash_value: str | None
    properties: dict[str, str]  # kernel_id, ramdisk_id, os_command_line, hw_* ...


class Destination(TypedDict):
    """Where a server is to go while it runs. What its owner or an operator says meanwhile is added."""

    host: str
    agent: str  # RPC server name of its agent, which waits for the server
    abort: NotRequired[bool]  # it is to stay after all
    force: NotRequired[bool]  # it may stand still, so that it gets there soon


class Landing(TypedDict):
    """What a server that runs finds where it goes, as the agent there says."""

    xml: str  # its domain's definition there; empty where there are no domains
    address: str  # of the host, for libvirt and QEMU


class Departure(TypedDict):
    """What is to be known of a server that runs, to make ready for it elsewhere."""

    disk: NotRequired[RunningDisk]  # none where it has no disk
    files: dict[str, int]  # that nobody writes to, the size of each in bytes, by name


class RunningDisk(TypedDict):
    """The shape of a disk that is in use."""

    virtual_size: int  # bytes
    on_image: bool  # an overlay of the server's image; else it stands on nothing


class LiveProgress(TypedDict):
    """How far a live migration is; bytes."""

    memory_total: int
    memory_processed: int
    memory_remaining: int
    disk_total: int
    disk_processed: int
    disk_remaining: int


class PowerOrder(TypedDict):
    """What a server was told to do last. An agent carries out each number once and then leaves the server alone."""

    number: int  # 1 for a server's first order
    # aside: stopped, without a domain; what it has stays until it is known whether it comes back from where it goes.
    # away: on another host, as it runs; nothing of it runs here when that is carried out.
    power: Literal["running", "stopped", "paused", "suspended", "rescued", "aside", "away"]
    reboot: Literal["soft", "hard"] | None  # by way of a reboot: the guest is asked to shut down, or not
    # An image in Glance, made already, that the disk's contents are uploaded to. A server is stopped for it where the
    # order has it stopped; else it goes on as it is.
    snapshot: NotRequired[str]
    live: NotRequired[Destination]  # where to, of away
    rescue: NotRequired[ImageSpec]  # what a server that is rescued boots from, with its own disk as the second
    admin_pass: NotRequired[str]  # for the administrator of the guest that is booted from that, until it was


class Origin(TypedDict):
    """The host that has set a server aside and holds its files, or that it still runs on."""

    host: str
    agent: str  # RPC server name of its agent
    lost: NotRequired[bool]  # it is off or cut off, and nothing that is not here already comes from there


class KeptDisk(TypedDict):
    """What was on a server's disk before it got another size on the same host."""

    id: str  # uuid of the move
    restore: bool  # it is wanted again; else it is to be kept before anything is written


class Chunk(TypedDict):
    """A part of a file."""

    data: str  # base64
    sha256: str  # hexadecimal, of what the data stands for


class Assignment(TypedDict):
    """What is wanted of one server on one host."""

    server_uuid: str
    host: str
    desired: Literal["active", "deleted"]
    name: str
    project_id: str
    user_id: str
    flavor: FlavorSpec
    image: ImageSpec | None
    devices: list[DeviceAllocation]
    order: NotRequired[PowerOrder]  # none: it is to run
    numa: NotRequired[list[NumaPlacedNode]]  # by the server's nodes; not there when it asked for none
    restore: NotRequired[ImageSpec]  # what its disk is made of, where that is not an overlay of the image
    incarnation: NotRequired[int]  # 1 when not there; one of a smaller number is removed and built anew
    origin: NotRequired[Origin]  # where its files are to be fetched from before it is built
    # Where it runs now. All is to be made ready for it here; it comes by itself.
    incoming: NotRequired[Origin]
    leaving: NotRequired[bool]  # it is to go to another host as it runs, which may ask for what it needs to make ready
    kept_disk: NotRequired[KeptDisk]  # not there: none is of use any more
    metadata: dict[str, str]
    user_data: str | None  # base64, as the user gave it
    config_drive: bool
    networks: NotRequired[Literal["none", "auto"]]  # auto: on the host's network, where it has one; none when not there
    admin_pass: NotRequired[str]  # for the guest's administrator, by way of the config drive
    hostname: NotRequired[str | None]  # none: it follows from the name
    key_name: NotRequired[str | None]
    public_key: NotRequired[str | None]
    created_at: str  # ISO 8601, UTC


class CpuDetails(TypedDict):
    """What one CPU of a server has done."""

    id: int
    time: int  # ns of the host's CPU that it had


class DiskDetails(TypedDict):
    """What was read from and written to one disk of a server since it was started."""

    read_bytes: int
    read_requests: int
    write_bytes: int
    write_requests: int
    errors_count: int


class NicDetails(TypedDict):
    """What went through a server's interface since it was started; received is what the server received."""

    mac_address: str
    rx_octets: int
    rx_packets: int
    rx_errors: int
    rx_drop: int
    tx_octets: int
    tx_packets: int
    tx_errors: int
    tx_drop: int


class Diagnostics(TypedDict):
    """What a server's domain does at this moment."""

    state: str  # running, paused, crashed, shutdown, suspended
    driver: str  # libvirt, simulated
    hypervisor: str
    uptime: int | None  # s
    cpus: list[CpuDetails]
    disks: list[DiskDetails]
    nics: NotRequired[list[NicDetails]]
    memory_mb: int


class Interface(TypedDict):
    """A server's interface, of the MAC address that :func:`accelsched.names.mac_address` gives."""

    network: str  # libvirt's name of the network that it is on
    addresses: list[str]  # IP addresses that the network is known to have given it


class Fault(TypedDict):
    """Why something the agent tried did not work."""

    message: str  # one line, fit to be shown to the server's owner
    details: str  # for the operator
    unfit_target: NotRequired[bool]  # of a server that was to go as it runs: found before anything moved


class Programming(TypedDict):
    """The programming of one FPGA region for a server, as far as it is.

    ``looking up``: which image it is; ``downloading``; ``programming``: an executable does; then ``programmed``,
    ``skipped``: the function was there already, or ``failed``.
    """

    uuid: str  # of this job: the agent's word for it, kept across its restarts
    provider_uuid: str  # the region
    provider_name: str
    wanted: str  # bitstream_id=UUID or function_id=UUID, as the flavor says
    image_id: str | None  # None: not known yet
    function_id: str | None  # what the region has then, as far as the image or the bitstream says
    state: Literal["looking up", "downloading", "programming", "programmed", "skipped", "failed"]
    percent: int  # of the bitstream that is downloaded
    fault: Fault | None
    started_at: str  # ISO 8601, UTC
    finished_at: str | None


class Observation(TypedDict):
    """What the agent saw of one server.

    ``building``: being made; ``active``: its domain runs; ``stopped``: it is defined and does not run; ``paused``: its
    CPUs stand still; ``suspended``: its memory is saved on disk; ``rescued``: it was booted from another disk than its
    own; ``awaited``: all is ready for it to come while it runs; ``error``: it could not be made, see fault; ``gone``:
    nothing of it is left on the host.
    """

    host: str
    server_uuid: str
    state: Literal["building", "active", "stopped", "paused", "suspended", "rescued", "awaited", "error", "gone"]
    detail: str  # what is being done while building: preparing devices, fetching image ...
    fault: Fault | None
    incarnation: NotRequired[int]  # of the assignment that was built, 1 when not there
    order: NotRequired[int]  # number of the last order that was carried out, or tried
    order_fault: NotRequired[Fault | None]  # why that did not work
    interface: NotRequired[Interface]  # where the server has one
    snapshot: NotRequired[Literal["image_pending_upload", "image_uploading"]]  # how far the order after that is
    migration: NotRequired[LiveProgress]  # how far the order to go elsewhere is
    said: NotRequired[Said]
    programming: NotRequired[list[Programming]]  # what was done about it since the agent was started
    plugs: NotRequired[list[str]]  # accelerators that are attached, as wire.Plug; not there: nobody looked
    plug_faults: NotRequired[dict[str, Fault]]  # why some could not be attached or detached, by accelerator
    let_go: NotRequired[list[str]]  # accelerators that the guest let go of when the time for that was over already
