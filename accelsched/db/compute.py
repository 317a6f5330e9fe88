# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Tables of servers, flavors and hosts."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, ForeignKey, Index, Integer, String, UniqueConstraint, select
from sqlalchemy.orm import Mapped, column_property, mapped_column

from accelsched.db.base import TABLE_ARGS, Base, id_key, long_text, moment, name_text, utcnow, uuid_text


class Heartbeat(Base):
    """When a host was last heard of. Written many times a second, so it is narrow, and nothing but its key is indexed:
    PostgreSQL then changes such a row within its page, for which pages are left half empty.
    """

    __tablename__ = "heartbeats"
    __table_args__ = TABLE_ARGS | {"postgresql_with": {"fillfactor": 50}}

    host_id: Mapped[int] = mapped_column(
        ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    seen_at: Mapped[moment]


class Host(Base):
    """A host as its agent last reported it."""

    __tablename__ = "hosts"
    __table_args__ = TABLE_ARGS

    id: Mapped[id_key] = mapped_column()
    name: Mapped[name_text] = mapped_column(unique=True)
    service_uuid: Mapped[uuid_text] = mapped_column(unique=True)  # as os-services names it
    node_uuid: Mapped[uuid_text] = mapped_column(unique=True)  # as os-hypervisors and Placement name it
    agent: Mapped[name_text]  # RPC queue of the agent process
    rpc_version: Mapped[str] = mapped_column(String(16), default="1.0")  # what the agent understands, see wire
    simulated: Mapped[bool] = mapped_column(Boolean, default=False)
    hypervisor: Mapped[dict[str, Any]] = mapped_column(JSON)  # wire.HypervisorReport
    report_digest: Mapped[str] = mapped_column(String(64))  # of the last report that was taken
    reported: Mapped[dict[str, Any]] = mapped_column(JSON)  # its providers: what the agent owns and may take back
    heard: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # compute.hearing.Heard, of reports
    device_faults: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # compute.devices.Faults
    disabled: Mapped[bool] = mapped_column(Boolean, default=False)
    disabled_reason: Mapped[str | None] = mapped_column(String(255))
    forced_down: Mapped[bool] = mapped_column(Boolean, default=False)
    failed_builds: Mapped[int] = mapped_column(Integer, default=0)  # in a row: a build that succeeds sets it to 0
    created_at: Mapped[moment] = mapped_column(default=utcnow)
    last_seen_at: Mapped[datetime.datetime] = column_property(
        select(Heartbeat.seen_at).where(Heartbeat.host_id == id).correlate_except(Heartbeat).scalar_subquery(),
        # What is written of a host does not change it, and a host is looked at after its transaction.
        expire_on_flush=False,
    )


class HostAggregate(Base):
    """A set of hosts with metadata for the scheduler; one with ``availability_zone`` in it is a zone to users.

    Its uuid is that of the Placement aggregate that the hosts' providers are in.
    """

    __tablename__ = "host_aggregates"
    __table_args__ = TABLE_ARGS

    id: Mapped[id_key]
    uuid: Mapped[uuid_text] = mapped_column(unique=True)
    name: Mapped[name_text] = mapped_column(unique=True)
    metadata_: Mapped[dict[str, str]] = mapped_column("metadata", JSON, default=dict)
    created_at: Mapped[moment] = mapped_column(default=utcnow)
    updated_at: Mapped[moment | None]


class HostAggregateMember(Base):
    """A host in an aggregate."""

    __tablename__ = "host_aggregate_members"
    __table_args__ = TABLE_ARGS

    aggregate_id: Mapped[int] = mapped_column(ForeignKey("host_aggregates.id", ondelete="CASCADE"), primary_key=True)
    host_id: Mapped[int] = mapped_column(ForeignKey("hosts.id"), primary_key=True, index=True)


class ServerGroup(Base):
    """Servers that shall share a host, or shall not. Which ones: those whose request names it."""

    __tablename__ = "server_groups"
    __table_args__ = (Index(None, "project_id", "id"), TABLE_ARGS)

    id: Mapped[id_key]
    uuid: Mapped[uuid_text] = mapped_column(unique=True)
    project_id: Mapped[name_text]
    user_id: Mapped[name_text]
    name: Mapped[name_text]
    policy: Mapped[str] = mapped_column(String(32))  # affinity, anti-affinity, soft-affinity, soft-anti-affinity
    max_server_per_host: Mapped[int | None] = mapped_column(Integer)  # anti-affinity only; None is 1
    created_at: Mapped[moment] = mapped_column(default=utcnow)


class HostsHead(Base):
    """One row: how often what schedulers keep in memory of hosts has changed; see :mod:`accelsched.db.hosts_head`."""

    __tablename__ = "hosts_head"
    __table_args__ = TABLE_ARGS

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    seq: Mapped[int] = mapped_column(BigInteger)


class ControlPlane(Base):
    """One row: which control plane this database is. A host that belongs to one takes no orders from another."""

    __tablename__ = "control_plane"
    __table_args__ = TABLE_ARGS

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    uuid: Mapped[uuid_text]


class Flavor(Base):
    """A size that servers come in."""

    __tablename__ = "flavors"
    __table_args__ = TABLE_ARGS

    id: Mapped[id_key]
    flavorid: Mapped[name_text] = mapped_column(unique=True)
    name: Mapped[name_text] = mapped_column(unique=True)
    vcpus: Mapped[int] = mapped_column(Integer)
    ram_mb: Mapped[int] = mapped_column(Integer)
    disk_gb: Mapped[int] = mapped_column(Integer)
    ephemeral_gb: Mapped[int] = mapped_column(Integer, default=0)
    swap_mb: Mapped[int] = mapped_column(Integer, default=0)
    rxtx_factor: Mapped[float] = mapped_column(default=1.0)
    is_public: Mapped[bool] = mapped_column(Boolean, default=True)
    disabled: Mapped[bool] = mapped_column(Boolean, default=False)
    description: Mapped[long_text | None]
    extra_specs: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    created_at: Mapped[moment] = mapped_column(default=utcnow)


class FlavorProject(Base):
    """A project that may use a flavor which is not public."""

    __tablename__ = "flavor_projects"
    __table_args__ = TABLE_ARGS

    flavor_id: Mapped[int] = mapped_column(ForeignKey("flavors.id", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[name_text] = mapped_column(primary_key=True)


class Server(Base):
    """A server: what is wanted of it (``desired``) and what was last seen (``state``).

    A row stays after the server is gone (``deleted_at``), for its explanation and its usage.
    """

    __tablename__ = "servers"
    __table_args__ = (
        Index(None, "project_id", "created_at", "id"),
        Index(None, "host", "deleted_at"),
        Index(None, "state", "deleted_at", "host"),
        TABLE_ARGS,
    )

    id: Mapped[id_key]
    uuid: Mapped[uuid_text] = mapped_column(unique=True)
    request_id: Mapped[int] = mapped_column(ForeignKey("requests.id"), index=True)
    launch_index: Mapped[int] = mapped_column(Integer, default=0)
    project_id: Mapped[name_text]
    user_id: Mapped[name_text]
    name: Mapped[name_text]
    description: Mapped[str | None] = mapped_column(String(255))
    hostname: Mapped[str | None] = mapped_column(String(255))  # None: made before they were kept, it follows the name
    access_ip_v4: Mapped[str | None] = mapped_column(String(39))
    access_ip_v6: Mapped[str | None] = mapped_column(String(39))
    auto_disk_config: Mapped[bool] = mapped_column(Boolean, default=False)
    metadata_: Mapped[dict[str, str]] = mapped_column("metadata", JSON, default=dict)
    flavor: Mapped[dict[str, Any]] = mapped_column(JSON)  # wire.FlavorSpec and its id, as it was
    image: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # wire.ImageSpec, as it was
    # What its disk is made of when it is taken from the shelf: wire.ImageSpec, of which only the id is known before.
    shelved_image: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    user_data: Mapped[long_text | None]
    key_name: Mapped[str | None] = mapped_column(String(255))
    public_key: Mapped[long_text | None]  # as it was: the key pair may be deleted
    config_drive: Mapped[bool] = mapped_column(Boolean, default=False)
    networks: Mapped[str] = mapped_column(String(8), default="none")  # wanted: none, auto
    # What its agent told of its interface: the network's name there, and the addresses that were given to it.
    network: Mapped[str | None] = mapped_column(String(255))
    ip_v4: Mapped[str | None] = mapped_column(String(15))
    ip_v6: Mapped[str | None] = mapped_column(String(39))
    admin_pass: Mapped[str | None] = mapped_column(String(255))  # until the server was built with it
    desired: Mapped[str] = mapped_column(String(16), default="active")  # active, shelved, deleted
    power_order: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # the last; see compute.orders
    task: Mapped[str | None] = mapped_column(String(32))  # Nova's task_state until that order is carried out
    incarnation: Mapped[int] = mapped_column(Integer, default=1)  # grows when it is to be built anew
    built: Mapped[int] = mapped_column(Integer, default=0)  # the last incarnation that was, or could not be, built
    failed_hosts: Mapped[list[str]] = mapped_column(JSON, default=list)  # where its first build failed
    state: Mapped[str] = mapped_column(String(16), default="scheduling")  # see compute.states
    held_in_error: Mapped[bool] = mapped_column(Boolean, default=False)  # by os-resetState: not mended by what is seen
    locked_by: Mapped[str | None] = mapped_column(String(16))  # owner, admin
    locked_reason: Mapped[str | None] = mapped_column(String(255))
    detail: Mapped[str] = mapped_column(String(255), default="")  # what is being done just now
    fault: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # code, message, details, created
    host: Mapped[str | None] = mapped_column(String(255))
    node_uuid: Mapped[str | None] = mapped_column(String(36))
    devices: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)  # wire.DeviceAllocation
    numa: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))  # wire.NumaPlacedNode
    created_at: Mapped[moment] = mapped_column(default=utcnow)
    updated_at: Mapped[moment] = mapped_column(default=utcnow)
    heard: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # compute.hearing.Heard
    migration_id: Mapped[int | None] = mapped_column(BigInteger)  # the move that is not over; no key: it names this too
    launched_at: Mapped[moment | None]
    deleted_at: Mapped[moment | None] = mapped_column(index=True)


