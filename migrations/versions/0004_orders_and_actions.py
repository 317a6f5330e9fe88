# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What servers are told to do, and what was done to them"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TABLE = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    op.add_column("servers", sa.Column("power_order", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("servers", sa.Column("task", sa.String(length=32), nullable=True))
    op.add_column("servers", sa.Column("held_in_error", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("servers", sa.Column("locked_by", sa.String(length=16), nullable=True))
    op.add_column("servers", sa.Column("locked_reason", sa.String(length=255), nullable=True))
    op.create_table(
        "instance_actions",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("server_id", ROW_ID, nullable=False),
        sa.Column("action", sa.String(length=255), nullable=False),
        sa.Column("event", sa.String(length=255), nullable=True),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("order_number", sa.Integer(), nullable=True),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.Column("fault", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(["server_id"], ["servers.id"], name=op.f("fk_instance_actions_server_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance_actions")),
        **TABLE,
    )
    op.create_index(op.f("ix_instance_actions_server_id_id"), "instance_actions", ["server_id", "id"], unique=False)
