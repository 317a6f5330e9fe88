# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or not there, and directories of a known mode."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def write(path: Path, content: str | bytes, mode: int = 0o644) -> bool:
    """Put ``content`` at ``path`` in one step; return whether that changed anything.

    The file never exists with a wider mode than asked for, nor half written.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        if path.read_bytes() == data and path.stat().st_mode & 0o777 == mode:
            return False
    except OSError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.chmod(mode)
    temporary.replace(path)
    return True


def directory(path: Path, mode: int = 0o755) -> Path:
    """Make the directory and its parents; give it ``mode`` whatever the umask."""
    path.mkdir(parents=True, exist_ok=True)
    if path.stat().st_mode & 0o777 != mode:
        path.chmod(mode)
    return path
