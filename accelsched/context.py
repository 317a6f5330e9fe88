# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Who asks, as the identity middleware found out."""

from __future__ import annotations

from oslo_context.context import RequestContext

__all__ = ["RequestContext"]
