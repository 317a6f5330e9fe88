# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What users say of their servers: descriptions, host names, addresses, tags"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TABLE = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    for name, length in (("description", 255), ("hostname", 255), ("access_ip_v4", 39), ("access_ip_v6", 39)):
        op.add_column("servers", sa.Column(name, sa.String(length=length), nullable=True))
    op.add_column("servers", sa.Column("auto_disk_config", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "server_tags",
        sa.Column("server_id", ROW_ID, nullable=False),
        sa.Column("tag", sa.String(length=60), nullable=False),
        sa.ForeignKeyConstraint(["server_id"], ["servers.id"], name=op.f("fk_server_tags_server_id")),
        sa.PrimaryKeyConstraint("server_id", "tag", name=op.f("pk_server_tags")),
        **TABLE,
    )
