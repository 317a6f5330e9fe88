# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The neighbours that accelsched works with, for real, on one machine: Keystone, Glance, a bootable guest image.

Used by ``tools/quickstart``, by the functional tests and by the lab. Everything listens on loopback and keeps its state
below one directory. Every step can be repeated: what was killed half-way is finished by the next run.
"""
