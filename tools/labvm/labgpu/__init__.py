# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The lab's GPU driver: the kernel's ``mtty`` sample, hung below PCI functions instead of a virtual device.

The sample (``samples/vfio-mdev/mtty.c``, GPL-2.0) emulates a PCI serial card, 4348:3253, as a mediated device. Real
vGPUs differ from it in one thing that matters to us: their parent is a PCI function with a capacity of its own. So the
device code is taken from the sample as Debian ships it, at build time, and only its two ends are ours: what a parent
holds (``parent.h``) and the PCI driver that makes parents (``driver.c``).
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCES = (FOLDER / "parent.h", FOLDER / "driver.c")

# How each function of the sample that counts ports knows the type, and so the parent, it counts for.
_TYPE_IN = {
    "mtty_init_dev": "mdev->type",
    "mtty_release_dev": "mdev_state->mdev->type",
    "mtty_get_available": "mtype",
}


class SampleChangedError(Exception):
    """The kernel's sample is not of the shape that this module knows."""


def derive(sample: str) -> str:
    """Return the source of ``labgpu.c``, to be compiled beside ``parent.h`` and ``driver.c``.

    :param sample: text of the kernel's ``mtty.c``
    :raises SampleChangedError: naming what was not found
    """
    source = _cut(sample, "static struct mtty_dev {", "struct mdev_region_info {", "")
    source = _cut(source, "static struct mtty_type {", "static const struct vfio_device_ops mtty_dev_ops;", _PARENT)
    source = _cut(source, "static void mtty_device_release(", None, '#include "driver.c"\n')
    for function, type_expression in _TYPE_IN.items():
        source = _own_pool(source, function, type_expression)
    if "mdev_avail_ports" in source:
        raise SampleChangedError("mtty.c counts ports in a place that is not known here")
    # From 6.8 on the sample can be migrated. What it tells of memory that it wrote to, which is none, takes a part of
    # IOMMUFD that Debian's kernel is without; the IOMMU of mediated devices tells it then.
    source = source.replace("vdev->log_ops = &mtty_log_ops;", "(void)mtty_log_ops;")
    return source.replace('.name = "mtty"', '.name = "labgpu_mdev"').replace('"vfio-mtty"', '"vfio-labgpu"')


_PARENT = '#include "parent.h"\n\n'


def _cut(source: str, begin: str, end: str | None, put: str) -> str:
    """Replace the text from ``begin`` up to ``end`` (to the last line when None), which stays."""
    start = source.find(begin)
    stop = len(source) if end is None else source.find(end, start)
    if start < 0 or stop < 0:
        raise SampleChangedError(f"mtty.c has no {begin!r} before {end!r}")
    return source[:start] + put + source[stop:]


def _own_pool(source: str, function: str, type_expression: str) -> str:
    """Let one function count the ports of its own GPU instead of the sample's only pool."""
    body = re.search(rf"^[a-z][^;\n]*\b{function}\([^;{{]*\)\n\{{\n.*?^\}}\n", source, re.MULTILINE | re.DOTALL)
    if body is None or "&mdev_avail_ports" not in body[0]:
        raise SampleChangedError(f"mtty.c: {function} does not count ports as expected")
    counted = body[0].replace("&mdev_avail_ports", f"labgpu_pool({type_expression})")
    return source.replace(body[0], counted)
