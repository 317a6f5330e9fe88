# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The documentation speaks of what there is."""

from __future__ import annotations

import doctest
import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from accelsched import conf as options

TOP = Path(__file__).resolve().parents[2]
PAGES = [TOP / "README.rst", *sorted((TOP / "doc/source").rglob("*.rst"))]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
SCRIPTS = sorted(PROJECT["scripts"])
# Names that look like commands: an RPC topic, the user's cloud and the guest's image of tools/quickstart.
NOT_COMMANDS = {"accelsched-controller", "accelsched-demo", "accelsched-guest", "accelsched-tests"}

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(TOP)))


def mentioned(path: Path, pattern: str) -> Iterator[str]:
    return (match.group(1) for match in re.finditer(pattern, path.read_text()))


@page
def test_tools_that_are_mentioned_exist(path: Path) -> None:
    missing = {
        name for name in mentioned(path, r"(?<![\w/.-])(tools/[\w./-]*\w)") if not (TOP / name.split()[0]).exists()
    }
    assert not missing


@page
def test_files_of_the_project_that_are_mentioned_exist(path: Path) -> None:
    pattern = r"(?<![\w/.-])((?:accelsched|tests|migrations|etc|doc)/[\w./-]*\w\.(?:py|conf|yaml|sample|rst|toml))"
    assert not {name for name in mentioned(path, pattern) if not (TOP / name).exists()}


@page
def test_commands_that_are_mentioned_are_installed(path: Path) -> None:
    names = set(mentioned(path, r"(?<![\w/.-])(accelsched-[a-z]+)(?![\w./-])"))
    assert names <= {*SCRIPTS, *NOT_COMMANDS}


@page
def test_options_that_are_mentioned_exist(path: Path) -> None:
    conf = options.new()
    own = {group for group, _ in options.list_opts()}
    pairs = re.findall(r"``\[(\w+)\] (\w+)", path.read_text())
    assert not [(g, o) for g, o in pairs if g in own and o not in (conf if g == "DEFAULT" else conf[g])]


@page
def test_own_sections_of_configuration_examples_hold_known_options(path: Path) -> None:
    conf = options.new()
    own = {group for group, _ in options.list_opts()} - {"glance"}  # keystoneauth's depend on auth_type
    unknown, group = [], ""
    for line in path.read_text().splitlines():
        if match := re.fullmatch(r"\s+\[(\w+)\]", line):
            group = match[1]
        elif not line.strip().startswith("#") and (match := re.fullmatch(r"\s+(\w+) = .*", line)):
            if group in own and match[1] not in (conf if group == "DEFAULT" else conf[group]):
                unknown.append((group, match[1]))
        elif line and not line.startswith(" "):
            group = ""
    assert not unknown


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_has_help_with_an_example(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    (entry_point,) = metadata.entry_points(group="console_scripts", name=script)
    with pytest.raises(SystemExit) as ended:
        entry_point.load()(["--help"])
    assert ended.value.code in (0, None)
    assert f"Example: {script}" in capsys.readouterr().out


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_is_in_the_reference(script: str) -> None:
    assert f"``{script}``" in (TOP / "doc/source/reference/commands.rst").read_text()


def test_every_plugin_is_in_the_reference() -> None:
    text = (TOP / "doc/source/reference/plugins.rst").read_text()
    groups = {group: names for group, names in PROJECT["entry-points"].items() if group.startswith("accelsched.")}
    assert not [name for names in groups.values() for name in names if f"``{name}``" not in text]
    assert not [group for group in groups if f"``{group}``" not in text]


def test_every_metric_is_in_the_reference() -> None:
    metrics = (TOP / "doc/source/reference/metrics.rst").read_text()
    declared = re.compile(r'(?:Counter|Gauge|Histogram|Summary)\(\s*"(accelsched_\w+)"')
    names = {name for path in (TOP / "accelsched").rglob("*.py") for name in declared.findall(path.read_text())}
    assert names
    assert not [name for name in names if name not in metrics]


def test_naming_rules_are_as_the_reference_shows_them() -> None:
    failed, tried = doctest.testfile(str(TOP / "doc/source/reference/names.rst"), module_relative=False)
    assert tried
    assert not failed
