# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from accelsched.agent import numa
from accelsched.agent.virt.libvirt.capabilities import cpu_models, numa_nodes
from accelsched.agent.virt.libvirt.cpus import GuestNode

# As libvirt 9 tells of two sockets with two cores of two threads each; CPU 7 is offline.
CAPABILITIES = """
<capabilities><host><topology><cells num='2'>
  <cell id='0'>
    <memory unit='KiB'>8388608</memory>
    <pages unit='KiB' size='4'>1835008</pages>
    <pages unit='KiB' size='2048'>512</pages>
    <cpus num='4'>
      <cpu id='0' socket_id='0' die_id='0' core_id='0' siblings='0,4'/>
      <cpu id='1' socket_id='0' die_id='0' core_id='1' siblings='1,5'/>
      <cpu id='4' socket_id='0' die_id='0' core_id='0' siblings='0,4'/>
      <cpu id='5' socket_id='0' die_id='0' core_id='1' siblings='1,5'/>
    </cpus>
  </cell>
  <cell id='1'>
    <memory unit='KiB'>8388608</memory>
    <cpus num='4'>
      <cpu id='2' socket_id='1' die_id='0' core_id='0' siblings='2,6'/>
      <cpu id='3' socket_id='1' die_id='0' core_id='1' siblings='3'/>
      <cpu id='6' socket_id='1' die_id='0' core_id='0' siblings='2,6'/>
      <cpu id='7'/>
    </cpus>
  </cell>
</cells></topology></host></capabilities>
"""


def test_nodes_as_servers_may_use_them() -> None:
    told = numa.topology(numa_nodes(CAPABILITIES), shared=frozenset({0, 4}), dedicated=frozenset({1, 5, 2, 3}))
    assert told == {
        "nodes": [
            {
                "node": 0,
                "socket": 0,
                "shared_cpus": [0, 4],
                "dedicated_cpus": [1, 5],
                "cores": [[0, 4], [1, 5]],
                "memory_mb": 8192,
                "pages": {"4": 1835008, "2048": 512},
            },
            {
                "node": 1,
                "socket": 1,
                "shared_cpus": [],
                "dedicated_cpus": [2, 3],
                "cores": [[2], [3]],
                "memory_mb": 8192,
                "pages": {},
            },
        ]
    }
    assert numa.has_threads(told)
    assert not numa.has_threads({"nodes": [told["nodes"][1]]})
    assert not numa.has_threads(None)


def test_a_host_without_nodes_tells_none() -> None:
    assert list(numa_nodes("<capabilities><host/></capabilities>")) == []


def test_ordinary_pages_are_no_huge_ones() -> None:
    (here, _) = numa.topology(numa_nodes(CAPABILITIES), shared=frozenset({0, 4}), dedicated=frozenset())["nodes"]
    placed = {"node": 0, "shared_cpus": [0, 1], "pins": {}, "memory_mb": 512}
    assert GuestNode.of({**placed, "page_kb": 4}, here).huge_page_kb is None  # type: ignore[typeddict-item]
    assert GuestNode.of({**placed, "page_kb": 2048}, here).huge_page_kb == 2048  # type: ignore[typeddict-item]


# As libvirt 9 tells of a host without KVM.
DOMAIN_CAPABILITIES = """
<domainCapabilities><cpu>
  <mode name='host-passthrough' supported='no'/>
  <mode name='maximum' supported='yes'/>
  <mode name='host-model' supported='yes'><model fallback='forbid'>EPYC</model></mode>
  <mode name='custom' supported='yes'>
    <model usable='yes' vendor='unknown'>qemu64</model>
    <model usable='no' vendor='AMD'>EPYC</model>
  </mode>
</cpu></domainCapabilities>
"""


def test_a_cpu_that_guests_cannot_have_is_not_among_its_modes_models() -> None:
    modes = ("host-passthrough", "maximum", "host-model", "custom")
    had = {mode: set(cpu_models(DOMAIN_CAPABILITIES, mode)) for mode in modes}
    assert had == {"host-passthrough": set(), "maximum": {None}, "host-model": {None}, "custom": {"qemu64"}}