class Migration(Base):
    """A server's move to another size, host or both, until it is confirmed or taken back; see ``compute.moving``.

    Its uuid is the consumer that holds what the server has where it comes from.
    """

    __tablename__ = "migrations"
    __table_args__ = (Index(None, "source_host", "status"), TABLE_ARGS)

    id: Mapped[id_key]
    uuid: Mapped[uuid_text] = mapped_column(unique=True)
    server_id: Mapped[int] = mapped_column(ForeignKey("servers.id"), index=True)
    request_id: Mapped[int] = mapped_column(ForeignKey("requests.id"), index=True)
    type: Mapped[str] = mapped_column(String(16))  # resize, migration, live-migration
    status: Mapped[str] = mapped_column(String(16), index=True)  # see compute.moving, compute.live_migration
    source_host: Mapped[name_text]
    source_node: Mapped[uuid_text]
    dest_host: Mapped[str | None] = mapped_column(String(255))
    dest_node: Mapped[str | None] = mapped_column(String(36))
    # What the server is there: flavor, devices, numa, incarnation; of the source also the order that set it aside,
    # of the target of a live one how far it is (progress: wire.LiveProgress) and whether it was given up (aborted).
    source: Mapped[dict[str, Any]] = mapped_column(JSON)
    target: Mapped[dict[str, Any]] = mapped_column(JSON)
    power: Mapped[str] = mapped_column(String(16))  # what it did before, and is to do after: running, stopped, paused
    old_flavor_id: Mapped[int | None] = mapped_column(BigInteger)
    new_flavor_id: Mapped[int | None] = mapped_column(BigInteger)
    fault: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # wire.Fault: why it is taken back
    project_id: Mapped[name_text]
    user_id: Mapped[name_text]  # who asked for it
    created_at: Mapped[moment] = mapped_column(default=utcnow)
    updated_at: Mapped[moment] = mapped_column(default=utcnow)


