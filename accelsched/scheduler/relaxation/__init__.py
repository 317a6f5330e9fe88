# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""For a request that found no host: what it would have to do without to find one."""
