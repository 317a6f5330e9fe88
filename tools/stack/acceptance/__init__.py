# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``tools/acceptance``: does each command of the unmodified ``openstack`` client do its thing to a running stack?

A story is a sequence of commands that need each other; each command is judged by itself, by what became of the domain,
the image or the record, not by the client's exit status alone.
"""
