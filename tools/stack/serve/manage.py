# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Run a service's own management commands in forks of this process: importing its libraries once takes long enough."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable


def in_child(what: str, call: Callable[[], object]) -> None:
    """Run ``call`` in a fork.

    :raises SystemExit: when it failed; its output is in this process's
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            call()
            status = 0
        except SystemExit as exc:
            status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        except BaseException:  # the fork must not go on as its parent
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        sys.exit(f"{what} failed")
