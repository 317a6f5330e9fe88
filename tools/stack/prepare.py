# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``python3 -m stack.prepare``: fetch and build what the stack needs before the project's own packages are installed.

Needs nothing but Python's library, so that both installations run at the same time.
"""

from __future__ import annotations

import sys

from stack import environment, guest
from stack.errors import StackError


def main() -> int:
    """Fill the cache; return the exit status."""
    try:
        environment.services_python()
        guest.build()
    except StackError as exc:
        print(f"quickstart: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
