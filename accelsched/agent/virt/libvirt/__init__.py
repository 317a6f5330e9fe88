# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers as libvirt domains."""
