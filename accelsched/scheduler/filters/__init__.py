# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Filters say which hosts may be used for a request."""
