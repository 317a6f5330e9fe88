# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What all tables share."""

from __future__ import annotations

import datetime
from typing import Annotated, cast

from sqlalchemy import JSON, BigInteger, DateTime, Integer, MetaData, String, Table, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, mapped_column

# MariaDB compares without regard to case unless told otherwise; names here are exact everywhere.
TABLE_ARGS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}

# SQLite numbers rows by themselves only when the key's type is spelled INTEGER.
_BIG_KEY = BigInteger().with_variant(Integer, "sqlite")

id_key = Annotated[int, mapped_column(_BIG_KEY, primary_key=True, autoincrement=True)]
uuid_text = Annotated[str, mapped_column(String(36))]
name_text = Annotated[str, mapped_column(String(255))]
long_text = Annotated[str, mapped_column(Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb"))]
moment = Annotated[datetime.datetime, mapped_column(DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb"))]


class Base(DeclarativeBase):
    """Base of every table. Moments are naive UTC, as OpenStack keeps them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict: JSON, list: JSON}  # noqa: RUF012 - SQLAlchemy reads it as a class attribute


def utcnow() -> datetime.datetime:
    """Return the present moment as the tables keep it: UTC, without a zone."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def table_of(mapped: type[Base]) -> Table:
    """Return the plain table of a mapped class, for statements on paths where the mapping costs too much."""
    return cast("Table", mapped.__table__)
