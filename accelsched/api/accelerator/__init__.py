# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The Accelerator API v2."""
