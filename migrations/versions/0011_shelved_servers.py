# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The images of servers on the shelf"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("servers", sa.Column("shelved_image", sa.JSON(none_as_null=True), nullable=True))
