# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``accelsched-agent devices``: what this host's devices can be used for, and what keeps them from it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from oslo_config import cfg

from accelsched import errors
from accelsched.agent.devices import findings, functions
from accelsched.agent.devices.base import Device, HostContext, Refusal
from accelsched.agent.devices.findings import Finding, Way
from accelsched.agent.devices.functions import Functions
from accelsched.agent.devices.tenures import Tenures
from accelsched.agent.devices.watch import Watch
from accelsched.agent.manager import device_drivers
from accelsched.agent.privileged import context
from accelsched.cmd import process
from accelsched.conf import device_spec

_OPTIONS = [
    cfg.BoolOpt("json", default=False, help="Print JSON, with everything there is to say, in place of a table."),
    cfg.StrOpt(
        "cleaned",
        metavar="ADDRESS",
        help="Say that the one_time_use device at this PCI address was cleaned: it may be used again.",
    ),
    cfg.StrOpt(
        "clean-again",
        metavar="ADDRESS",
        help="Have the agent run the cleaning command again, which failed for the device at this PCI address.",
    ),
]


def main(prog: str, argv: Sequence[str]) -> int:
    """Print the table, or do what an option says; return the exit status."""
    example = f"{prog} --config-file /etc/accelsched/accelsched.conf --json"
    try:
        conf = process.read_options(prog, argv, example=example, extra=_OPTIONS)
        # What root writes, the agent's user must be able to read; somebody else looks as far as that goes.
        (context.start if os.geteuid() == 0 else context.use)(conf)
        tenures = Tenures(Path(conf.state_path))
        if conf.cleaned:
            tenures.is_clean(conf.cleaned)
        elif conf.clean_again:
            tenures.clean_again(conf.clean_again)
        else:
            print(_printed(conf, tenures))
    except (errors.ConfigurationError, errors.NotFoundError) as exc:
        return process.fail(prog, str(exc))
    except OSError as exc:
        return process.fail(prog, f"[DEFAULT] state_path: {exc}")
    return 0


def _printed(conf: cfg.ConfigOpts, tenures: Tenures) -> str:
    watch = Watch(conf.devices.look_timeout)
    present = Functions(Path(conf.devices.sysfs_root), watch).read(mounted=functions.mounted_devices())
    shared: list[Device] = []
    refused: dict[str, Mapping[str, Refusal]] = {}
    logging.disable(logging.WARNING)  # the drivers would log what is printed below
    try:
        for name, driver in device_drivers(HostContext(conf, conf.agent.host, "", Path(conf.state_path))).items():
            if name != "pci":  # of which there is more to say
                shared += driver.discover()
                refused[name] = driver.refused()
    finally:
        logging.disable(logging.NOTSET)
    found = findings.explain(present, device_spec.parse(conf), tenures.names(), shared=shared, refused=refused)
    held = tenures.all()
    cleanings = tenures.cleanings()
    if conf.json:
        records = {address: asdict(tenure) for address, tenure in held.items()}
        told = [asdict(finding) for finding in found]
        return json.dumps({"devices": told, "in_use": records, "cleanings": cleanings}, indent=2)
    lines = table(found)
    for address, tenure in sorted(held.items()):
        if tenure.used:
            lines += ["", f"{address} is reserved until it is clean: {tenure.failure or 'nobody has cleaned it yet'}"]
    return "\n".join(lines)


def table(found: Iterable[Finding]) -> list[str]:
    """Return the lines of a table with a row for each way of each device."""
    header = ("DEVICE", "WHAT", "DRIVER", "WAY", "OFFERED AS")
    rows: list[tuple[Sequence[str], Way]] = []
    for finding in found:
        what = f"{finding.kind} {finding.ids}"
        for number, way in enumerate(finding.ways):
            first = (finding.device, what, finding.driver or "-") if number == 0 else ("", "", "")
            rows.append(((*first, way.how, _offers(way.offers)), way))
    widths = [max(map(len, column)) for column in zip(header, *(cells for cells, _ in rows), strict=True)]
    lines = [_line(header, widths)]
    indent = " " * (widths[0] + 2)
    for cells, way in rows:
        lines.append(_line((*cells, way.detail), [*widths, 0]))
        if way.reason:
            lines.append(f"{indent}not offered: {way.reason}")
            lines.append(f"{indent}remedy: {way.remedy}")
    return lines if rows else ["No GPU, accelerator or SR-IOV card was found, and nothing is listed."]


def _offers(offers: Mapping[str, int]) -> str:
    return ", ".join(f"{amount} {name}" for name, amount in sorted(offers.items())) or "-"


def _line(cells: Iterable[Any], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
