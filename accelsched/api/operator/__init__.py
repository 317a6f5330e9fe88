# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/v1``: what no OpenStack API offers."""
