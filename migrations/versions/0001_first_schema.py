# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The resource database, servers, flavors, hosts and the change feed"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
TABLE = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    op.create_table(
        "aggregates",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_aggregates")),
        sa.UniqueConstraint("uuid", name=op.f("uq_aggregates_uuid")),
        **TABLE,
    )
    op.create_table(
        "consumers",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("consumer_type", sa.String(length=255), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consumers")),
        sa.UniqueConstraint("uuid", name=op.f("uq_consumers_uuid")),
        **TABLE,
    )
    op.create_index(op.f("ix_consumers_project_id_user_id"), "consumers", ["project_id", "user_id"], unique=False)

    op.create_table(
        "control_plane",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_control_plane")),
        **TABLE,
    )
    op.create_table(
        "feed_entries",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("provider_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("seq", "provider_id", name=op.f("pk_feed_entries")),
        **TABLE,
    )
    op.create_table(
        "feed_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feed_head")),
        **TABLE,
    )
    op.create_table(
        "flavors",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("flavorid", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("ram_mb", sa.Integer(), nullable=False),
        sa.Column("disk_gb", sa.Integer(), nullable=False),
        sa.Column("ephemeral_gb", sa.Integer(), nullable=False),
        sa.Column("swap_mb", sa.Integer(), nullable=False),
        sa.Column("rxtx_factor", sa.Double(), nullable=False),
        sa.Column("is_public", sa.Boolean(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("description", LONG_TEXT, nullable=True),
        sa.Column("extra_specs", sa.JSON(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flavors")),
        sa.UniqueConstraint("flavorid", name=op.f("uq_flavors_flavorid")),
        sa.UniqueConstraint("name", name=op.f("uq_flavors_name")),
        **TABLE,
    )
    op.create_table(
        "hosts",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("service_uuid", sa.String(length=36), nullable=False),
        sa.Column("node_uuid", sa.String(length=36), nullable=False),
        sa.Column("agent", sa.String(length=255), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("hypervisor", sa.JSON(), nullable=False),
        sa.Column("report_digest", sa.String(length=64), nullable=False),
        sa.Column("reported", sa.JSON(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.String(length=255), nullable=True),
        sa.Column("forced_down", sa.Boolean(), nullable=False),
        sa.Column("last_seen_at", MOMENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hosts")),
        sa.UniqueConstraint("name", name=op.f("uq_hosts_name")),
        sa.UniqueConstraint("node_uuid", name=op.f("uq_hosts_node_uuid")),
        sa.UniqueConstraint("service_uuid", name=op.f("uq_hosts_service_uuid")),
        **TABLE,
    )
    op.create_index(op.f("ix_hosts_last_seen_at"), "hosts", ["last_seen_at"], unique=False)

    op.create_table(
        "requests",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("min_count", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("worker", sa.String(length=255), nullable=True),
        sa.Column("lease_until", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_requests")),
        sa.UniqueConstraint("uuid", name=op.f("uq_requests_uuid")),
        **TABLE,
    )
    op.create_index(op.f("ix_requests_state_lease_until"), "requests", ["state", "lease_until"], unique=False)

    op.create_table(
        "resource_classes",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_resource_classes")),
        sa.UniqueConstraint("name", name=op.f("uq_resource_classes_name")),
        **TABLE,
    )
    op.create_table(
        "resource_providers",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("root_id", ROW_ID, nullable=True),
        sa.Column("parent_id", ROW_ID, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["parent_id"], ["resource_providers.id"], name=op.f("fk_resource_providers_parent_id")),
        sa.ForeignKeyConstraint(["root_id"], ["resource_providers.id"], name=op.f("fk_resource_providers_root_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_resource_providers")),
        sa.UniqueConstraint("name", name=op.f("uq_resource_providers_name")),
        sa.UniqueConstraint("uuid", name=op.f("uq_resource_providers_uuid")),
        **TABLE,
    )
    op.create_index(op.f("ix_resource_providers_parent_id"), "resource_providers", ["parent_id"], unique=False)
    op.create_index(op.f("ix_resource_providers_root_id"), "resource_providers", ["root_id"], unique=False)

    op.create_table(
        "traits",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_traits")),
        sa.UniqueConstraint("name", name=op.f("uq_traits_name")),
        **TABLE,
    )
    op.create_table(
        "allocations",
        sa.Column("consumer_id", ROW_ID, nullable=False),
        sa.Column("provider_id", ROW_ID, nullable=False),
        sa.Column("class_id", ROW_ID, nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["class_id"], ["resource_classes.id"], name=op.f("fk_allocations_class_id")),
        sa.ForeignKeyConstraint(["consumer_id"], ["consumers.id"], name=op.f("fk_allocations_consumer_id")),
        sa.ForeignKeyConstraint(["provider_id"], ["resource_providers.id"], name=op.f("fk_allocations_provider_id")),
        sa.PrimaryKeyConstraint("consumer_id", "provider_id", "class_id", name=op.f("pk_allocations")),
        **TABLE,
    )
    op.create_index(op.f("ix_allocations_class_id"), "allocations", ["class_id"], unique=False)
    op.create_index(op.f("ix_allocations_provider_id"), "allocations", ["provider_id"], unique=False)

    op.create_table(
        "decisions",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("request_id", ROW_ID, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("explanation", sa.JSON(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["request_id"], ["requests.id"], name=op.f("fk_decisions_request_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decisions")),
        **TABLE,
    )
    op.create_index(op.f("ix_decisions_created_at"), "decisions", ["created_at"], unique=False)
    op.create_index(op.f("ix_decisions_request_id"), "decisions", ["request_id"], unique=False)

    op.create_table(
        "flavor_projects",
        sa.Column("flavor_id", ROW_ID, nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["flavor_id"], ["flavors.id"], name=op.f("fk_flavor_projects_flavor_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("flavor_id", "project_id", name=op.f("pk_flavor_projects")),
        **TABLE,
    )
    op.create_table(
        "inventories",
        sa.Column("provider_id", ROW_ID, nullable=False),
        sa.Column("class_id", ROW_ID, nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("min_unit", sa.BigInteger(), nullable=False),
        sa.Column("max_unit", sa.BigInteger(), nullable=False),
        sa.Column("step_size", sa.BigInteger(), nullable=False),
        sa.Column("allocation_ratio", sa.Double(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["class_id"], ["resource_classes.id"], name=op.f("fk_inventories_class_id")),
        sa.ForeignKeyConstraint(["provider_id"], ["resource_providers.id"], name=op.f("fk_inventories_provider_id")),
        sa.PrimaryKeyConstraint("provider_id", "class_id", name=op.f("pk_inventories")),
        **TABLE,
    )
    op.create_index(op.f("ix_inventories_class_id"), "inventories", ["class_id"], unique=False)

    op.create_table(
        "provider_aggregates",
        sa.Column("provider_id", ROW_ID, nullable=False),
        sa.Column("aggregate_id", ROW_ID, nullable=False),
        sa.ForeignKeyConstraint(["aggregate_id"], ["aggregates.id"], name=op.f("fk_provider_aggregates_aggregate_id")),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["resource_providers.id"], name=op.f("fk_provider_aggregates_provider_id")
        ),
        sa.PrimaryKeyConstraint("provider_id", "aggregate_id", name=op.f("pk_provider_aggregates")),
        **TABLE,
    )
    op.create_index(op.f("ix_provider_aggregates_aggregate_id"), "provider_aggregates", ["aggregate_id"], unique=False)

    op.create_table(
        "provider_traits",
        sa.Column("provider_id", ROW_ID, nullable=False),
        sa.Column("trait_id", ROW_ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["resource_providers.id"], name=op.f("fk_provider_traits_provider_id")
        ),
        sa.ForeignKeyConstraint(["trait_id"], ["traits.id"], name=op.f("fk_provider_traits_trait_id")),
        sa.PrimaryKeyConstraint("provider_id", "trait_id", name=op.f("pk_provider_traits")),
        **TABLE,
    )
    op.create_index(op.f("ix_provider_traits_trait_id"), "provider_traits", ["trait_id"], unique=False)

    op.create_table(
        "servers",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("request_id", ROW_ID, nullable=False),
        sa.Column("launch_index", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("flavor", sa.JSON(), nullable=False),
        sa.Column("image", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("user_data", LONG_TEXT, nullable=True),
        sa.Column("config_drive", sa.Boolean(), nullable=False),
        sa.Column("desired", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("detail", sa.String(length=255), nullable=False),
        sa.Column("fault", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("node_uuid", sa.String(length=36), nullable=True),
        sa.Column("devices", sa.JSON(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("launched_at", MOMENT, nullable=True),
        sa.Column("deleted_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["request_id"], ["requests.id"], name=op.f("fk_servers_request_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_servers")),
        sa.UniqueConstraint("uuid", name=op.f("uq_servers_uuid")),
        **TABLE,
    )
    op.create_index(op.f("ix_servers_deleted_at"), "servers", ["deleted_at"], unique=False)
    op.create_index(op.f("ix_servers_host_deleted_at"), "servers", ["host", "deleted_at"], unique=False)
    op.create_index(
        op.f("ix_servers_project_id_created_at_id"), "servers", ["project_id", "created_at", "id"], unique=False
    )
    op.create_index(op.f("ix_servers_request_id"), "servers", ["request_id"], unique=False)
    op.bulk_insert(
        sa.table("feed_head", sa.column("id", sa.Integer), sa.column("seq", sa.BigInteger)), [{"id": 1, "seq": 0}]
    )
