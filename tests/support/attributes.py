# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Attributes of a sysfs tree that hang, as those of a driver do that waits for its hardware."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hanging(attribute: Path) -> Iterator[Callable[[], None]]:
    """Have who reads an attribute wait, as it is a FIFO; what is yielded lets him read on."""
    text = attribute.read_bytes()
    attribute.unlink()
    os.mkfifo(attribute)

    def let_go() -> None:
        while attribute.is_fifo():
            aside = attribute.with_name(f"{attribute.name}.fifo")
            attribute.rename(aside)
            attribute.write_bytes(text)
            descriptor = os.open(aside, os.O_RDWR | os.O_NONBLOCK)  # wakes who waits
            os.write(descriptor, text)
            time.sleep(0.05)
            os.close(descriptor)
            aside.unlink()

    try:
        yield let_go
    finally:
        let_go()
