"""Sources without an end, with the same names twice, or with mounts that turn back or go away."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from filesystems import require_root
from runs import Nights
from trees import describe, require_same

from mirrorback.engine import listing
from mirrorback.engine.build import Build
from mirrorback.store import tree


class Again:
    """What `os.scandir` gives, with everything listed `times` times."""

    def __init__(self, entries: Any, times: int) -> None:
        self._entries, self._times = entries, times

    def __enter__(self) -> Iterator[Any]:
        found = list(self._entries)
        return (entry for _ in range(self._times) for entry in found)

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._entries.close()


def listed_again(monkeypatch: pytest.MonkeyPatch, folder: Path, times: int) -> None:
    """One folder of the source is listed so that its entries come so many times."""
    original: Any = os.scandir
    number = folder.stat().st_ino

    def scandir(target: Any) -> Any:
        found = original(target)
        if isinstance(target, int) and os.fstat(target).st_ino == number:
            return Again(found, times)
        return found

    monkeypatch.setattr(os, "scandir", scandir)


def test_names_that_are_listed_twice_come_once(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As network file systems do, and others where names change meanwhile."""
    (nights.source / "d").mkdir()
    (nights.source / "f").write_text("f")
    (nights.source / "link").symlink_to("f")
    (nights.source / "d" / "inner").write_text("x")
    listed_again(monkeypatch, nights.source, 2)
    summary = nights.backup().summary
    assert (summary.files_new, summary.dirs, summary.errors) == (3, 2, 0)
    assert nights.backup().summary.unchanged
    monkeypatch.undo()
    assert nights.backup().summary.unchanged
    require_same(describe(nights.source), describe(nights.current))


def test_a_listing_without_an_end_is_told(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    (nights.source / "d").mkdir()
    (nights.source / "d" / "inner").write_text("first")
    (nights.source / "other").write_text("other")
    nights.backup()
    (nights.source / "other").write_text("then")
    monkeypatch.setattr(tree, "MOST_ENTRIES", 1000)
    listed_again(monkeypatch, nights.source / "d", 1 << 62)
    summary = nights.backup().summary
    assert nights.heard.errors == [("lists more than 1,000 entries", b"d")]
    assert (summary.files_stale, summary.files_changed) == (1, 1)
    assert (nights.current / "d" / "inner").read_text() == "first"


def test_levels_without_an_end_are_told(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_LEVELS", 5)
    deep = nights.source.joinpath(*"abcdefg")
    deep.mkdir(parents=True)
    (deep / "f").write_text("x")
    (nights.source / "a" / "f").write_text("x")
    summary = nights.backup().summary
    assert [path for _message, path in nights.heard.errors] == [b"a/b/c/d/e/f"]
    assert summary.files_new == 1
    assert [s.incomplete for s in nights.history().snapshots()] == [True]
    monkeypatch.undo()
    assert nights.backup().summary.files_new == 1
    require_same(describe(nights.source), describe(nights.current))


# --- mounts ------------------------------------------------------------------------------


@contextlib.contextmanager
def bound(what: Path, point: Path) -> Iterator[None]:
    """A folder that stands at another place too."""
    require_root()
    subprocess.run(["mount", "--bind", what, point], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)


def test_a_source_that_is_mounted_in_itself_ends(nights: Nights, tmp_path: Path) -> None:
    again = nights.source / "d" / "again"
    again.mkdir(parents=True)
    (nights.source / "f").write_text("f")
    (nights.source / "g").write_text("g")
    os.link(nights.source / "g", nights.source / "h")
    with bound(nights.source, again):
        assert nights.backup().summary.errors == 0
        assert (nights.current / "d" / "again" / "f").read_text() == "f"
        assert nights.backup().summary.unchanged
        (nights.source / "f").write_text("later")
        nights.backup()
        assert (nights.current / "d" / "again" / "f").read_text() == "later"
        assert nights.problems() == []
        nights.restore(tmp_path / "out")
        assert (tmp_path / "out" / "d" / "again" / "h").read_text() == "g"
    assert nights.backup().summary.files_removed == 3
    assert nights.problems() == []


@pytest.mark.parametrize("whole", [True, False])
def test_a_repository_that_is_mounted_in_the_source_is_left_out(
    tmp_path: Path, whole: bool
) -> None:
    """Itself, or with the folder that it lies in."""
    source, drive = tmp_path / "source", tmp_path / "drives"
    nights = Nights(source, drive / "drive")
    (source / "m").mkdir(parents=True)
    drive.mkdir()
    (drive / "beside").write_text("x")
    (source / "f").write_text("f")
    nights.backup()
    with bound(drive if whole else nights.repository, source / "m"):
        nights.backup(always=True)
        assert nights.backup(always=True).summary.errors == 0
        held = [path.name for path in nights.current.rglob("*")]
        # What stands for a mount point has the inode of what is mounted there.
        assert sorted(held) == (["beside", "f", "m"] if whole else ["f"])


def test_a_source_that_is_a_symlink(nights: Nights, tmp_path: Path) -> None:
    (nights.source / "f").write_text("f")
    link = tmp_path / "link"
    link.symlink_to(nights.source)
    by_link = Nights(link, nights.repository)
    by_link.backup()
    assert (nights.current / "f").read_text() == "f"
    assert nights.backup().summary.unchanged


def test_a_mount_that_goes_away_is_no_removal(
    nights: Nights, ext4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the survey, when its files are to be read."""
    point = nights.source / "m"
    point.mkdir()
    for name in ("one", "two"):
        (ext4 / name).write_text(name)
    (nights.source / "f").write_text("f")
    with bound(ext4, point):
        nights.backup()
        for path in (ext4 / "one", ext4 / "new", nights.source / "f"):
            path.write_text("second")
        original: Any = Build.run

        def run(self: Build, *arguments: Any) -> Any:
            subprocess.run(["umount", "--lazy", point], check=True)
            return original(self, *arguments)

        monkeypatch.setattr(Build, "run", run)
        summary = nights.backup().summary
    assert summary.files_removed == 0
    assert summary.files_stale >= 1
    assert (nights.current / "f").read_text() == "second"
    assert (nights.current / "m" / "one").read_text() == "one"
    assert (nights.current / "m" / "two").read_text() == "two"
    assert not (nights.current / "m" / "new").exists()
    monkeypatch.undo()
    assert nights.problems() == []
