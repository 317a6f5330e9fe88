# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Key pairs: public keys that users keep here by name."""

from __future__ import annotations

from collections.abc import Sequence

from oslo_db import exception as db_exception
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.compute import keys
from accelsched.db.compute import KeyPair


def create(session: Session, *, user_id: str, name: str, type_: str, public_key: str) -> KeyPair:
    """Keep a user's public key.

    :raises accelsched.errors.InvalidError: when it is none
    :raises accelsched.errors.DuplicateNameError: when the user has one of this name
    """
    fingerprint = keys.fingerprint(type_, public_key)
    pair = KeyPair(user_id=user_id, name=name, type=type_, fingerprint=fingerprint, public_key=public_key)
    session.add(pair)
    try:
        session.flush()
    except db_exception.DBDuplicateEntry as exc:
        raise errors.DuplicateNameError(f"Key pair '{name}' already exists.") from exc
    return pair


def get(session: Session, user_id: str, name: str) -> KeyPair:
    """Return a user's key pair.

    :raises accelsched.errors.NotFoundError: when there is none of this name
    """
    pair = session.scalar(select(KeyPair).where(KeyPair.user_id == user_id, KeyPair.name == name))
    if pair is None:
        raise errors.NotFoundError(f"Keypair {name[:255]} not found for user {user_id[:255]}")
    return pair


def list_page(
    session: Session, user_id: str, *, marker: str | None = None, limit: int | None = None
) -> Sequence[KeyPair]:
    """Return a user's key pairs by name.

    :param marker: name of the last one of the page before
    :raises accelsched.errors.InvalidError: when there is no such marker
    """
    query = select(KeyPair).where(KeyPair.user_id == user_id).order_by(KeyPair.name)
    if marker is not None:
        try:
            query = query.where(KeyPair.name > get(session, user_id, marker).name)
        except errors.NotFoundError as exc:
            raise errors.InvalidError(f"Marker {marker[:255]} could not be found") from exc
    return session.scalars(query if limit is None else query.limit(limit)).all()


def remove(session: Session, user_id: str, name: str) -> None:
    """Forget a key; servers that were made with it keep it.

    :raises accelsched.errors.NotFoundError: when there is none of this name
    """
    session.execute(delete(KeyPair).where(KeyPair.id == get(session, user_id, name).id))


def count(session: Session, user_id: str) -> int:
    """Return how many key pairs a user has."""
    return session.scalar(select(func.count()).select_from(KeyPair).where(KeyPair.user_id == user_id)) or 0
