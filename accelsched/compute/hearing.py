# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What agents say may arrive twice, or after what they said later. Only the latest counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelsched import wire

Heard = Mapping[str, Any]
"""By host: the last ``run`` of its agent that was heard of, the last ``number`` of it, and the run ``before``."""

_HOSTS_KEPT = 8


def take(heard: Heard | None, host: str, said: wire.Said | None) -> dict[str, Any] | None:
    """Tell whether something that was said is news.

    A run that another has followed is over: an agent that was started again has a new one.

    :param heard: what was heard so far of the same thing
    :param said: which of the agent's messages this is; None for an agent that does not tell, who is always believed
    :returns: what is to be remembered as heard; None when it is old
    """
    kept = dict(heard or {})
    last = kept.pop(host, None)
    if said is not None:
        if last is not None and said["run"] == last["run"]:
            if said["number"] <= last["number"]:
                return None
            last = {**last, "number": said["number"]}
        else:
            if last is not None and said["run"] == last["before"]:
                return None
            last = {**said, "before": last and last["run"]}
    if last is not None:
        kept[host] = last
    return dict(list(kept.items())[-_HOSTS_KEPT:])
