# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[devices] pci_device_spec``: which PCI functions are handed out and as what, in the words of Nova's device_spec."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import jsonschema
from oslo_config import cfg
from oslo_utils import strutils

from accelsched import errors, names

_OPTION = "[devices] pci_device_spec"
_FIELDS = ("domain", "bus", "slot", "function")

_ID = {"type": "string", "pattern": "^([0-9a-fA-F]{4}|\\*)$"}
_NAME = {"type": "string", "pattern": "^[A-Za-z0-9_]{1,248}$"}
_YES_OR_NO = {"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": "^(?i:yes|no|true|false|on|off|1|0)$"}]}
_SPEC = jsonschema.Draft202012Validator(
    {
        "type": "object",
        "properties": {
            "vendor_id": _ID,
            "product_id": _ID,
            "address": {
                "anyOf": [
                    {"type": "string", "pattern": "^[0-9a-fA-F*?:.\\[\\]-]{1,48}$"},
                    {
                        "type": "object",
                        "properties": {key: {"type": "string", "minLength": 1, "maxLength": 256} for key in _FIELDS},
                        "additionalProperties": False,
                    },
                ]
            },
            "managed": _YES_OR_NO,
            "live_migratable": _YES_OR_NO,
            "one_time_use": _YES_OR_NO,
            "resource_class": _NAME,
            "traits": {
                "anyOf": [
                    {"type": "string", "pattern": "^[A-Za-z0-9_, ]{0,16384}$"},
                    {"type": "array", "maxItems": 64, "items": _NAME},
                ]
            },
        },
        "anyOf": [{"required": ["address"]}, {"required": ["vendor_id", "product_id"]}],
        "additionalProperties": False,
    }
)

Matcher = Callable[[str], bool]


@dataclasses.dataclass(frozen=True)
class DeviceSpec:
    """One entry: which functions it means, and what is said of them."""

    vendor_id: str | None  # None: any
    product_id: str | None
    address: Matcher  # of a full address
    names_one: str | None  # the full address, where the entry gives just one
    managed: bool  # libvirt binds it to vfio-pci and gives it back
    live_migratable: bool
    one_time_use: bool
    resource_class: str | None  # None: after its ids
    traits: frozenset[str]

    def matches(self, address: str, vendor: str, product: str, physical_function: str | None) -> bool:
        """Tell whether a function is meant. As in Nova, the one address of a card means its virtual functions too.

        :param address: full, in lower case, as the ids are
        :param physical_function: the address of the function that it is a virtual one of
        """
        return (
            self.vendor_id in (None, vendor)
            and self.product_id in (None, product)
            and (self.address(address) or (physical_function is not None and self.names_one == physical_function))
        )


def parse(conf: cfg.ConfigOpts) -> list[DeviceSpec]:
    """Return the entries in their order; each value of the option is one, or a list of some.

    :raises accelsched.errors.ConfigurationError: when one is not JSON or makes no sense
    """
    specs = []
    for text in conf.devices.pci_device_spec:
        try:
            told = json.loads(text)
        except ValueError as exc:
            raise errors.ConfigurationError(f"{_OPTION}: {text!r}: {exc}") from exc
        for entry in told if isinstance(told, list) else [told]:
            error = jsonschema.exceptions.best_match(_SPEC.iter_errors(entry))
            if error is not None:
                raise errors.ConfigurationError(f"{_OPTION}: {text!r}: {error.message}")
            try:
                specs.append(_spec(entry))
            except ValueError as exc:
                raise errors.ConfigurationError(f"{_OPTION}: {text!r}: {exc}") from exc
    return specs


def _spec(told: Mapping[str, Any]) -> DeviceSpec:
    address = told.get("address", "*")
    traits = told.get("traits", [])
    resource_class = told.get("resource_class")
    return DeviceSpec(
        vendor_id=_id(told.get("vendor_id", "*")),
        product_id=_id(told.get("product_id", "*")),
        address=_glob(address) if isinstance(address, str) else _regex(address),
        names_one=address.lower() if isinstance(address, str) and names.is_pci_address(address.lower()) else None,
        managed=_flag(told, "managed", default=True),
        live_migratable=_flag(told, "live_migratable", default=False),
        one_time_use=_flag(told, "one_time_use", default=False),
        resource_class=None if resource_class is None else names.standard_or_custom(resource_class),
        traits=frozenset(
            names.standard_or_custom(trait.strip())
            for trait in (traits.split(",") if isinstance(traits, str) else traits)
            if trait.strip()
        ),
    )


def _id(told: str) -> str | None:
    return None if told == "*" else told.lower()


def _flag(told: Mapping[str, Any], name: str, *, default: bool) -> bool:
    flag: bool = strutils.bool_from_string(told.get(name, default), strict=True)
    return flag


def _glob(pattern: str) -> Matcher:
    """Return a matcher of ``domain:bus:slot.function``, of which parts may be left out or have ``*`` and ``?``."""
    path, _, function = pattern.lower().partition(".")
    parts = path.split(":")
    if len(parts) > 3 or "." in function:
        raise ValueError(f"{pattern!r} is no address of the form domain:bus:slot.function")
    fields = [field or "*" for field in ["*"] * (3 - len(parts)) + parts + [function]]
    for name, field, width in zip(_FIELDS, fields, (4, 2, 2, 1), strict=True):
        if not set("*[") & set(field) and len(field) != width:
            raise ValueError(f"the {name} {field!r} of {pattern!r} has not {width} digits")
    return lambda address: all(map(fnmatch.fnmatchcase, _split(address), fields))


def _regex(told: Mapping[str, str]) -> Matcher:
    """Return a matcher of each field by a regular expression, from the field's beginning on as in Nova."""
    try:
        fields = [re.compile(told.get(name, ".*"), re.IGNORECASE) for name in _FIELDS]
    except re.error as exc:
        raise ValueError(f"{exc.pattern!r} is no regular expression: {exc}") from exc
    return lambda address: all(field.match(text) for field, text in zip(fields, _split(address), strict=True))


def _split(address: str) -> list[str]:
    return re.split("[:.]", address)
