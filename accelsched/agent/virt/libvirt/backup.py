# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A copy of a running domain's disk as it is at one moment: a backup job of QEMU's, which writes to a file of its own.

The domain's disk is not touched, so there is nothing to mend when anybody dies in the middle.
https://libvirt.org/formatbackup.html
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import libvirt
from lxml import etree

from accelsched.agent.virt.base import Progress, SnapshotError

_LOOK_AGAIN_S = 0.2


def run(domain: Any, disk: str, target: Path, progress: Progress) -> None:
    """Copy a disk of a domain that runs, or is paused; a copy that a dead agent began is begun anew.

    :param disk: its name in the domain, vda
    :param target: a file that is not there
    :raises SnapshotError: when QEMU cannot, or the domain stops meanwhile
    :raises libvirt.libvirtError: when libvirt refuses
    :raises accelsched.agent.virt.base.InterruptedBuildError: when told to stop
    """
    _end_job(domain)
    target.unlink(missing_ok=True)
    domain.backupBegin(_xml(disk, target), None, 0)
    try:
        while domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE:
            progress.check()
            progress.cancelled.wait(_LOOK_AGAIN_S)
    except BaseException:
        _end_job(domain)
        raise
    done = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    if done.get("type") != libvirt.VIR_DOMAIN_JOB_COMPLETED or not done.get("success", True):
        raise SnapshotError(f"the disk could not be copied: {done.get('errmsg', 'the server stopped meanwhile')}")


def _end_job(domain: Any) -> None:
    try:
        while domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE:
            domain.abortJob()
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:  # it ended just now, or the domain did
            raise


def _xml(disk: str, target: Path) -> str:
    backup = etree.Element("domainbackup", mode="push")
    element = etree.SubElement(etree.SubElement(backup, "disks"), "disk", name=disk, type="file", backup="yes")
    etree.SubElement(element, "target", file=str(target))
    etree.SubElement(element, "driver", type="qcow2")
    return etree.tostring(backup, encoding="unicode")
