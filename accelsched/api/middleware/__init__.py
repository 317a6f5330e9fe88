# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""WSGI layers around every service: identity, request ids, bounds, metrics."""
