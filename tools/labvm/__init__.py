# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The hardware lab: a virtual machine in which real device drivers, libvirt and the agent can be seen at work.

It runs by software emulation, so that it needs nothing of the machine it runs on: no VFIO, no KVM, no GPU. In it are
PCI devices behind an IOMMU, a driver that makes mediated devices on two of them, and the outer machine's own root
file system (read-only, below a RAM overlay), so that the libvirtd and the virtual environment of the outer machine
run there unchanged. ``doc/source/contributor/lab.rst`` tells the whole.
"""
