# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What an operator says of links becomes traits of the devices, or is refused."""

from __future__ import annotations

import pytest

from accelsched import conf as options
from accelsched import errors
from accelsched.agent.devices import base
from accelsched.conf import devices


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ("gpu_0", "two or more"),
        ("gpu_0+gpu_0", "two or more"),
        ("gpu_0+card1", "card1"),
        ("0000:41:00.0+41:00.1", "41:00.1"),
    ],
)
def test_partitions_that_make_no_sense_are_named(item: str, told: str) -> None:
    conf = options.new()
    conf.set_override("link_partitions", [item], group="devices")
    with pytest.raises(errors.ConfigurationError, match=told):
        devices.check(conf)


def test_a_device_may_be_in_several_partitions() -> None:
    conf = options.new()
    conf.set_override("link_partitions", ["gpu_0+gpu_1", "gpu_0+gpu_1+gpu_10"], group="devices")
    devices.check(conf)
    assert base.link_traits(conf, "gpu_1") == {"CUSTOM_LINK_PARTITION_0", "CUSTOM_LINK_PARTITION_1"}
    assert base.link_traits(conf, "gpu_10") == {"CUSTOM_LINK_PARTITION_1"}
    assert base.link_traits(conf, "gpu_2") == frozenset()
