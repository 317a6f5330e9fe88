# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Extra specs by Nova's names, and what their values may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsched import errors
from accelsched.api.compute import extra_specs


@pytest.mark.parametrize(
    "spec",
    [
        *("resources:VGPU=1", "resources_gpu-1:CUSTOM_FPGA_A10=2", "trait1:HW_CPU_X86_VMX=required"),
        *("trait:CUSTOM_FAST=forbidden", "group_policy=isolate", "hide_hypervisor_id=yes", "accel:device_profile=any"),
        *("accel:function_id=any", "accel1:bitstream_id=any"),
        *("hw:cpu_policy=dedicated", "hw:cpu_dedicated_mask=^0-1", "hw:numa_cpus.0=0-3,^2", "hw:numa_mem.12=512"),
        *("hw:mem_page_size=large", "hw:mem_page_size=1GiB", "hw:mem_page_size=2048", "hw:cpu_max_sockets=2"),
        *(
            "pci_passthrough:alias=gpu:1, nic:2",
            "quota:cpu_quota=-1",
            "quota:disk_read_iops_sec=0",
            "os:secure_boot=required",
        ),
        *("capabilities:cpu_info:features=<in> avx", "capabilities:free_ram_mb=>= 5", "hw_rng:allowed=True"),
        *("aggregate_instance_extra_specs:a:b=c", "hw_video:ram_max_mb=64", "vmware:hw_version=any"),
        *("hw:numa_nodes=1", "hw:redirected_usb_ports=15", "hw:tpm_version=2.0"),
        # Not Nova's: whoever reads them knows what they mean.
        *("ssd=true", "note:1=x", "hwx:cpu_policy=whatever", "mine:hw:cpu_policy=whatever"),
    ],
)
def test_what_nova_has_and_what_is_not_novas_is_let_pass(spec: str) -> None:
    extra_specs.check(*spec.split("=", 1))


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("hw:cpu_polcy=dedicated", "does not appear to be a valid extra spec"),
        ("resources:VGPUS=1", "does not appear to be a valid extra spec"),
        ("resources:=1", "does not appear to be a valid extra spec"),
        ("resources1:custom_a=1", "does not appear to be a valid extra spec"),
        ("trait:HW_CPU_X86_NOSUCH=required", "does not appear to be a valid extra spec"),
        ("accel:bitstream=1", "does not appear to be a valid extra spec"),
        ("hw:numa_cpus.a=0", "does not appear to be a valid extra spec"),
        ("capabilities:free_ram_mb:deep=1", "does not appear to be a valid extra spec"),
        ("hw:cpu_policy=Dedicated", "is not one of dedicated, mixed, shared"),
        ("hw:numa_nodes=0", "is not 1 or more"),
        ("hw:numa_nodes=two", "is not a whole number"),
        ("hw:redirected_usb_ports=16", "is not 15 or less"),
        ("hw:pmu=maybe", "is not true or false"),
        ("hw:cpu_dedicated_mask=0-,2", "is not a set of CPUs"),
        ("hw:mem_page_size=2XB", "is not large, small, any or a size"),
        ("trait:CUSTOM_FAST=wanted", "is not one of required, forbidden"),
        ("resources:VGPU=some", "is not a whole number"),
        ("pci_passthrough:alias=gpu", "is not alias:number"),
        ("quota:cpu_shares=-1", "is not 0 or more"),
        ("group_policy=", "is not one of isolate, none"),
    ],
)
def test_what_nova_would_not_take_is_refused_by_name(spec: str, why: str) -> None:
    name, value = spec.split("=", 1)
    with pytest.raises(errors.InvalidError) as refusal:
        extra_specs.check(name, value)
    assert name in str(refusal.value)
    assert why in str(refusal.value)


@given(st.sampled_from(["hw:numa_nodes", "hw:cpu_realtime_mask", "hw:pmem", "pci_passthrough:alias"]), st.text())
def test_any_value_is_taken_or_refused(name: str, value: str) -> None:
    try:
        extra_specs.check(name, value)
    except errors.InvalidError as exc:
        assert name in str(exc)
