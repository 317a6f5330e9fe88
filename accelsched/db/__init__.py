# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Tables, transactions and migrations. Nothing here knows what the rows mean."""
