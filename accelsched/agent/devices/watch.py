# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Looking at devices of which any may hang: who reads from a driver that waits for its hardware waits for ever with it.

Nothing ends a thread that waits in the kernel. Looks are therefore made in threads besides the caller's; one that does
not come back in time is left to its wait, and what it looks at is *stuck*, and not looked at again, until it does.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from accelsched.agent.devices.base import Device, DeviceError, Refusal

STUCK = "does not answer"
REFUSAL = Refusal(f"it {STUCK}", "look into the kernel's log; reset or replace it, or boot the host again")

# A look that takes so long may be stuck: the others go on beside it.
_SUSPICIOUS_S = 0.1

T = TypeVar("T")


class StuckError(DeviceError):
    """Something has not answered in time, or does not since an earlier time."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} {STUCK}")


class Watch:
    """Makes looks, and remembers what is stuck and how that was when it was not."""

    def __init__(self, patience_s: float) -> None:
        """
        :param patience_s: how long a look may take
        """
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._stuck: Counter[str] = Counter()  # how many threads wait for it
        self._last: dict[str, Device] = {}

    def stuck(self) -> frozenset[str]:
        """Return what does not answer."""
        with self._lock:
            return frozenset(self._stuck)

    def discover(self, looks: Mapping[str, Callable[[], Device | None]]) -> list[Device]:
        """Return the devices that are seen; those that are stuck as they were last seen, with a fault.

        :param looks: by name; None: there is nothing to offer
        """
        seen = self.each(looks)
        stuck = {
            name: dataclasses.replace(device, fault=STUCK)
            for name, device in self._last.items()
            if name in looks and name not in seen
        }
        found = {name: device for name, device in seen.items() if device is not None} | stuck
        self._last = found
        return [found[name] for name in looks if name in found]

    def each(self, looks: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        """Return what looks see, without those that are stuck. One after the other, as long as they are quick.

        :raises Exception: what the first of them raised that did, after all of them
        """
        stuck = self.stuck()
        todo = {name: look for name, look in looks.items() if name not in stuck}
        return _Sweep(todo, self._patience_s, left=self._is_stuck, back=self._answers).run()

    def call(self, name: str, action: Callable[[], T]) -> T:
        """Return what an action returns.

        :raises StuckError: it has not ended in time, or an earlier one of that name has not ended yet
        :raises Exception: what it raises
        """
        try:
            return self.each({name: action})[name]
        except KeyError:
            raise StuckError(name) from None

    def _is_stuck(self, name: str) -> None:
        with self._lock:
            self._stuck[name] += 1

    def _answers(self, name: str) -> None:
        with self._lock:
            self._stuck[name] -= 1
            self._stuck = +self._stuck


@dataclasses.dataclass(eq=False)
class _Lane:
    """A thread that makes looks, and which one it makes."""

    name: str | None = None
    since: float = 0.0


class _Sweep(Generic[T]):
    """Looks that are made together."""

    def __init__(
        self,
        looks: Mapping[str, Callable[[], T]],
        patience_s: float,
        *,
        left: Callable[[str], None],
        back: Callable[[str], None],
    ) -> None:
        """
        :param left: told of what a thread is left to wait for
        :param back: told when it waits no longer
        """
        self._todo = deque(looks.items())
        self._patience_s = patience_s
        self._left, self._back = left, back
        self._changed = threading.Condition()
        self._lanes: list[_Lane] = []
        self._seen: dict[str, T] = {}
        self._errors: list[BaseException] = []

    def run(self) -> dict[str, T]:
        """Return what is seen, once everything was looked at or left."""
        with self._changed:
            while self._todo or self._lanes:
                now = time.monotonic()
                for lane in [
                    lane for lane in self._lanes if now - lane.since >= self._patience_s and lane.name is not None
                ]:
                    self._lanes.remove(lane)
                    self._left(str(lane.name))
                if self._todo and all(now - lane.since >= _SUSPICIOUS_S for lane in self._lanes):
                    self._lanes.append(lane := _Lane(since=now))
                    threading.Thread(target=self._go, args=(lane,), name="agent-look", daemon=True).start()
                if self._todo or self._lanes:
                    self._changed.wait(_SUSPICIOUS_S)
        if self._errors:
            raise self._errors[0]
        return self._seen

    def _go(self, lane: _Lane) -> None:
        while True:
            with self._changed:
                if not self._todo:
                    self._lanes.remove(lane)
                    self._changed.notify()
                    return
                lane.name, look = self._todo.popleft()
                lane.since = time.monotonic()
            seen: dict[str, T] = {}
            errors: list[BaseException] = []
            try:
                seen[lane.name] = look()
            except BaseException as exc:  # the caller's to see
                errors.append(exc)
            with self._changed:
                if lane not in self._lanes:  # nobody waits for it any more
                    self._back(lane.name)
                    return
                self._seen |= seen
                self._errors += errors
                lane.name = None
