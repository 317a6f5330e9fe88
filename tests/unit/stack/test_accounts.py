# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The catalog lists every service where its clients look for it."""

from __future__ import annotations

from stack import accounts


def test_catalog_has_the_service_types_that_clients_ask_for() -> None:
    entries = accounts.catalog("http://127.0.0.1:9292", "http://127.0.0.1:8790")
    assert {service_type: url for service_type, (_, url) in entries.items()} == {
        "image": "http://127.0.0.1:9292",
        "placement": "http://127.0.0.1:8790/placement",
        "compute": "http://127.0.0.1:8790/compute/v2.1",
        "accelerator": "http://127.0.0.1:8790/accelerator/v2",
        "accelsched": "http://127.0.0.1:8790/v1",
    }


def test_the_service_user_may_act_for_the_service_and_demo_may_not() -> None:
    assert accounts.USERS["accelsched"] == ("service", ("admin", "service"))
    assert accounts.USERS["demo"] == ("demo", ("member",))
