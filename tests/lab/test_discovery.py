# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The devices that the agent finds, as the resource database then has them."""

from __future__ import annotations

import pytest
from labvm.agent import USER, Agent
from labvm.control import ControlPlane
from labvm.machine import FPGA, GPUS, HOST, NVME, SRIOV_GPU

pytestmark = pytest.mark.usefixtures("agent")


def _name(address: str) -> str:
    return f"{HOST}_pci_{address.replace(':', '_').replace('.', '_')}"


@pytest.fixture(scope="module")
def providers(agent: Agent, control_plane: ControlPlane) -> dict[str, dict[str, str]]:
    """Every resource provider, by its name."""
    listed = control_plane.show("resource", "provider", "list")
    return {provider["name"]: provider for provider in listed}


def _inventory(control_plane: ControlPlane, provider: dict[str, str]) -> dict[str, int]:
    listed = control_plane.show("resource", "provider", "inventory", "list", provider["uuid"])
    return {inventory["resource_class"]: inventory["total"] for inventory in listed}


def _traits(control_plane: ControlPlane, provider: dict[str, str]) -> set[str]:
    listed = control_plane.show("resource", "provider", "trait", "list", provider["uuid"])
    return {trait["name"] for trait in listed}


def test_each_device_is_a_child_of_its_host(providers: dict[str, dict[str, str]]) -> None:
    host, devices = providers[HOST], set(map(_name, (*GPUS, FPGA, NVME, SRIOV_GPU)))
    assert set(providers) == {HOST, *devices}
    assert {name: provider["parent_provider_uuid"] for name, provider in providers.items() if name != HOST} == (
        dict.fromkeys(devices, host["uuid"])
    )


def test_a_gpu_offers_its_vgpu_type_as_often_as_its_driver_does(
    control_plane: ControlPlane, providers: dict[str, dict[str, str]]
) -> None:
    shared, whole = (providers[_name(address)] for address in GPUS)
    # One of the first GPU's eight was made by somebody else and is not ours to give.
    assert _inventory(control_plane, shared) == {"VGPU": 7}
    assert _inventory(control_plane, whole) == {"VGPU": 8}
    for gpu in (shared, whole):
        traits = _traits(control_plane, gpu)
        assert "CUSTOM_VGPU_TYPE_LABGPU_1" in traits
        assert "CUSTOM_VGPU_TYPE_LABGPU_2" not in traits  # not among [devices] enabled_mdev_types


def test_the_fpga_is_offered_whole(control_plane: ControlPlane, providers: dict[str, dict[str, str]]) -> None:
    fpga = providers[_name(FPGA)]
    assert _inventory(control_plane, fpga) == {"FPGA": 1}
    assert "CUSTOM_PCI_DEVICE_1234_11E8" in _traits(control_plane, fpga)


def test_virtual_functions_are_counted_at_their_card(
    control_plane: ControlPlane, providers: dict[str, dict[str, str]]
) -> None:
    assert _inventory(control_plane, providers[_name(NVME)]) == {"CUSTOM_NVME_VF": 2}
    assert "CUSTOM_PCI_TYPE_VF" in _traits(control_plane, providers[_name(NVME)])
    # Each of the two is a parent of mediated devices, with room for eight.
    assert _inventory(control_plane, providers[_name(SRIOV_GPU)]) == {"VGPU": 16}


@pytest.mark.way(
    "agent that is not root", "all of this by user accelsched, with a helper that was forked before it became that user"
)
def test_the_agent_is_not_root_and_its_helper_is(agent: Agent) -> None:
    assert agent.users() == [USER, "root"]


def test_a_command_explains_the_devices_to_an_operator(agent: Agent) -> None:
    told = agent.devices()
    for address in (*GPUS, FPGA, NVME, SRIOV_GPU):
        assert address in told


def test_the_host_offers_what_the_machine_has(
    control_plane: ControlPlane, providers: dict[str, dict[str, str]]
) -> None:
    inventory = _inventory(control_plane, providers[HOST])
    assert inventory["VCPU"] == 1
    assert 3500 < inventory["MEMORY_MB"] <= 4096
    assert inventory["DISK_GB"] == 19  # ext4's share of the disk of 20 is not for files
