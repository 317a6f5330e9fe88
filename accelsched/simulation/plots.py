# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Allocation and fragmentation over time, drawn by matplotlib (extra ``plots``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from accelsched import errors
from accelsched.simulation.replay import Point

FORMATS = (".png", ".svg")


def check(path: Path) -> None:
    """Refuse what could not be drawn, before a long simulation rather than after it.

    :raises accelsched.errors.ConfigurationError: another format, or matplotlib is not installed
    """
    if path.suffix not in FORMATS:
        raise errors.ConfigurationError(f"--plot: {path} ends neither in {' nor in '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401, PLC0415 - an extra
    except ImportError as exc:
        raise errors.ConfigurationError("--plot: matplotlib is not installed: pip install 'accelsched[plots]'") from exc


def draw(points: Sequence[Point], path: Path, title: str) -> None:
    """Draw the points of a replay.

    :param path: ends in .png or .svg
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra

    arrived = [point.arrived for point in points]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(arrived, arrived, color="0.8", linewidth=1, label="asked for")
    axes.plot(arrived, [point.allocated for point in points], label="allocated")
    fragmented = [(point.arrived, point.fragmented) for point in points if point.fragmented is not None]
    axes.plot([x for x, _ in fragmented], [y for _, y in fragmented], label="idle, of no use to the average request")
    axes.set_xlabel("GPUs asked for so far, % of capacity")
    axes.set_ylabel("% of GPU capacity")
    axes.set_ylim(0, 105)
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="upper left")
    figure.savefig(path)
