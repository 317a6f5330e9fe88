# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What holds for every device driver that there is."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest

from accelsched.agent.devices.base import DeviceDriver

DRIVERS = metadata.entry_points(group="accelsched.agent.devices")


@pytest.mark.parametrize("name", sorted(DRIVERS.names))
def test_a_driver_that_says_what_is_a_servers_says_what_it_is_for(context: Any, name: str) -> None:
    """Else all that it has would be taken for what the server does not need any more."""
    driver = DRIVERS[name].load()(context)
    says_whose, says_what_for = (
        getattr(type(driver), method) is not getattr(DeviceDriver, method) for method in ("present", "marks")
    )
    assert says_what_for or not says_whose
