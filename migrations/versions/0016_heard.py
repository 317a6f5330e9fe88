# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What agents understand, and which of the things that they say were heard last"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("hosts", "servers"):
        op.add_column(table, sa.Column("heard", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("hosts", sa.Column("rpc_version", sa.String(length=16), nullable=False, server_default="1.0"))
