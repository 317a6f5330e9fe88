# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Heartbeats in a table of their own"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


TABLE = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "heartbeats",
        sa.Column("host_id", KEY, autoincrement=False, nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_heartbeats_host_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("host_id", name=op.f("pk_heartbeats")),
        postgresql_with={"fillfactor": 50},
        **TABLE,
    )
    op.execute("INSERT INTO heartbeats (host_id, seen_at) SELECT id, last_seen_at FROM hosts")
    op.drop_index(op.f("ix_hosts_last_seen_at"), "hosts")
    op.drop_column("hosts", "last_seen_at")
