# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The resource database: providers, inventories, traits, aggregates, allocations; the fleet picture."""
