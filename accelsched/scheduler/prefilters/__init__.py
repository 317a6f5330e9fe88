# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Prefilters turn what a request implies into resource groups and traits, before the fleet is looked at."""
