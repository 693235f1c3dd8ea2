"""Names that a drive cannot hold: told, each of them, and nothing else is kept from the backup."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filesystems import mounted, require_root
from runs import Nights

from mirrorback.store.nameable import Nameable

REFUSED = [b"a:b", b'say "x"', b"d:x", b"back\\slash", b"end.", b"tab\t", b"what?"]
PLAIN = ["readme.txt", "ä", "-rf", ".hidden", "a b", "icon", "communal", "~", "é" * 60]


@pytest.fixture
def narrow(tmp_path: Path) -> Nights:
    """A source with names that only some drives take."""
    nights = Nights(tmp_path / "source", tmp_path / "ntfs" / "drive")
    nights.source.mkdir()
    for name in PLAIN:
        (nights.source / name).write_text(name)
    return nights


def test_a_name_that_the_drive_cannot_hold_stops_nothing_else(
    narrow: Nights, tmp_path: Path
) -> None:
    require_root()
    options = "permissions,streams_interface=xattr,windows_names"
    with mounted("ntfs", tmp_path, options=options):
        narrow.backup()
        assert narrow.heard.errors == []
        for name in REFUSED:
            path = os.path.join(os.fsencode(narrow.source), name)
            if name == b"d:x":
                os.makedirs(os.path.join(path, b"deeper"))
            else:
                os.close(os.open(path, os.O_CREAT))
        (narrow.source / "new").write_text("new")
        summary = narrow.backup().summary
        assert summary.errors == len(REFUSED)
        assert {path for _message, path in narrow.heard.errors} == set(REFUSED)
        assert {path.name for path in narrow.current.iterdir()} == {*PLAIN, "new"}
        (narrow.source / "readme.txt").rename(narrow.source / "read:me")
        assert narrow.backup().summary.errors == len(REFUSED) + 1  # told every night
        assert narrow.problems() == []


def test_a_drive_that_takes_all_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        names = Nameable(folder)
        assert names.holds(REFUSED[0])
        monkeypatch.setattr(os, "open", None)
        for name in (*REFUSED, b"\xff", b"x" * 255, b"con"):
            assert names.holds(name)
    finally:
        os.close(folder)
    assert os.listdir(tmp_path) == []


def test_plain_names_are_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        asked: list[bytes] = []

        def refuse(self: Nameable, name: bytes) -> bool:
            asked.append(name)
            return False

        monkeypatch.setattr(Nameable, "_takes", refuse)
        names = Nameable(folder)
        assert all(names.holds(name.encode()) for name in PLAIN)
        assert asked == []
        odd = [*REFUSED, b"\xff", b"x" * 200, b"CON", b"nul.txt", b"com1"]
        assert not any(names.holds(name) for name in odd)
        assert asked[1:] == odd  # the first is for all of them
    finally:
        os.close(folder)
