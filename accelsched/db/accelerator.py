# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Tables of the Accelerator API."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON
from sqlalchemy.orm import Mapped, mapped_column

from accelsched.db.base import TABLE_ARGS, Base, id_key, long_text, moment, name_text, utcnow, uuid_text


class DeviceProfile(Base):
    """What flavors may ask for by one name."""

    __tablename__ = "device_profiles"
    __table_args__ = TABLE_ARGS

    id: Mapped[id_key]
    uuid: Mapped[uuid_text] = mapped_column(unique=True)
    name: Mapped[name_text] = mapped_column(unique=True)
    description: Mapped[long_text | None]
    groups: Mapped[list[dict[str, Any]]] = mapped_column(JSON)  # resources:CLASS, trait:NAME, accel:KIND, texts all
    created_at: Mapped[moment] = mapped_column(default=utcnow)
