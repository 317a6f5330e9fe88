# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What Cyborg's users know: device profiles, and the accelerators that servers have by them."""
