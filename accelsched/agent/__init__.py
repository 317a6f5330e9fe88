# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The compute agent: discovers a host's devices and keeps its servers as the control plane wants them."""
