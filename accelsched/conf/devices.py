# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[devices]``: which hardware is handed out, and how it is named."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
from oslo_config import cfg

from accelsched import errors, names

GROUP = "devices"

_MOST_PARTITIONS = 64

OPTS = [
    cfg.StrOpt("sysfs_root", default="/sys", help="Where sysfs is mounted; another tree only for tests."),
    cfg.ListOpt(
        "enabled_mdev_types",
        default=[],
        help="vGPU (mediated device) types to offer. A GPU that supports one of them offers it as VGPU; one that "
        "supports several offers each as a class of its own, one type at a time. Empty: each GPU offers the first of "
        "its types by name.",
    ),
    cfg.DictOpt(
        "mdev_class",
        default={},
        help="Resource classes of types, VGPU or CUSTOM_*: nvidia-471:VGPU,nvidia-472:CUSTOM_VGPU_LARGE. Without one, "
        "a type is CUSTOM_VGPU_<type> on GPUs that offer several and VGPU on the others. Of types with the same class "
        "a GPU offers the first that is enabled.",
    ),
    cfg.MultiStrOpt(
        "pci_device_spec",
        default=[],
        help="PCI functions to hand out whole, one JSON object each, as Nova's [pci] device_spec: "
        '{"vendor_id": "1234", "product_id": "11e8", "address": "0000:03:00.*", "resource_class": "FPGA", '
        '"traits": ["CUSTOM_X"]}. Without resource_class it is CUSTOM_PCI_<vendor>_<product>.',
    ),
    cfg.ListOpt(
        "simulated_gpus",
        default=["8"],
        help="Simulated devices of each host when device_drivers has 'simulated': one GPU an item, the item being "
        "the number of its vGPUs.",
    ),
    cfg.ListOpt(
        "link_partitions",
        default=[],
        help="Devices of this host that fast links join (NVLink, NVSwitch partitions), one set an item, PCI addresses "
        "joined by '+': 0000:41:00.0+0000:42:00.0; simulated ones are gpu_0, gpu_1 ... Sets may lie within others. "
        "Schedulers keep the devices of one server within one of them.",
    ),
    cfg.IntOpt("simulated_fpgas", default=1, min=0, max=64, help="Simulated FPGAs of each such host."),
]

PCI_DEVICE_SPEC_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "vendor_id": {"type": "string", "pattern": "^[0-9a-fA-F]{4}$"},
        "product_id": {"type": "string", "pattern": "^[0-9a-fA-F]{4}$"},
        "address": {"type": "string", "pattern": "^[0-9a-fA-F*?:.\\[\\]-]{1,32}$"},
        "resource_class": {"type": "string", "pattern": "^[A-Z0-9_]{1,255}$"},
        "traits": {
            "type": "array",
            "maxItems": 64,
            "items": {"type": "string", "pattern": "^[A-Z0-9_]{1,255}$"},
        },
    },
    "anyOf": [{"required": ["address"]}, {"required": ["vendor_id", "product_id"]}],
    "additionalProperties": False,
}


def pci_device_specs(conf: cfg.ConfigOpts) -> list[dict[str, Any]]:
    """Return the parsed ``pci_device_spec`` entries.

    :raises accelsched.errors.ConfigurationError: when one is not JSON or not of the schema
    """
    specs = []
    for text in conf.devices.pci_device_spec:
        try:
            spec = json.loads(text)
            jsonschema.validate(spec, PCI_DEVICE_SPEC_SCHEMA)
        except (ValueError, jsonschema.ValidationError) as exc:
            message = getattr(exc, "message", str(exc))
            raise errors.ConfigurationError(f"[devices] pci_device_spec: {text!r}: {message}") from exc
        specs.append(spec)
    return specs


def link_partitions(conf: cfg.ConfigOpts, device: str) -> list[int]:
    """Return the numbers of the link partitions that a device is in.

    :param device: its PCI address, or gpu_N for a simulated one
    """
    return [number for number, item in enumerate(conf.devices.link_partitions) if device in item.split("+")]


def check(conf: cfg.ConfigOpts) -> None:
    """Check what the option types cannot.

    :raises accelsched.errors.ConfigurationError: naming the option
    """
    pci_device_specs(conf)
    for type_id, resource_class in conf.devices.mdev_class.items():
        if not re.fullmatch(r"VGPU|CUSTOM_[A-Z0-9_]{1,248}", resource_class):
            raise errors.ConfigurationError(
                f"[devices] mdev_class: {resource_class!r} of {type_id} is neither VGPU nor CUSTOM_ and a name"
            )
    for item in conf.devices.simulated_gpus:
        if not item.isdecimal() or not 1 <= int(item) <= 1024:
            raise errors.ConfigurationError(f"[devices] simulated_gpus: {item!r} is not a number from 1 to 1024")
    if len(conf.devices.link_partitions) > _MOST_PARTITIONS:
        raise errors.ConfigurationError(f"[devices] link_partitions: more than {_MOST_PARTITIONS}")
    for item in conf.devices.link_partitions:
        members = item.split("+")
        if len(members) < 2 or len(set(members)) < len(members):
            raise errors.ConfigurationError(f"[devices] link_partitions: {item!r} is not two or more different devices")
        for member in members:
            if not (names.is_pci_address(member) or re.fullmatch(r"gpu_[0-9]{1,4}", member)):
                raise errors.ConfigurationError(
                    f"[devices] link_partitions: {member!r} is neither a PCI address such as 0000:41:00.0 nor gpu_0"
                )
