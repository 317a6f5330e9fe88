# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: the fleet, the servers, the client, the report."""
