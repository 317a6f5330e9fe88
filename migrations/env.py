# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""alembic's entry: runs on the connection that accelsched.db.migrations hands over."""

from alembic import context

import accelsched.db.accelerator
import accelsched.db.compute
import accelsched.db.feed
import accelsched.db.placement  # noqa: F401
from accelsched.db.base import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
    transaction_per_migration=False,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
