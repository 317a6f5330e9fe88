# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Ways of handing hardware to a server, one driver each (entry points ``accelsched.agent.devices``)."""
