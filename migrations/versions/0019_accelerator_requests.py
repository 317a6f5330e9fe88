# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Accelerator requests and attributes of devices"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


TABLE = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "accelerator_requests",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("profile", sa.String(length=255), nullable=False),
        sa.Column("group_number", sa.Integer(), nullable=False),
        sa.Column("resource_class", sa.String(length=255), nullable=False),
        sa.Column("asked", sa.JSON(), nullable=False),
        sa.Column("unbound_state", sa.String(length=16), nullable=False),
        sa.Column("server_id", KEY, nullable=True),
        sa.Column("plug_id", sa.String(length=36), nullable=True),
        sa.Column("forget", sa.Boolean(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accelerator_requests")),
        sa.ForeignKeyConstraint(["server_id"], ["servers.id"], name=op.f("fk_accelerator_requests_server_id")),
        sa.UniqueConstraint("uuid", name=op.f("uq_accelerator_requests_uuid")),
        sa.UniqueConstraint("plug_id", name=op.f("uq_accelerator_requests_plug_id")),
        **TABLE,
    )
    op.create_index(op.f("ix_accelerator_requests_project_id_id"), "accelerator_requests", ["project_id", "id"])
    op.create_index(op.f("ix_accelerator_requests_server_id"), "accelerator_requests", ["server_id"])
    op.create_table(
        "device_attributes",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("provider_id", KEY, nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("value", sa.String(length=255), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device_attributes")),
        sa.ForeignKeyConstraint(
            ["provider_id"],
            ["resource_providers.id"],
            name=op.f("fk_device_attributes_provider_id"),
            ondelete="CASCADE",
        ),
        sa.UniqueConstraint("uuid", name=op.f("uq_device_attributes_uuid")),
        sa.UniqueConstraint("provider_id", "key", name=op.f("uq_device_attributes_provider_id_key")),
        **TABLE,
    )
