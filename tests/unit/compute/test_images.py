# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Images: what is kept of one, and which flavors it fits."""

from __future__ import annotations

from typing import Any

import pytest

from accelsched import errors, wire
from accelsched.compute import images


def image(**changes: Any) -> dict[str, Any]:
    return {"id": "i1", "name": None, "disk_format": "qcow2", "size": 1 << 30, "min_disk": 0, "min_ram": 0} | changes


def flavor(**changes: Any) -> wire.FlavorSpec:
    spec: Any = {"name": "f", "vcpus": 1, "ram_mb": 64, "disk_gb": 1, "extra_specs": {}} | changes
    return spec


def test_everything_that_is_not_the_image_services_own_is_a_property():
    described = image(
        kernel_id="k1", hw_disk_bus="virtio", os_hidden=False, owner="p1", tags=[], empty=None, os_hash_algo="sha512"
    )
    spec = images.spec_of(described)
    assert spec["properties"] == {"kernel_id": "k1", "hw_disk_bus": "virtio"}
    assert (spec["name"], spec["os_hash_algo"], spec["os_hash_value"]) == ("", "sha512", None)


@pytest.mark.parametrize(
    ("image_changes", "flavor_changes", "why"),
    [
        ({}, {}, None),
        ({"min_ram": 64, "min_disk": 1}, {}, None),
        ({"min_ram": 65}, {}, "memory"),
        ({"min_disk": 2}, {}, "minimum size"),
        ({"size": (1 << 30) + 1}, {}, "disk is too small"),
        ({"size": 1 << 40, "min_disk": 9}, {"disk_gb": 0}, None),
    ],
)
def test_a_flavor_that_is_too_small_is_refused(image_changes, flavor_changes, why):
    spec = images.spec_of(image(**image_changes))
    if why is None:
        images.check_fits(spec, flavor(**flavor_changes))
    else:
        with pytest.raises(errors.InvalidError, match=why):
            images.check_fits(spec, flavor(**flavor_changes))
