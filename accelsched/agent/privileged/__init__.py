# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What an agent may do to its host as root, by name, and how it comes to do so.

``operations`` has all of it: functions that take PCI addresses, uuids, numbers and names of types, check each, and make
paths of them below what the configuration says. ``start`` decides who carries them out:

===========================  ==========================================================================================
the agent is started         operations are carried out by
===========================  ==========================================================================================
as root                      the agent itself
as root, ``[agent] user``    a helper that is forked before the agent becomes that user
as another user              a helper that ``[privsep] helper_command`` starts, sudo privsep-helper by default
===========================  ==========================================================================================

Helper and transport are oslo.privsep's.
"""
