# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The derivation, on a text of the sample's shape; that it compiles and works is seen in the lab."""

from __future__ import annotations

import pytest
from labvm import labgpu

SAMPLE = """\
static struct mtty_dev {
	int fake;
} mtty_dev;

struct mdev_region_info {
	int kept;
};

static struct mtty_type {
	int nr_ports;
} mtty_types[2];

static atomic_t mdev_avail_ports = ATOMIC_INIT(24);

static const struct vfio_device_ops mtty_dev_ops;

static int mtty_init_dev(struct vfio_device *vdev)
{
	return take(&mdev_avail_ports);
}

static void mtty_release_dev(struct vfio_device *vdev)
{
	give(&mdev_avail_ports);
}

static unsigned int mtty_get_available(struct mdev_type *mtype)
{
	return atomic_read(&mdev_avail_ports);
}

static const struct vfio_device_ops mtty_dev_ops = { .name = "vfio-mtty" };

static void mtty_device_release(struct device *dev)
{
}
module_init(mtty_dev_init)
"""


def test_every_gpu_counts_its_own_ports() -> None:
    source = labgpu.derive(SAMPLE)
    assert "take(labgpu_pool(mdev->type))" in source
    assert "give(labgpu_pool(mdev_state->mdev->type))" in source
    assert "atomic_read(labgpu_pool(mtype))" in source


def test_the_devices_code_stays_and_the_fake_parent_goes() -> None:
    source = labgpu.derive(SAMPLE)
    assert "int kept;" in source
    assert "struct mtty_dev {" not in source
    assert "module_init(mtty_dev_init)" not in source
    assert source.index('#include "parent.h"') < source.index("mtty_init_dev") < source.index('#include "driver.c"')


@pytest.mark.parametrize("gone", ["struct mtty_dev {", "mtty_release_dev", "static void mtty_device_release("])
def test_a_sample_of_another_shape_is_refused(gone: str) -> None:
    with pytest.raises(labgpu.SampleChangedError, match=r"mtty\.c"):
        labgpu.derive(SAMPLE.replace(gone, "something_else("))


def test_a_new_place_that_counts_ports_is_not_overlooked() -> None:
    extra = "static void mtty_new(void)\n{\n\tgive(&mdev_avail_ports);\n}\n\nstatic void mtty_device_release("
    with pytest.raises(labgpu.SampleChangedError, match="a place that is not known"):
        labgpu.derive(SAMPLE.replace("static void mtty_device_release(", extra))
