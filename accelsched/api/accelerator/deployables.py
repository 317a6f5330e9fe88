# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/v2/devices``, ``/v2/deployables``, ``/v2/attributes``: the devices of all hosts, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import falcon
import orjson
import os_resource_classes as orc

from accelsched import policies
from accelsched.accelerator import deployables
from accelsched.api import resources
from accelsched.api.accelerator import microversion
from accelsched.compute import devices
from accelsched.db.compute import as_iso

if TYPE_CHECKING:
    from accelsched.accelerator.deployables import Deployable as Found
    from accelsched.api.services import Services

_MOST = 10_000  # devices that a list looks at
_STATUS_SINCE = 3
_TYPES: Mapping[str, str] = {orc.FPGA: "FPGA", orc.VGPU: "GPU", orc.PGPU: "GPU"}
_TEXT = {"type": "string", "minLength": 1, "maxLength": 255}
_SAID = {
    "type": "object",
    "properties": {
        "deployable_id": {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 2**63 - 1},
                {"type": "string", "pattern": "^[0-9]{1,18}$"},
                {"type": "string", "format": "uuid", "minLength": 36},
            ]
        },
        "key": _TEXT,
        "value": _TEXT,
    },
    "required": ["deployable_id", "key", "value"],
    "additionalProperties": False,
}
# openstacksdk wraps it.
_CREATE = resources.validator(
    {
        "type": "object",
        "if": {"required": ["attribute"]},
        "then": {"properties": {"attribute": _SAID}, "additionalProperties": False},
        "else": _SAID,
    }
)


class _Resource:
    def __init__(self, services: Services) -> None:
        self._services = services

    def _require(self, req: falcon.Request, rule: str) -> None:
        policies.require(self._services.enforcer, resources.context_of(req), f"cyborg:{rule}")

    def _list(self, host: str | None = None) -> list[Found]:
        with self._services.db.snapshot() as session:
            return deployables.list_(session, host=host, most=_MOST)

    def _get(self, uuid: str) -> Found:
        with self._services.db.snapshot() as session:
            return deployables.get(session, uuid)


class Devices(_Resource):
    """All devices."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List them; of a ``type``, ``vendor`` or ``hostname`` where the query says so."""
        self._require(req, "device:get_all")
        views = [_device(one, req) for one in self._list(req.get_param("hostname"))]
        wanted = {name: req.get_param(name) for name in ("type", "vendor")}
        resp.media = {
            "devices": [
                view for view in views if all(view[name] == it for name, it in wanted.items() if it is not None)
            ]
        }


class Device(_Resource):
    """One device."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Show it; not wrapped, as Cyborg has it."""
        self._require(req, "device:get_one")
        resp.media = _device(self._get(uuid), req)


class Enable(_Resource):
    """A device that may take something new again."""

    def on_post(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Open it."""
        self._require(req, "device:enable")
        self._services.db.transact(lambda session: devices.enable(session, uuid))
        resp.status = falcon.HTTP_200


class Disable(_Resource):
    """A device that takes nothing new."""

    def on_post(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Close it; its servers keep it."""
        self._require(req, "device:disable")
        self._services.db.transact(lambda session: devices.disable(session, uuid))
        resp.status = falcon.HTTP_200


class Deployables(_Resource):
    """All deployables, one of each device."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List them."""
        self._require(req, "deployable:get_all")
        resp.media = {"deployables": [_deployable(one) for one in self._list()]}


class Deployable(_Resource):
    """One deployable."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Show it; not wrapped, as Cyborg has it."""
        self._require(req, "deployable:get_one")
        resp.media = _deployable(self._get(uuid))


class Attributes(_Resource):
    """What is said of all deployables."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List it; of one deployable, or by one key, where the query says so."""
        self._require(req, "attribute:get_all")
        views = [_attribute(said) for one in self._list() for said in deployables.attributes_of(one)]
        wanted = {name: req.get_param(name) for name in ("deployable_id", "key")}
        resp.media = {
            "attributes": [
                view for view in views if all(str(view[name]) == it for name, it in wanted.items() if it is not None)
            ]
        }

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Say something of a deployable."""
        self._require(req, "attribute:create")
        body = resources.body_of(req, _CREATE)
        wanted = body.get("attribute", body)
        made = self._services.db.transact(
            lambda session: deployables.add_attribute(
                session, str(wanted["deployable_id"]).lower(), key=wanted["key"], value=wanted["value"]
            )
        )
        resp.status = falcon.HTTP_201
        resp.media = {"attribute": _attribute(made)}


class Attribute(_Resource):
    """One thing that is said of a deployable."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Show it."""
        self._require(req, "attribute:get_one")
        with self._services.db.snapshot() as session:
            resp.media = {"attribute": _attribute(deployables.attribute(session, uuid))}

    def on_delete(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Take it back, if an operator said it."""
        self._require(req, "attribute:delete")
        self._services.db.transact(lambda session: deployables.remove_attribute(session, uuid))
        resp.status = falcon.HTTP_204


def _times(found: Found) -> dict[str, str | None]:
    return {"created_at": as_iso(found.created_at), "updated_at": as_iso(found.updated_at)}


def _device(found: Found, req: falcon.Request) -> dict[str, Any]:
    device = found.found.device
    classes = sorted(device.inventories)
    # Of CUSTOM_PCI_DEVICE_<vendor>_<product>.
    model = next((trait for trait in found.traits if trait.startswith("CUSTOM_PCI_DEVICE_")), "").split("_")[3:]
    vendor, product = model if len(model) == 2 else ("", "")
    view = {
        "uuid": device.uuid,
        "type": next((_TYPES[name] for name in classes if name in _TYPES), classes[0] if classes else ""),
        "vendor": vendor.lower(),
        "model": device.name,
        "hostname": found.found.host,
        "std_board_info": orjson.dumps({"product_id": product.lower()}).decode(),
        "vendor_board_info": "",
        **_times(found),
    }
    if microversion.minor_of(req) >= _STATUS_SINCE:
        view["status"] = "maintaining" if "disabled" in device.marks else "enabled"
    return view


def _deployable(found: Found) -> dict[str, Any]:
    device = found.found.device
    return {
        "uuid": device.uuid,
        "name": device.name,
        "parent_id": None,
        "root_id": device.id,
        "num_accelerators": sum(stock.total for stock in device.inventories.values()),
        "device_id": device.id,
        **_times(found),
    }


def _attribute(said: deployables.Attribute) -> dict[str, Any]:
    return {
        "uuid": said.uuid,
        "deployable_id": said.deployable.found.device.id,
        "key": said.key,
        "value": said.value,
        **(_times(said.deployable) if said.since is None else {"created_at": as_iso(said.since), "updated_at": None}),
    }
