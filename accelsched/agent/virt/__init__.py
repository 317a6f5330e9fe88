# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What runs servers, one driver each (entry points ``accelsched.agent.virt``)."""
