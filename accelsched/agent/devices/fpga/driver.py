# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""FPGA regions as devices: programmed before a server gets one, scrubbed before the next one does."""

from __future__ import annotations

import dataclasses
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import os_resource_classes as orc
from oslo_log import log
from oslo_utils import timeutils

from accelsched import bitstreams, names, wire
from accelsched.agent.devices import base
from accelsched.agent.devices.fpga import sources
from accelsched.agent.devices.fpga.cards import Cards, Region
from accelsched.agent.devices.fpga.dfl import DflCards
from accelsched.agent.devices.fpga.records import Record, Records
from accelsched.agent.devices.fpga.xilinx import XilinxCards
from accelsched.agent.devices.watch import STUCK
from accelsched.agent.images import ImageClient
from accelsched.conf import fpga as options

if TYPE_CHECKING:
    from accelsched.agent.virt.base import Progress

LOG = log.getLogger(__name__)

_LOOK_AGAIN_S = 0.2


class FpgaDriver(base.DeviceDriver):
    """Hands out the regions of one maker's cards."""

    def __init__(self, context: base.HostContext, how: str, cards: Cards) -> None:
        """
        :param how: name of the driver
        """
        super().__init__(context)
        self._how = how
        self._cards = cards
        self._options = context.conf.fpga
        self._records = Records(context.state_path / "fpgas" / how)
        self._images = ImageClient(context.conf)
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._last: dict[str, Region] = {}  # as they were seen last, by provider
        self._not_scrubbed: set[str] = set()  # interfaces without a blank bitstream, as logged

    def discover(self) -> list[base.Device]:
        """Return the regions that can be seen, and those that cannot because a server has or had them."""
        records = {record.provider: record for record in self._records.all()}
        visible = self._visible()
        stuck = self._cards.stuck()
        self._last = {name: region for name, region in self._last.items() if region.management in stuck} | visible
        regions = {provider: record.region for provider, record in records.items()} | self._last
        return [
            dataclasses.replace(
                self._device(provider, region, records.get(provider)),
                fault=STUCK if region.management in stuck else None,
            )
            for provider, region in regions.items()
        ]

    def refused(self) -> Mapping[str, base.Refusal]:
        """Return why cards are not offered."""
        return self._cards.refused()

    def _device(self, provider: str, region: Region, record: Record | None) -> base.Device:
        vendor = self._cards.vendor
        traits = {
            names.fpga_vendor_trait(vendor),
            names.fpga_region_trait(vendor, region.interface_id),
            names.pci_vendor_trait(self._cards.vendor_id),
            names.pci_device_trait(self._cards.vendor_id, region.product),
        }
        function_id = region.function_id or (record.region.function_id if record else None)
        if function_id is not None:
            traits.add(names.fpga_function_trait(vendor, function_id))
        inventory = base.inventory(1)
        if record is not None and record.state == "dirty":
            inventory["reserved"] = 1
            traits.add(names.FPGA_NOT_SCRUBBED)
        return base.Device(
            name=provider,
            how=self._how,
            inventories={orc.FPGA: inventory},
            traits=frozenset(traits)
            | base.place_traits(region.numa_node, region.pcie_root)
            | base.link_traits(self.context.conf, region.address),
            address=region.address,
        )

    def program(self, assignment: wire.Assignment, allocation: wire.DeviceAllocation, progress: Progress) -> None:
        """Have the region have what the flavor names. What it has already is left as it is."""
        wanted = bitstreams.asked(assignment["flavor"]["extra_specs"]).get(allocation["group"])
        provider = allocation["provider_name"]
        with self._locks[provider]:
            record = self._take(assignment["server_uuid"], provider)
            if wanted is None:
                return
            asked = f"{wanted.kind}={wanted.value}"
            seen = self._visible().get(provider)
            untouched = seen is None or seen.function_id in (None, record.region.function_id)
            if record.state == "programmed" and record.wanted == asked and untouched:
                return
            job = _Job(allocation, asked, record, progress.programming)
            record = dataclasses.replace(record, wanted=asked, job_uuid=job.uuid)
            if record.state == "programmed":
                record = dataclasses.replace(record, state="taken")
            self._records.put(record)
            try:
                self._program(job, record, wanted, assignment["project_id"], progress)
            except base.DeviceError as exc:
                job.end("failed", exc)
                raise

    def _program(
        self, job: _Job, record: Record, wanted: bitstreams.Wanted, project_id: str, progress: Progress
    ) -> None:
        provider = record.provider
        region = self._settled(provider)
        function_id = wanted.value if wanted.kind == "function_id" else None
        image = None
        if function_id is None or function_id != region.function_id:
            progress.step(f"looking up the bitstream for {provider}")
            image = sources.look_up(self._images, wanted, project_id)
            function_id = function_id or bitstreams.uuid_of(image.properties.get(sources.FUNCTION_ID))
            job.tell(image_id=image.id, function_id=function_id)
        in_doubt = record.state == "programming"
        if function_id is not None and function_id == region.function_id and not in_doubt:
            self._records.put(_programmed(record, function_id))
            job.end("skipped", function_id=function_id)
            return
        image = image or sources.look_up(self._images, wanted, project_id)
        path = self._records.bitstream(provider)
        try:
            progress.step(f"downloading the bitstream for {provider}")
            job.tell(state="downloading", image_id=image.id)
            whole = max(image.size, 1)
            limit = self._options.max_bitstream_bytes
            sources.fetch(
                *(self._images, image, path, limit, progress.check),
                lambda received: job.tell(percent=min(100 * received // whole, 100)),
            )
            function_id = sources.verify(region, self._cards.label(path), image, wanted)
            progress.step(f"programming {provider}")
            job.tell(state="programming", percent=100, function_id=function_id)
            self._write(dataclasses.replace(record, state="programming"), path)
            found = self._believe(region, function_id)
        finally:
            path.unlink(missing_ok=True)
        self._records.put(_programmed(record, found))
        job.end("programmed", function_id=found)
        LOG.info("%s was programmed with image %s", provider, image.id)

    def _write(self, record: Record, bitstream: Path) -> None:
        """Program a region, after noting that nobody knows what is in it."""
        self._records.put(record)
        blank = bitstream != self._records.bitstream(record.provider)
        self._cards.program(record.region, record.provider, blank=blank)

    def _believe(self, region: Region, function_id: str | None) -> str:
        """Return what is in a region that was just programmed.

        :param function_id: what should be; None when nobody knows
        :raises DeviceError: when it is something else, whatever the executable said
        """
        found = self._cards.function_of(region)
        if found is None:
            raise base.DeviceError(f"{region.address} was programmed, but what is in it cannot be seen on the host")
        if function_id not in (None, found):
            raise base.DeviceError(
                f"{region.address} was programmed without an error, but has function {found}, not {function_id}"
            )
        return found

    def prepare(self, server_uuid: str, allocation: wire.DeviceAllocation) -> list[base.Attachment]:
        """Return the function through which the region is reached."""
        provider = allocation["provider_name"]
        with self._locks[provider]:
            record = self._take(server_uuid, provider)
        return [base.PciAttachment(provider, record.region.address)]

    def marks(self, server_uuid: str, allocation: wire.DeviceAllocation) -> frozenset[str]:
        """Return the region of an allocation, if the server has it."""
        record = self._records.get(allocation["provider_name"])
        return frozenset() if record is None or record.server_uuid != server_uuid else frozenset({record.provider})

    def present(self) -> list[base.PresentDevice]:
        """Return the regions that servers have, and those that wait to be scrubbed, which are nobody's."""
        return [base.PresentDevice(record.provider, record.server_uuid) for record in self._records.all()]

    def release(self, server_uuid: str, keep: Collection[str] = ()) -> None:
        """Scrub the other regions of a server. One that cannot be scrubbed is handed out to nobody, and tried again."""
        for record in self._records.all():
            if record.server_uuid != server_uuid or record.provider in keep:
                continue
            with self._locks[record.provider]:
                try:
                    self._scrub(record)
                except base.DeviceError as exc:
                    LOG.warning("%s is handed out to nobody: %s (%s)", record.provider, exc, exc.__cause__)

    def remove(self, mark: str) -> None:
        """Try again to scrub a region."""
        with self._locks[mark]:
            record = self._records.get(mark)
            if record is not None and record.server_uuid is None:
                self._scrub(record)

    def _scrub(self, record: Record) -> None:
        """Have a region that nobody has any more hold nothing of who had it, and forget it.

        :raises DeviceError: when that cannot be done; then it waits for it
        """
        blank = options.blank_of(self.context.conf, record.region.interface_id)
        if blank is None:
            if record.region.interface_id not in self._not_scrubbed:
                self._not_scrubbed.add(record.region.interface_id)
                LOG.warning(
                    "FPGA regions with interface %s are not scrubbed: [fpga] blank_bitstreams names none for it",
                    record.region.interface_id,
                )
            self._records.remove(record.provider)
            return
        record = dataclasses.replace(record, state="dirty", server_uuid=None)
        self._records.put(record)
        try:
            self._blank(record, blank)
        except base.DeviceError as exc:
            raise base.DeviceError(f"{record.provider} could not be scrubbed: {exc}") from exc.__cause__
        self._records.remove(record.provider)
        LOG.info("%s was scrubbed", record.provider)

    def _blank(self, record: Record, blank: str) -> None:
        region = self._settled(record.provider)
        image_id = bitstreams.uuid_of(blank)
        if image_id is None:
            path, image = Path(blank), None
            if not path.is_file():
                raise base.DeviceError(f"there is no file {blank}")
        else:
            path = self._records.bitstream(record.provider)
            image = sources.look_up(self._images, bitstreams.Wanted("bitstream_id", image_id), "")
        try:
            if image is not None:
                limit = self._options.max_bitstream_bytes
                sources.fetch(self._images, image, path, limit, lambda: None, lambda _received: None)
            function_id = sources.verify(region, self._cards.label(path), image, None)
            self._write(record, path)
            self._believe(region, function_id)
        finally:
            if image is not None:
                path.unlink(missing_ok=True)

    def _take(self, server_uuid: str, provider: str) -> Record:
        """Return the record of a region that is a server's from now on.

        :raises DeviceError: when it is not there, or not free
        """
        record = self._records.get(provider)
        if record is None:
            region = self._visible().get(provider)
            if region is None:
                raise base.DeviceError(f"{provider} is not on this host any more")
            record = Record(provider, region, "taken", server_uuid)
            self._records.put(record)
        elif record.server_uuid is None:
            raise base.DeviceError(f"{provider} was not scrubbed after it was given back")
        elif record.server_uuid != server_uuid:
            raise base.DeviceError(f"{provider} is another server's")
        return record

    def _visible(self) -> dict[str, Region]:
        return {names.pci_provider(self.context.host, region.address): region for region in self._cards.regions()}

    def _settled(self, provider: str) -> Region:
        """Return a region as it is, as soon as it can be seen again after a server had it.

        :raises DeviceError: when it cannot
        """
        deadline = time.monotonic() + self._options.settle_timeout
        while True:
            region = self._visible().get(provider)
            if region is not None:
                return region
            if time.monotonic() > deadline:
                raise base.DeviceError(f"{provider} cannot be seen on this host")
            time.sleep(_LOOK_AGAIN_S)


def _programmed(record: Record, function_id: str | None) -> Record:
    region = dataclasses.replace(record.region, function_id=function_id)
    return dataclasses.replace(record, region=region, state="programmed")


class _Job:
    """The programming of a region, as it is told."""

    def __init__(
        self,
        allocation: wire.DeviceAllocation,
        asked: str,
        record: Record,
        tell: Callable[[wire.Programming], None],
    ) -> None:
        # One that an agent was stopped or killed over goes on.
        goes_on = record.state != "programmed" and record.wanted == asked and record.job_uuid is not None
        self.uuid = str(record.job_uuid) if goes_on else str(uuid.uuid4())
        self._tell = tell
        self._told: wire.Programming = {
            "uuid": self.uuid,
            "provider_uuid": allocation["provider_uuid"],
            "provider_name": allocation["provider_name"],
            "wanted": asked,
            "image_id": None,
            "function_id": None,
            "state": "looking up",
            "percent": 0,
            "fault": None,
            "started_at": _now(),
            "finished_at": None,
        }
        tell(self._told)

    @property
    def function_id(self) -> str | None:
        """What the region is to have, as far as that is known."""
        return self._told["function_id"]

    def tell(self, **changes: object) -> None:
        """Tell what has changed, if anything has."""
        told: wire.Programming = {**self._told, **changes}  # type: ignore[typeddict-item]
        if told != self._told:
            self._told = told
            self._tell(told)

    def end(self, state: str, exc: base.DeviceError | None = None, **changes: object) -> None:
        """Tell how it ended."""
        fault = None if exc is None else {"message": str(exc), "details": str(exc.__cause__ or "")}
        self.tell(state=state, fault=fault, finished_at=_now(), **changes)


def _now() -> str:
    return timeutils.utcnow().strftime("%Y-%m-%dT%H:%M:%SZ")


def dfl(context: base.HostContext) -> FpgaDriver:
    """Return the driver of Intel's cards."""
    return FpgaDriver(context, "dfl", DflCards(context.conf))


def xilinx(context: base.HostContext) -> FpgaDriver:
    """Return the driver of Xilinx' cards."""
    return FpgaDriver(context, "xilinx", XilinxCards(context.conf))
