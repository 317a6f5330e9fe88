# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Name filters are regular expressions that cannot hold up the service."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.api.compute import server_filters
from accelsched.db.base import Base
from accelsched.db.compute import Server


@pytest.mark.parametrize("pattern", ["(a+)+$", "a*a*a*a*b", r"(a)\1", "(a|a)*b", "x" * 256, "[", "a{1,200}{1,200}"])
def test_patterns_that_may_take_for_ever_are_refused_on_sqlite(pattern):
    with pytest.raises(errors.InvalidError, match="name"):
        server_filters._like(Server.name, "name", pattern, on_sqlite=True)


@settings(max_examples=200, deadline=None)
@given(st.text("ab.*+?^$[](){}|\\1-,", max_size=40))
def test_whatever_pattern_is_let_through_is_matched_quickly_on_sqlite(pattern):
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine, tables=[Server.__table__])
    try:
        condition = server_filters._like(Server.name, "name", pattern, on_sqlite=True)
    except errors.InvalidError:
        return
    with Session(engine) as session:
        server = Server(uuid="1", name="a" * 255, request_id=1, flavor={}, project_id="p", user_id="u")
        session.add(server)
        session.commit()
        began = time.process_time()
        session.scalars(select(Server).where(condition)).all()
        assert time.process_time() - began < 1.0
