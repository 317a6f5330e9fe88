# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""NUMA nodes of hosts, and what servers hold of them"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TABLE = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    op.add_column("servers", sa.Column("numa", sa.JSON(), nullable=True))
    op.create_table(
        "numa_topologies",
        sa.Column("provider_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("topology", sa.JSON(), nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["resource_providers.id"], name=op.f("fk_numa_topologies_provider_id")
        ),
        sa.PrimaryKeyConstraint("provider_id", name=op.f("pk_numa_topologies")),
        **TABLE,
    )
    op.create_table(
        "numa_placements",
        sa.Column("consumer_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("provider_id", ROW_ID, nullable=False),
        sa.Column("placement", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["consumer_id"], ["consumers.id"], name=op.f("fk_numa_placements_consumer_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["provider_id"],
            ["resource_providers.id"],
            name=op.f("fk_numa_placements_provider_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("consumer_id", name=op.f("pk_numa_placements")),
        **TABLE,
    )
    op.create_index(op.f("ix_numa_placements_provider_id"), "numa_placements", ["provider_id"], unique=False)
