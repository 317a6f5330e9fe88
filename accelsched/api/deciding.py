# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Deciding within the API, with the schedulers' plug-ins."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from accelsched import errors
from accelsched.scheduler.decider import Decider

if TYPE_CHECKING:
    from accelsched.api.services import Services


class Deciding:
    """What decides. It is made when first asked for: an API that is never asked needs no foreign plug-ins."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._made: Decider | None = None

    def decider(self) -> Decider:
        """Return it.

        :raises accelsched.errors.UnavailableError: naming the plug-in that is missing here
        """
        with self._lock:
            if self._made is None:
                try:
                    self._made = Decider(self._services.conf, self._services.db, self._services.fleet)
                except errors.ConfigurationError as exc:
                    raise errors.UnavailableError(
                        f"This API cannot decide as the schedulers do: {exc}. Install and configure it here as there."
                    ) from exc
            return self._made
