# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The programming of servers' FPGA regions"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


TABLE = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "programming_jobs",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("server_id", KEY, nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("told", sa.JSON(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["server_id"], ["servers.id"], name=op.f("fk_programming_jobs_server_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_programming_jobs")),
        sa.UniqueConstraint("uuid", name=op.f("uq_programming_jobs_uuid")),
        **TABLE,
    )
    op.create_index(op.f("ix_programming_jobs_server_id"), "programming_jobs", ["server_id"])
