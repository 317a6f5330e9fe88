# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/v1/picture``: what the process that answers believes of the fleet."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import falcon
import numpy as np

from accelsched import errors, policies
from accelsched.api import resources
from accelsched.placement.columns import NO_CEILING, Ints
from accelsched.placement.picture import Picture, ProviderRow

if TYPE_CHECKING:
    from accelsched.api.services import Services

_RULE = "accelsched:picture:show"
_PARAMETERS = frozenset({"uuid", "limit", "marker"})
_MOST = 1000


class FleetPicture:
    """The picture, brought up to date as for any other read, in pages by the providers' ids."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Show who answers, how far it has read the change feed, and providers as it has them."""
        policies.require(self._services.enforcer, resources.context_of(req), _RULE, {})
        if unknown := req.params.keys() - _PARAMETERS:
            raise errors.InvalidError(f"Unknown parameter {min(unknown)!r}; there are uuid, limit and marker.")
        limit = req.get_param_as_int("limit", min_value=1, max_value=_MOST, default=_MOST)
        marker = req.get_param_as_int("marker", min_value=0, max_value=2**63 - 1, default=0)
        uuids = req.get_param_as_list("uuid")
        if uuids is not None and len(uuids) > _MOST:
            raise errors.InvalidError(f"More than {_MOST} uuids; ask for fewer at a time.")
        with self._services.fleet.reading() as picture:
            position = self._services.fleet.position
            providers = len(picture.slot_of_id)
            slots, more = _page(picture, uuids, marker, limit)
            rows = [picture.row(slot) for slot in slots]
            uuid_of = {id_: picture.uuid[picture.slot_of_id[id_]] for id_ in _named(rows)}
        resp.media = {
            "picture": {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "position": position,
                "providers": providers,
                "next_marker": rows[-1].id if more else None,
                "resource_providers": [_view(row, uuid_of) for row in rows],
            }
        }


def _page(picture: Picture, uuids: list[str] | None, marker: int, limit: int) -> tuple[list[int], bool]:
    """Return the slots of up to ``limit`` providers with an id above the marker, by id, and whether there are more.

    :param uuids: of these only; those that the picture does not have are left out
    """
    if uuids is None:
        slots: Ints = np.flatnonzero(picture.ids[: picture.slots] > marker)
    else:
        known = {picture.slot_of_uuid[uuid] for uuid in uuids if uuid in picture.slot_of_uuid}
        slots = np.array(sorted(known), dtype=np.int64)
        slots = slots[picture.ids[slots] > marker]
    more = len(slots) > limit
    if more:
        slots = slots[np.argpartition(picture.ids[slots], limit)[:limit]]
    return slots[np.argsort(picture.ids[slots])].tolist(), more


def _named(rows: list[ProviderRow]) -> set[int]:
    return {row.root_id for row in rows} | {row.parent_id for row in rows if row.parent_id is not None}


def _view(row: ProviderRow, uuid_of: dict[int, str]) -> dict[str, Any]:
    return {
        "uuid": row.uuid,
        "name": row.name,
        "generation": row.generation,
        "root_provider_uuid": uuid_of[row.root_id],
        "parent_provider_uuid": None if row.parent_id is None else uuid_of[row.parent_id],
        "traits": sorted(row.traits),
        "aggregates": sorted(row.aggregates),
        "inventories": {
            name: {
                "total": inventory.total,
                "reserved": inventory.reserved,
                "min_unit": inventory.min_unit,
                "max_unit": inventory.max_unit,
                "step_size": inventory.step_size,
                "allocation_ratio": inventory.allocation_ratio,
                "used": inventory.used,
                "ceiling": None if inventory.ceiling == NO_CEILING else inventory.ceiling,
            }
            for name, inventory in sorted(row.inventories.items())
        },
        "capacity_rule": None if row.partition is None else row.partition.rule.document(),
        "positions": []
        if row.partition is None
        else [position._asdict() for position in sorted(row.partition.positions)],
    }
