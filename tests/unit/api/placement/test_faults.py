# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""How errors are told."""

from __future__ import annotations

from typing import Any

import pytest

from accelsched import errors
from accelsched.api.placement import faults
from accelsched.placement.inventories import InventoryInUseError
from accelsched.placement.providers import DuplicateProviderError, HasChildrenError, ProviderInUseError


def _body(fault: faults.Fault, minor: int | None) -> dict[str, Any]:
    return faults.body(fault, "req-1", minor, method="PATCH", media_type="text/plain")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.InvalidError("x"), 400, "placement.undefined_code"),
        (errors.NotFoundError("x"), 404, "placement.undefined_code"),
        (errors.ForbiddenError("x"), 403, "placement.undefined_code"),
        (errors.UnavailableError("x"), 503, "placement.undefined_code"),
        (errors.ConflictError("x"), 409, "placement.undefined_code"),
        (errors.CapacityExceededError("x"), 409, "placement.undefined_code"),
        (errors.DuplicateNameError("x"), 409, "placement.undefined_code"),
        (errors.ConcurrentUpdateError("x"), 409, "placement.concurrent_update"),
        (DuplicateProviderError("x"), 409, "placement.duplicate_name"),
        (InventoryInUseError("x"), 409, "placement.inventory.inuse"),
        (ProviderInUseError("x"), 409, "placement.resource_provider.inuse"),
        (HasChildrenError("x"), 409, "placement.resource_provider.cannot_delete_parent"),
    ],
)
def test_every_error_has_its_status_and_code(error: errors.AccelschedError, status: int, code: str) -> None:
    fault = faults.of_error(error)
    assert (fault.status, fault.code) == (status, code)
    (told,) = _body(fault, 39)["errors"]
    assert (told["status"], told["code"], told["request_id"]) == (status, code, "req-1")
    assert told["detail"].endswith("\n\nx")


def test_codes_come_with_1_23() -> None:
    fault = faults.Fault(409, "x", code=faults.CONCURRENT_UPDATE)
    assert "code" not in _body(fault, 22)["errors"][0]
    assert _body(fault, 23)["errors"][0]["code"] == "placement.concurrent_update"


@pytest.mark.parametrize(
    ("status", "general"),
    [
        (405, "The method PATCH is not allowed for this resource."),
        (415, "The request media type text/plain is not supported by this server."),
    ],
)
def test_a_general_sentence_names_what_was_sent(status: int, general: str) -> None:
    assert _body(faults.Fault(status), 39)["errors"][0]["detail"] == general


def test_only_an_unknown_version_is_answered_with_the_known_ones() -> None:
    unknown = _body(faults.Fault(406), None)["errors"][0]
    assert (unknown["min_version"], unknown["max_version"]) == ("1.0", "1.39")
    assert "min_version" not in _body(faults.Fault(406), 39)["errors"][0]
