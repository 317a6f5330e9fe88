# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Files are whole, of the mode asked for, and passwords stay in theirs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stack import files
from stack.passwords import Passwords


def test_a_written_file_has_its_mode_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    assert files.write(target, "text", mode=0o600)
    assert target.read_text() == "text"
    assert target.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_writing_the_same_again_changes_nothing(tmp_path: Path) -> None:
    files.write(tmp_path / "file", "text")
    before = (tmp_path / "file").stat().st_ino
    assert not files.write(tmp_path / "file", "text")
    assert (tmp_path / "file").stat().st_ino == before


def test_a_file_of_too_wide_a_mode_is_narrowed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    assert files.write(tmp_path / "file", "text", mode=0o600)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_a_password_is_long_kept_and_private(tmp_path: Path) -> None:
    path = tmp_path / "passwords.json"
    password = Passwords(path).get("admin")
    assert len(password) >= 40
    assert Passwords(path).get("admin") == password
    assert Passwords(path).get("demo") != password
    assert path.stat().st_mode & 0o777 == 0o600


def test_passwords_do_not_show_in_a_log(tmp_path: Path) -> None:
    passwords = Passwords(tmp_path / "passwords.json")
    password = passwords.get("admin")
    assert password not in f"{passwords!r} {passwords}"


def test_passwords_asked_for_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "passwords.json"
    users = [f"user{number}" for number in range(16)]
    with ThreadPoolExecutor(max_workers=8) as pool:
        first = list(pool.map(lambda user: Passwords(path).get(user), users))
    assert [Passwords(path).get(user) for user in users] == first
