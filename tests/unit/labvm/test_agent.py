# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

from keystoneauth1 import loading
from labvm.agent import USER, Helper, Neighbours
from labvm.machine import Place

from accelsched import conf as options
from accelsched.conf import device_spec


def test_the_agent_takes_its_configuration_and_finds_its_neighbours_on_the_outer_machine(tmp_path: Path) -> None:
    path = tmp_path / "agent.conf"
    path.write_text(
        Neighbours("lab-1", 15000, 19292, "a-password").configuration(Place("h", "10.9.0.7"), Helper.FORKED)
    )
    conf = options.new()
    options.parse(conf, ["--config-file", str(path)], "accelsched-agent")
    assert conf.transport_url == "rabbit://guest:guest@10.0.2.2:5672/lab-1"
    assert loading.load_auth_from_conf_options(conf, "glance").auth_url == "http://10.0.2.2:15000/v3"
    assert conf.glance.endpoint_override == "http://10.0.2.2:19292"
    assert conf.agent.user == USER
    assert (conf.agent.host, conf.libvirt.live_migration_inbound_addr) == ("h", "10.9.0.7")
    assert conf.libvirt.live_migration_uri == "qemu+tcp://%s/system"
    specs = {(spec.names_one, spec.resource_class) for spec in device_spec.parse(conf)}
    assert specs == {("0000:03:00.0", "FPGA"), ("0000:04:00.0", "CUSTOM_NVME_VF")}
