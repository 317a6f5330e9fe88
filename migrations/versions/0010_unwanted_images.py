# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Images that are of no use any more"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TABLE = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    op.create_table(
        "unwanted_images",
        sa.Column("image_id", sa.String(length=36), nullable=False),
        sa.Column("since", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("image_id", name=op.f("pk_unwanted_images")),
        **TABLE,
    )
