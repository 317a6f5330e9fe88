# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""NUMA: what flavors and images ask for, which hosts could give it, and where exactly on a host."""
