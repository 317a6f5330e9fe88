# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A fleet that exists in memory alone, and requests that are placed on it by the real pipeline."""
