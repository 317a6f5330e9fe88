# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A plan for the requests to expect: which of them should go where, so that the fleet fills up best."""