class ServerTag(Base):
    """A word that a user put on a server."""

    __tablename__ = "server_tags"
    __table_args__ = TABLE_ARGS

    server_id: Mapped[int] = mapped_column(ForeignKey("servers.id"), primary_key=True)
    tag: Mapped[str] = mapped_column(String(60), primary_key=True)


class UnwantedImage(Base):
    """An image in Glance that was made of a server and is of no use any more; see ``compute.snapshots``."""

    __tablename__ = "unwanted_images"
    __table_args__ = TABLE_ARGS

    image_id: Mapped[uuid_text] = mapped_column(primary_key=True)
    since: Mapped[moment] = mapped_column(default=utcnow)


class KeyPair(Base):
    """A user's public key, for the guests that shall let the user in. Nobody keeps the private one."""

    __tablename__ = "key_pairs"
    __table_args__ = (UniqueConstraint("user_id", "name"), TABLE_ARGS)

    id: Mapped[id_key]
    user_id: Mapped[name_text]
    name: Mapped[name_text]
    type: Mapped[str] = mapped_column(String(8))  # ssh, x509
    fingerprint: Mapped[name_text]
    public_key: Mapped[long_text]
    created_at: Mapped[moment] = mapped_column(default=utcnow)


class QuotaLimit(Base):
    """How much of something a project may have, where it is not what the configuration says.

    ``owner`` is a project's id, or the name of a class: of ``default`` are projects without limits of their own.
    """

    __tablename__ = "quota_limits"
    __table_args__ = TABLE_ARGS

    scope: Mapped[str] = mapped_column(String(8), primary_key=True)  # project, class
    owner: Mapped[name_text] = mapped_column(primary_key=True)
    resource: Mapped[str] = mapped_column(String(64), primary_key=True)  # see compute.quotas
    hard_limit: Mapped[int] = mapped_column(Integer)  # -1: as much as it likes


