# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The table, as text that reStructuredText takes, and the same as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from harness.measure import Figure, Row

_HEAD = ("row", "accelsched", "Placement", "ratio", "CPU ms a request", "wanted")


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a simple table."""
    lines = [_HEAD, *(_line(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    rule = "  ".join("=" * width for width in widths)
    body = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([rule, body[0], rule, *body[1:], rule])


def document(rows: Sequence[Row], about: dict[str, Any]) -> dict[str, Any]:
    """Return everything that was measured.

    :param about: what the numbers depend on
    """
    return {**about, "rows": [{**dataclasses.asdict(row), "ratio": row.ratio} for row in rows]}


def _line(row: Row) -> tuple[str, ...]:
    ours, theirs = row.figures.get("accelsched"), row.figures.get("placement")
    ratio = row.ratio
    cpu = " / ".join(_number(figure.cpu_ms) if figure else "-" for figure in (ours, theirs))
    wanted = []
    if row.target_ratio is not None:
        wanted.append(f">= {row.target_ratio:g} x" + _verdict(None if ratio is None else ratio >= row.target_ratio))
    if row.target_ms is not None:
        median = ours.median_ms if ours else None
        wanted.append(f"<= {row.target_ms:g} ms" + _verdict(None if median is None else median <= row.target_ms))
    return (
        row.title,
        _figure(ours),
        _figure(theirs),
        "-" if ratio is None else f"{_number(ratio)} x",
        cpu,
        ", ".join(wanted) or "-",
    )


def _verdict(reached: bool | None) -> str:
    return "" if reached is None else ": yes" if reached else ": NO"


def _figure(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    parts = []
    if figure.rate is not None:
        parts.append(f"{_number(figure.rate)}/s")
    if figure.median_ms is not None:
        parts.append(f"{_number(figure.median_ms)} ms (p95 {_number(figure.p95_ms)})")
    if figure.note:
        parts.append(figure.note)
    return ", ".join(parts) or "-"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
