# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""FPGA cards whose regions are handed out, programmed before and scrubbed after."""
