# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``[devices]``: which hardware is handed out, and how it is named."""

from __future__ import annotations

import re

from oslo_config import cfg

from accelsched import errors, names
from accelsched.conf import device_spec

GROUP = "devices"

_MOST_PARTITIONS = 64

OPTS = [
    cfg.StrOpt("sysfs_root", default="/sys", help="Where sysfs is mounted; another tree only for tests."),
    cfg.FloatOpt(
        "look_timeout",
        default=30.0,
        min=0.1,
        help="Seconds that a look at a device, or a change of it, may take. One that takes longer does not answer; "
        "it is reported as unhealthy, nothing new lands on it, and the others are looked at all the same.",
    ),
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
    cfg.StrOpt(
        "nvidia_smi",
        default="nvidia-smi",
        help="NVIDIA's command, asked for the vGPU types of GPUs whose virtual functions take one without mediated "
        "devices.",
    ),
    cfg.MultiStrOpt(
        "pci_device_spec",
        default=[],
        help="PCI functions to hand out whole, each a JSON object, or a list of them, as Nova's [pci] device_spec: "
        '{"vendor_id": "1234", "product_id": "11e8", "address": "0000:03:00.*", "resource_class": "FPGA", '
        '"traits": "CUSTOM_X", "managed": "yes", "one_time_use": "no"}. Without resource_class it is '
        "CUSTOM_PCI_<vendor>_<product>.",
    ),
    cfg.StrOpt(
        "cleaning_command",
        help="Cleans a device that is one_time_use after its server is gone; the addresses of its PCI functions follow "
        "as arguments: /usr/local/sbin/clean-gpu --full. When it fails, or there is none, the device stays reserved "
        "until an operator says that it is clean: accelsched-agent devices --cleaned ADDRESS.",
    ),
    cfg.IntOpt("cleaning_timeout", default=1800, min=1, help="Seconds after which the cleaning command is killed."),
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
        "Schedulers keep the devices of one server within one of them. Not set: nvidia-smi is asked, of GPUs that the "
        "driver nvidia is bound to.",
    ),
    cfg.IntOpt("simulated_fpgas", default=1, min=0, max=64, help="Simulated FPGAs of each such host."),
]


def link_partitions(conf: cfg.ConfigOpts, device: str) -> list[int]:
    """Return the numbers of the link partitions that a device is in.

    :param device: its PCI address, or gpu_N for a simulated one
    """
    return [number for number, item in enumerate(conf.devices.link_partitions) if device in item.split("+")]


def check(conf: cfg.ConfigOpts) -> None:
    """Check what the option types cannot.

    :raises accelsched.errors.ConfigurationError: naming the option
    """
    device_spec.parse(conf)
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
