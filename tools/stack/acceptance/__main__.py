# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``tools/acceptance``: run the stories, say how it went."""

from __future__ import annotations

import argparse
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from stack import progress
from stack.acceptance import operators, sdk, servers
from stack.acceptance.run import Run, StoryEndedError
from stack.quickstart import DEFAULT_STATE_DIR

STORIES = {
    "flavors": operators.flavors,
    "hosts": operators.hosts,
    "projects": operators.projects,
    "placement": operators.placement,
    "accelerators": servers.accelerators,
    "life": servers.life,
    "images": servers.images,
    "moves": servers.moves,
    "sdk-compute": sdk.compute,
    "sdk-placement": sdk.placement,
    "sdk-image": sdk.image,
}


def main(argv: list[str] | None = None) -> int:
    """Run the stories; return the exit status: 0 when no command failed."""
    arguments = _parser().parse_args(argv)
    if not (arguments.state_dir / "clouds.yaml").exists():
        print(f"acceptance: there is no stack in {arguments.state_dir}: run tools/quickstart first", file=sys.stderr)
        return 1
    run = Run(arguments.state_dir.absolute())
    try:
        for name in arguments.story or STORIES:
            progress.say(f"--- {name}")
            with suppress(StoryEndedError):
                STORIES[name](run)
    finally:
        shutil.rmtree(run.directory)
    progress.say("")
    if run.unsupported:
        progress.say(f"not supported yet: {', '.join(run.unsupported)}")
    if run.failed:
        progress.say(f"failed: {', '.join(run.failed)}")
    progress.say(f"{len(run.passed)} passed, {len(run.failed)} failed")
    return 1 if run.failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/acceptance",
        description="Run the openstack client's commands, and openstacksdk's calls, against the stack of "
        "tools/quickstart, and look at its domains, images and records whether each did what it says. Takes some "
        "fifteen minutes; what it makes, it removes.",
        epilog="Example: tools/quickstart start && tools/acceptance",
    )
    parser.add_argument("story", nargs="*", choices=[*STORIES, []], help=f"of {', '.join(STORIES)}; default: all")
    parser.add_argument("--state-dir", type=Path, default=DEFAULT_STATE_DIR, metavar="DIR", help="default: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
