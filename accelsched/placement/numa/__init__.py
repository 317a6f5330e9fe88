# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""NUMA nodes of hosts: what they have, what of it servers hold, and the tables that both lie in."""
