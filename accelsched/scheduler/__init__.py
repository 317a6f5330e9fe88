# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Requests to hosts and devices: candidates, filters, weighers, claims, explanations."""
