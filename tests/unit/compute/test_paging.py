# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Pages of a table hold together: nothing twice, nothing left out, whatever the order."""

from __future__ import annotations

import datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from accelsched.compute import paging, servers
from accelsched.db.base import Base
from accelsched.db.compute import Server

KEYS = ["display_name", "host", "launched_at", "created_at", "project_id", "updated_at"]
_moments = st.integers(0, 3).map(lambda minute: datetime.datetime(2026, 1, 1, 0, minute))
_rows = st.lists(
    st.tuples(st.sampled_from(["a", "b", "B"]), st.sampled_from([None, "h1", "h2"]), st.none() | _moments, _moments),
    max_size=12,
)
_orders = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(["asc", "desc"])), max_size=3, unique_by=lambda o: o[0]
)


@settings(max_examples=60, deadline=None)
@given(_rows, _orders, st.integers(1, 5))
def test_pages_put_together_are_the_whole_in_order(rows, order, size):
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine, tables=[Server.__table__])
    with Session(engine) as session:
        for number, (name, host, launched, created) in enumerate(rows):
            server = Server(uuid=str(number), name=name, host=host, launched_at=launched, created_at=created)
            server.request_id, server.flavor, server.project_id, server.user_id = 1, {}, "p", "u"
            session.add(server)
        session.commit()
        sort = [*order, ("id", "desc")]
        whole = session.scalars(paging.page(select(Server), servers.SORT_COLUMNS, sort, None, None)).all()
        seen: list[Server] = []
        while True:
            marker = seen[-1] if seen else None
            page = session.scalars(paging.page(select(Server), servers.SORT_COLUMNS, sort, marker, size)).all()
            if not page:
                break
            seen += page
        assert [server.uuid for server in seen] == [server.uuid for server in whole]
        assert len(seen) == len(rows)
