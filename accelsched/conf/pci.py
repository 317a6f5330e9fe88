# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[pci]``: short names under which flavors ask for PCI devices, as Nova's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jsonschema
from oslo_config import cfg

from accelsched import errors, names

GROUP = "pci"

OPTS = [
    cfg.MultiStrOpt(
        "alias",
        default=[],
        help="A name for PCI devices, one JSON object each, where accelsched-api runs: "
        '{"name": "a100", "vendor_id": "10de", "product_id": "20b0", "numa_policy": "required"}. Further keys: '
        "resource_class and traits, as the hosts' [devices] pci_device_spec gives them, and device_type (type-PCI, "
        "type-PF or type-VF). A flavor asks for two by pci_passthrough:alias=a100:2.",
    ),
]

_ID = {"type": "string", "pattern": "^[0-9a-fA-F]{4}$"}
_SCHEMA = jsonschema.Draft202012Validator(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": "^[^:,\\s]{1,256}$"},
            "vendor_id": _ID,
            "product_id": _ID,
            "device_type": {"enum": ["type-PCI", "type-PF", "type-VF"]},
            "numa_policy": {"enum": ["legacy", "preferred", "required", "socket"]},
            "resource_class": {"type": "string", "minLength": 1, "maxLength": 200},
            "traits": {"type": "string", "maxLength": 4096},
        },
        "required": ["name"],
        "anyOf": [{"required": ["resource_class"]}, {"required": ["vendor_id", "product_id"]}],
        "additionalProperties": False,
    }
)


@dataclasses.dataclass(frozen=True)
class Alias:
    """Devices that go by a name: their class and traits, and how near to a server's NUMA nodes they must be."""

    name: str
    resource_class: str
    traits: tuple[str, ...]
    numa_policy: str


def aliases(conf: cfg.ConfigOpts) -> Mapping[str, Alias]:
    """Return the aliases by their names.

    :raises accelsched.errors.ConfigurationError: when one is not JSON or not of the schema, or is there twice
    """
    found: dict[str, Alias] = {}
    for text in conf.pci.alias:
        try:
            told = json.loads(text)
        except ValueError as exc:
            raise errors.ConfigurationError(f"[pci] alias: {text!r}: {exc}") from exc
        error = jsonschema.exceptions.best_match(_SCHEMA.iter_errors(told))
        if error is not None:
            raise errors.ConfigurationError(f"[pci] alias: {text!r}: {error.message}")
        alias = _alias(told)
        if alias.name in found:
            raise errors.ConfigurationError(
                f"[pci] alias: {alias.name} is there twice; give devices of several kinds one resource_class in the "
                "hosts' [devices] pci_device_spec instead"
            )
        found[alias.name] = alias
    return found


def check(conf: cfg.ConfigOpts) -> None:
    """Check what the option types cannot.

    :raises accelsched.errors.ConfigurationError: naming the option
    """
    aliases(conf)


def _alias(told: Mapping[str, Any]) -> Alias:
    traits = {names.standard_or_custom(trait.strip()) for trait in told.get("traits", "").split(",") if trait.strip()}
    ids = [told[key] for key in ("vendor_id", "product_id") if key in told]
    if len(ids) == 2:
        traits.add(names.pci_device_trait(*ids))
    elif "vendor_id" in told:
        traits.add(names.pci_vendor_trait(told["vendor_id"]))
    if "device_type" in told:
        traits.add(names.pci_type_trait(told["device_type"]))
    given = told.get("resource_class")
    return Alias(
        told["name"],
        names.pci_class(*ids) if given is None else names.standard_or_custom(given),
        tuple(sorted(traits)),
        told.get("numa_policy", "legacy"),
    )