class QuotaLock(Base):
    """Whoever adds to what is limited holds its owner's row, so that two do not count at the same time."""

    __tablename__ = "quota_locks"
    __table_args__ = TABLE_ARGS

    owner: Mapped[str] = mapped_column(String(300), primary_key=True)  # project/ID, user/ID


class InstanceAction(Base):
    """Something a user had done to a server, and how that went: Nova's instance action and its one event."""

    __tablename__ = "instance_actions"
    __table_args__ = (Index(None, "server_id", "id"), TABLE_ARGS)

    id: Mapped[id_key]
    server_id: Mapped[int] = mapped_column(ForeignKey("servers.id"))
    action: Mapped[name_text]
    event: Mapped[str | None] = mapped_column(String(255))  # None: done when it was asked for, nothing happened later
    request_id: Mapped[str] = mapped_column(String(64))
    project_id: Mapped[name_text]
    user_id: Mapped[name_text]
    order_number: Mapped[int | None] = mapped_column(Integer)  # wire.PowerOrder's, when it is one
    host: Mapped[str | None] = mapped_column(String(255))
    started_at: Mapped[moment] = mapped_column(default=utcnow)
    updated_at: Mapped[moment] = mapped_column(default=utcnow)
    finished_at: Mapped[moment | None]
    fault: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # wire.Fault; None: it went well


class ProgrammingJob(Base):
    """The programming of an FPGA region for a server, as its agent told it."""

    __tablename__ = "programming_jobs"
    __table_args__ = TABLE_ARGS

    id: Mapped[id_key]
    uuid: Mapped[uuid_text] = mapped_column(unique=True)
    server_id: Mapped[int] = mapped_column(ForeignKey("servers.id"), index=True)
    host: Mapped[name_text]
    state: Mapped[str] = mapped_column(String(16))  # as wire.Programming
    told: Mapped[dict[str, Any]] = mapped_column(JSON)  # wire.Programming
    created_at: Mapped[moment] = mapped_column(default=utcnow)
    updated_at: Mapped[moment] = mapped_column(default=utcnow)


class Request(Base):
    """One create call: one or many servers alike, placed together. Or a server that is to move to another host."""

    __tablename__ = "requests"
    __table_args__ = (Index(None, "state", "lease_until"), TABLE_ARGS)

    id: Mapped[id_key]
    uuid: Mapped[uuid_text] = mapped_column(unique=True)  # the reservation id
    project_id: Mapped[name_text]
    user_id: Mapped[name_text]
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)  # scheduler.request.RequestSpec
    # The server group that its servers are members of. No foreign key: members outlive their group.
    group_uuid: Mapped[str | None] = mapped_column(String(36), index=True)
    server_id: Mapped[int | None] = mapped_column(BigInteger, index=True)  # the one that is to move; None: new servers
    count: Mapped[int] = mapped_column(Integer)
    min_count: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(16), default="pending")  # pending, done
    # Who works on it and until when; another scheduler takes over after that.
    worker: Mapped[str | None] = mapped_column(String(255))
    lease_until: Mapped[moment | None]
    created_at: Mapped[moment] = mapped_column(default=utcnow)


class Decision(Base):
    """Why a request went where it went; rendered by scheduler.explanation."""

    __tablename__ = "decisions"
    __table_args__ = TABLE_ARGS

    id: Mapped[id_key]
    request_id: Mapped[int] = mapped_column(ForeignKey("requests.id", ondelete="CASCADE"), index=True)
    sequence: Mapped[int] = mapped_column(BigInteger, default=0)  # 0, 1 ...: attempts after lost races
    explanation: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[moment] = mapped_column(default=utcnow, index=True)


def as_iso(when: datetime.datetime | None) -> str | None:
    """Render a moment as the Compute API does: ``2026-11-24T11:20:00Z``."""
    return None if when is None else when.strftime("%Y-%m-%dT%H:%M:%SZ")
