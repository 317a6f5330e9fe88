# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The change feed: which resource providers changed, in the order in which the changes were committed.

Numbers drawn from a sequence come in another order than transactions commit, so a reader who asks for "greater than
the last I saw" loses those that commit late. Here the number comes from one row, ``feed_head``, which a transaction
updates as its last act: the row lock is held until the commit, so numbers are handed out in commit order and a
reader who has seen N has seen everything up to N.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import BigInteger, Integer, delete, insert, select, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from accelsched.db.base import TABLE_ARGS, Base, table_of

_TOUCHED = "accelsched.touched"
_HEAD_ID = 1


class FeedHead(Base):
    """One row: the number of the newest committed change."""

    __tablename__ = "feed_head"
    __table_args__ = TABLE_ARGS

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    seq: Mapped[int] = mapped_column(BigInteger)


class FeedEntry(Base):
    """A provider that transaction ``seq`` changed, removed ones included (hence no foreign key)."""

    __tablename__ = "feed_entries"
    __table_args__ = TABLE_ARGS

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    provider_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)


_head = table_of(FeedHead)
_entries = table_of(FeedEntry)
_HEAD = select(_head.c.seq).where(_head.c.id == _HEAD_ID)
_ADVANCE = update(_head).where(_head.c.id == _HEAD_ID).values(seq=_head.c.seq + 1)
_APPEND = text(
    "WITH head AS (UPDATE feed_head SET seq = seq + 1 WHERE id = :head_id RETURNING seq) "
    "INSERT INTO feed_entries (seq, provider_id) "
    "SELECT head.seq, touched.id FROM head, unnest(CAST(:provider_ids AS bigint[])) AS touched (id)"
)


def touch(session: Session, provider_ids: Iterable[int]) -> None:
    """Note that the session's transaction changes these providers; :func:`flush` writes it down."""
    session.info.setdefault(_TOUCHED, set()).update(provider_ids)


def flush(session: Session) -> None:
    """Write the touched providers to the feed. The last act of a transaction: see the module's text."""
    touched: set[int] = session.info.pop(_TOUCHED, set())
    if not touched:
        return
    session.flush()
    connection = session.connection()
    ids = sorted(touched)
    if connection.dialect.name == "postgresql":
        # Everybody waits for this one: one round trip is better than two.
        connection.execute(_APPEND, {"head_id": _HEAD_ID, "provider_ids": ids})
        return
    connection.execute(_ADVANCE)
    seq = connection.execute(_HEAD).scalar_one()
    connection.execute(insert(_entries), [{"seq": seq, "provider_id": provider_id} for provider_id in ids])


def head(session: Session) -> int:
    """Return the number of the newest committed change."""
    return session.scalars(select(FeedHead.seq).where(FeedHead.id == _HEAD_ID)).one()


def changed_since(session: Session, seq: int) -> tuple[int, list[int]] | None:
    """Return the newest number and the providers changed after ``seq``.

    :returns: None when entries that old were pruned: the reader has to read everything anew
    """
    newest = head(session)
    if newest == seq:
        return newest, []
    oldest = session.scalar(select(FeedEntry.seq).order_by(FeedEntry.seq).limit(1))
    if oldest is None or oldest > seq + 1:
        return None
    changed = session.scalars(select(FeedEntry.provider_id).where(FeedEntry.seq > seq).distinct())
    return newest, list(changed)


def prune(session: Session, keep: int) -> None:
    """Drop all but the newest ``keep`` changes; slower readers start over."""
    session.execute(delete(FeedEntry).where(FeedEntry.seq <= head(session) - keep))
