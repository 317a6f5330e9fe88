# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Quotas of projects and classes"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


TABLE = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    op.create_table(
        "quota_limits",
        sa.Column("scope", sa.String(length=8), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("resource", sa.String(length=64), nullable=False),
        sa.Column("hard_limit", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "owner", "resource", name=op.f("pk_quota_limits")),
        **TABLE,
    )
    op.create_table(
        "quota_locks",
        sa.Column("owner", sa.String(length=300), nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_quota_locks")),
        **TABLE,
    )
