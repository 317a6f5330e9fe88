# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers that move to another size or host"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


TABLE = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "migrations",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("server_id", KEY, nullable=False),
        sa.Column("request_id", KEY, nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("source_host", sa.String(length=255), nullable=False),
        sa.Column("source_node", sa.String(length=36), nullable=False),
        sa.Column("dest_host", sa.String(length=255), nullable=True),
        sa.Column("dest_node", sa.String(length=36), nullable=True),
        sa.Column("source", sa.JSON(), nullable=False),
        sa.Column("target", sa.JSON(), nullable=False),
        sa.Column("power", sa.String(length=16), nullable=False),
        sa.Column("old_flavor_id", sa.BigInteger(), nullable=True),
        sa.Column("new_flavor_id", sa.BigInteger(), nullable=True),
        sa.Column("fault", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["requests.id"], name=op.f("fk_migrations_request_id")),
        sa.ForeignKeyConstraint(["server_id"], ["servers.id"], name=op.f("fk_migrations_server_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_migrations")),
        sa.UniqueConstraint("uuid", name=op.f("uq_migrations_uuid")),
        **TABLE,
    )
    op.create_index(op.f("ix_migrations_server_id"), "migrations", ["server_id"])
    op.create_index(op.f("ix_migrations_request_id"), "migrations", ["request_id"])
    op.create_index(op.f("ix_migrations_status"), "migrations", ["status"])
    op.create_index(op.f("ix_migrations_source_host_status"), "migrations", ["source_host", "status"])
    op.add_column("servers", sa.Column("migration_id", sa.BigInteger(), nullable=True))
