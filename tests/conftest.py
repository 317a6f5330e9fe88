# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Time never decides a test, not in a property either."""

from hypothesis import settings

settings.register_profile("accelsched", deadline=None)
settings.load_profile("accelsched")
