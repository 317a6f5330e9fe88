# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""HTTP: parse, authorise, call the domain, render."""
