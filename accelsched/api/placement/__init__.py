# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The Placement API, microversions 1.0 to 1.39."""
