# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Capacity rules: how the classes of a provider share it"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TABLE = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    op.add_column("inventories", sa.Column("ceiling", sa.BigInteger(), nullable=True))
    op.create_table(
        "capacity_rules",
        sa.Column("provider_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("rule", sa.JSON(), nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["provider_id"], ["resource_providers.id"], name=op.f("fk_capacity_rules_provider_id")),
        sa.PrimaryKeyConstraint("provider_id", name=op.f("pk_capacity_rules")),
        **TABLE,
    )
    op.create_table(
        "instance_positions",
        sa.Column("provider_id", ROW_ID, nullable=False),
        sa.Column("start", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("class_id", ROW_ID, nullable=False),
        sa.Column("consumer_id", ROW_ID, nullable=False),
        sa.ForeignKeyConstraint(["class_id"], ["resource_classes.id"], name=op.f("fk_instance_positions_class_id")),
        sa.ForeignKeyConstraint(
            ["consumer_id"], ["consumers.id"], name=op.f("fk_instance_positions_consumer_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["resource_providers.id"], name=op.f("fk_instance_positions_provider_id")
        ),
        sa.PrimaryKeyConstraint("provider_id", "start", name=op.f("pk_instance_positions")),
        **TABLE,
    )
    op.create_index(op.f("ix_instance_positions_class_id"), "instance_positions", ["class_id"], unique=False)
    op.create_index(op.f("ix_instance_positions_consumer_id"), "instance_positions", ["consumer_id"], unique=False)
