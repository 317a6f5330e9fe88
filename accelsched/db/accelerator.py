# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Tables of the Accelerator API."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Boolean, ForeignKey, Index, Integer, String, UniqueConstraint
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


class AcceleratorRequest(Base):
    """A unit that somebody asked for by a profile, to be bound to a server that is there.

    What it is bound as, its server's row says (``devices``): there the *plug* of this id is what it has. When there is
    none, it has nothing.
    """

    __tablename__ = "accelerator_requests"
    __table_args__ = (Index(None, "project_id", "id"), TABLE_ARGS)

    id: Mapped[id_key]
    uuid: Mapped[uuid_text] = mapped_column(unique=True)
    project_id: Mapped[name_text]
    profile: Mapped[name_text]  # as it was called
    group_number: Mapped[int] = mapped_column(Integer)
    resource_class: Mapped[name_text]
    asked: Mapped[dict[str, str]] = mapped_column(JSON)  # as DeviceProfile.groups, of this unit alone
    # What it is while it is bound to nothing: Initial, Unbound, BindFailed.
    unbound_state: Mapped[str] = mapped_column(String(16), default="Initial")
    server_id: Mapped[int | None] = mapped_column(ForeignKey("servers.id"), index=True)
    plug_id: Mapped[str | None] = mapped_column(String(36), unique=True)
    forget: Mapped[bool] = mapped_column(Boolean, default=False)  # it is to go once it is bound no more
    created_at: Mapped[moment] = mapped_column(default=utcnow)


class DeviceAttribute(Base):
    """Something that operators say of a device; it goes with the device."""

    __tablename__ = "device_attributes"
    __table_args__ = (UniqueConstraint("provider_id", "key"), TABLE_ARGS)

    id: Mapped[id_key]
    uuid: Mapped[uuid_text] = mapped_column(unique=True)
    provider_id: Mapped[int] = mapped_column(ForeignKey("resource_providers.id", ondelete="CASCADE"))
    key: Mapped[name_text]
    value: Mapped[name_text]
    created_at: Mapped[moment] = mapped_column(default=utcnow)
