# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Weighers say which of the hosts, and which of a host's devices, to prefer."""
