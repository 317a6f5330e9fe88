# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from labvm.report import Report


def test_a_way_failed_when_any_part_of_its_tests_did() -> None:
    report = Report({"accelsched": "1.2", "QEMU": "7.2"})
    report.add("one way", "it answers", failed=False)
    report.add("one way", "it answers", failed=True)
    report.add("one way", "it answers", failed=False)
    report.add("another", "it is gone", failed=False)
    assert report.text().splitlines() == [
        "Made with accelsched 1.2, QEMU 7.2.",
        "",
        "=======  ============  ======",
        "way      what is seen  result",
        "=======  ============  ======",
        "one way  it answers    FAILED",
        "another  it is gone    passed",
        "=======  ============  ======",
    ]


def test_nothing_is_reported_when_no_way_was_tried() -> None:
    assert Report().text() == ""
