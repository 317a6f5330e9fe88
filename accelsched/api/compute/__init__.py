# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The Compute API v2.1, microversions 2.1 to 2.96, at Nova's wire level."""
