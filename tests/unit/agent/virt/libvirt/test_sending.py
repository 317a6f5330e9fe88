# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""How a live migration is asked of libvirt."""

from __future__ import annotations

import libvirt
import pytest
from lxml import etree

from accelsched import conf as options
from accelsched.agent.virt.libvirt import sending
from accelsched.agent.virt.libvirt.sending import Downtime

PLAIN = etree.fromstring("<domain><devices><disk/></devices></domain>")
WITH_VGPU = etree.fromstring(
    "<domain><devices><disk><readonly/></disk><hostdev type='mdev'/></devices></domain>"  # and a config drive
)


@pytest.fixture
def conf() -> options.cfg.ConfigOpts:
    made = options.new()
    options.parse(made, [], "test")
    return made


def test_a_guest_may_stand_still_longer_step_by_step() -> None:
    allowed = Downtime(ms=900, steps=3, delay_s=10)
    assert [allowed.after(seconds) for seconds in (0, 9, 10, 25, 1000)] == [300, 300, 600, 900, 900]


def test_how_long_follows_from_its_devices_and_without_any_from_the_options(conf: options.cfg.ConfigOpts) -> None:
    conf.set_override("live_migration_downtime", 700, group="libvirt")
    assert sending.downtime(PLAIN, conf.libvirt).ms == 700
    assert sending.downtime(WITH_VGPU, conf.libvirt).ms == 500_000


def test_a_disk_is_copied_and_none_where_there_is_none(conf: options.cfg.ConfigOpts) -> None:
    assert sending.flags(PLAIN, conf.libvirt) & libvirt.VIR_MIGRATE_NON_SHARED_INC
    assert not sending.flags(WITH_VGPU, conf.libvirt) & libvirt.VIR_MIGRATE_NON_SHARED_INC
    assert not sending.flags(PLAIN, conf.libvirt) & (libvirt.VIR_MIGRATE_TLS | libvirt.VIR_MIGRATE_AUTO_CONVERGE)
    conf.set_override("live_migration_with_native_tls", True, group="libvirt")
    conf.set_override("live_migration_permit_auto_converge", True, group="libvirt")
    assert sending.flags(PLAIN, conf.libvirt) & libvirt.VIR_MIGRATE_TLS
    assert sending.flags(PLAIN, conf.libvirt) & libvirt.VIR_MIGRATE_AUTO_CONVERGE


def test_where_to_and_how_fast_is_told(conf: options.cfg.ConfigOpts) -> None:
    told = sending.parameters({"xml": "<domain/>", "address": "fd00::2"}, conf.libvirt)
    assert told[libvirt.VIR_MIGRATE_PARAM_URI] == "tcp://[fd00::2]"
    assert told[libvirt.VIR_MIGRATE_PARAM_PERSIST_XML] == "<domain/>"
    assert libvirt.VIR_MIGRATE_PARAM_BANDWIDTH not in told
    conf.set_override("live_migration_bandwidth", 7, group="libvirt")
    told = sending.parameters({"xml": "<domain/>", "address": "10.0.0.2"}, conf.libvirt)
    assert (told[libvirt.VIR_MIGRATE_PARAM_URI], told[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH]) == ("tcp://10.0.0.2", 7)
