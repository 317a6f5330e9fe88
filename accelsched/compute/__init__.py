# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers, flavors and hosts: what is wanted, what was seen."""
