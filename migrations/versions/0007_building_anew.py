# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers that are built anew: after a failed build, by request, or on another host"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("servers", sa.Column("incarnation", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("servers", sa.Column("built", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("servers", sa.Column("failed_hosts", sa.JSON(), nullable=True))
    op.add_column("requests", sa.Column("server_id", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_requests_server_id"), "requests", ["server_id"], unique=False)
    servers = sa.table(
        "servers",
        sa.column("built", sa.Integer()),
        sa.column("failed_hosts", sa.JSON()),
        sa.column("launched_at", sa.DateTime()),
    )
    op.execute(servers.update().values(failed_hosts=[]))
    op.execute(servers.update().where(servers.c.launched_at.is_not(None)).values(built=1))
    with op.batch_alter_table("servers") as batch:
        batch.alter_column("failed_hosts", existing_type=sa.JSON(), nullable=False)
