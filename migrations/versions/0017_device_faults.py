# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What is wrong with hosts' devices, and what an operator had reserved of those that are closed"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("hosts", sa.Column("device_faults", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("inventories", sa.Column("operator_reserved", sa.BigInteger(), nullable=True))
