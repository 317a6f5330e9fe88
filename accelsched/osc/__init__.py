# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Commands of ``openstack`` for what is our own: ``openstack accel ...``."""
