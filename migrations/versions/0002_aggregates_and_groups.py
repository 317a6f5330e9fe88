# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Host aggregates, server groups, and what the scheduler keeps of hosts"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TABLE = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    op.create_table(
        "host_aggregates",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_host_aggregates")),
        sa.UniqueConstraint("name", name=op.f("uq_host_aggregates_name")),
        sa.UniqueConstraint("uuid", name=op.f("uq_host_aggregates_uuid")),
        **TABLE,
    )
    op.create_table(
        "host_aggregate_members",
        sa.Column("aggregate_id", ROW_ID, nullable=False),
        sa.Column("host_id", ROW_ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["aggregate_id"],
            ["host_aggregates.id"],
            name=op.f("fk_host_aggregate_members_aggregate_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_host_aggregate_members_host_id")),
        sa.PrimaryKeyConstraint("aggregate_id", "host_id", name=op.f("pk_host_aggregate_members")),
        **TABLE,
    )
    op.create_index(op.f("ix_host_aggregate_members_host_id"), "host_aggregate_members", ["host_id"], unique=False)
    op.create_table(
        "server_groups",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("policy", sa.String(length=32), nullable=False),
        sa.Column("max_server_per_host", sa.Integer(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_server_groups")),
        sa.UniqueConstraint("uuid", name=op.f("uq_server_groups_uuid")),
        **TABLE,
    )
    op.create_index(op.f("ix_server_groups_project_id_id"), "server_groups", ["project_id", "id"], unique=False)
    hosts_head = op.create_table(
        "hosts_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hosts_head")),
        **TABLE,
    )
    op.bulk_insert(hosts_head, [{"id": 1, "seq": 0}])
    op.add_column("hosts", sa.Column("failed_builds", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("requests", sa.Column("group_uuid", sa.String(length=36), nullable=True))
    op.create_index(op.f("ix_requests_group_uuid"), "requests", ["group_uuid"], unique=False)
    op.create_index(op.f("ix_servers_state_deleted_at_host"), "servers", ["state", "deleted_at", "host"], unique=False)
