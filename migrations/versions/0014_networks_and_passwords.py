# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers on their host's network, and their passwords until they are built"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("servers", sa.Column("networks", sa.String(length=8), nullable=False, server_default="none"))
    op.add_column("servers", sa.Column("network", sa.String(length=255), nullable=True))
    op.add_column("servers", sa.Column("ip_v4", sa.String(length=15), nullable=True))
    op.add_column("servers", sa.Column("ip_v6", sa.String(length=39), nullable=True))
    op.add_column("servers", sa.Column("admin_pass", sa.String(length=255), nullable=True))
