# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Ids of what belongs to something and is not kept: its id with the last two bytes changed, so it is found by them."""

from __future__ import annotations

import uuid


def of_part(owner_uuid: str, number: int) -> str:
    """Return the id of a part of something.

    :param number: 1 to 65,535
    """
    return str(uuid.UUID(int=uuid.UUID(owner_uuid).int ^ number))


def owners(part_uuid: str, most: int) -> dict[str, str]:
    """Return what something may be a part of.

    :param most: parts that an owner has
    :returns: the part's id in canonical form, by the owner's
    :raises ValueError: it is no uuid
    """
    canonical = str(uuid.UUID(part_uuid))
    return {of_part(canonical, number): canonical for number in range(1, most + 1)}
