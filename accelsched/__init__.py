# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A compute scheduler service for GPUs, vGPUs and FPGAs."""
