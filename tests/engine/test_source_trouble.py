"""A source that cannot be read, or moves while it is read."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from program import NOBODY, run
from runs import Nights

from mirrorback.errors import Trouble
from mirrorback.store import content, reading, system

SECRET = "a secret outside of the source"
as_another = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


@pytest.fixture
def theirs(tmp_path: Path) -> tuple[Path, Path]:
    """A source and a place for a repository that belong to nobody."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o005 != 0o005 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o005)
    source, drive = tmp_path / "theirs", tmp_path / "their-drive"
    for folder in (source, drive, source / "d"):
        folder.mkdir()
        os.chown(folder, NOBODY, NOBODY)
    for name in ("f", "g", "d/h"):
        (source / name).write_text("first " + name)
        os.chown(source / name, NOBODY, NOBODY)
    time.sleep(0.03)
    return source, drive / "repository"


@as_another
def test_an_unreadable_file_keeps_its_last_version(theirs: tuple[Path, Path]) -> None:
    source, repository = theirs
    run("backup", "--init", source, repository, uid=NOBODY)
    (source / "f").write_text("second, which nobody may read")
    os.chown(source / "f", 0, 0)
    (source / "f").chmod(0o600)
    (source / "g").write_text("second")
    done = run("backup", source, repository, "--json", uid=NOBODY, code=3)
    assert done.summary["files_stale"] == 1
    assert done.summary["files_removed"] == 0
    assert done.summary["errors"] == 1
    assert [m["path"] for m in done.messages if m["message_type"] == "error"] == ["f"]
    assert (repository / "current" / "f").read_text() == "first f"
    assert (repository / "current" / "g").read_text() == "second"
    snapshots = run("snapshots", repository, "--json", uid=NOBODY).json
    assert [s["incomplete"] for s in snapshots] == [False, True]
    (source / "f").chmod(0o644)
    done = run("backup", source, repository, "--json", uid=NOBODY)
    assert done.summary["files_stale"] == 0
    assert (repository / "current" / "f").read_text() == "second, which nobody may read"


@as_another
def test_an_unreadable_folder_keeps_what_it_held(theirs: tuple[Path, Path]) -> None:
    source, repository = theirs
    run("backup", "--init", source, repository, uid=NOBODY)
    os.chown(source / "d", 0, 0)
    (source / "d").chmod(0o700)
    done = run("backup", source, repository, "--json", uid=NOBODY, code=3)
    assert done.summary["files_removed"] == 0
    assert (repository / "current" / "d" / "h").read_text() == "first d/h"
    (source / "d").chmod(0o755)
    run("backup", source, repository, uid=NOBODY)
    assert (repository / "current" / "d" / "h").read_text() == "first d/h"


@as_another
def test_hard_links_come_together_when_a_folder_can_be_read_again(
    theirs: tuple[Path, Path],
) -> None:
    source, repository = theirs
    os.link(source / "f", source / "d" / "linked")
    time.sleep(0.03)
    run("backup", "--init", source, repository, uid=NOBODY)
    (source / "f").write_text("second")
    os.chown(source / "d", 0, 0)
    (source / "d").chmod(0o700)
    time.sleep(0.03)
    run("backup", source, repository, uid=NOBODY, code=3)
    os.chown(source / "d", NOBODY, NOBODY)
    time.sleep(0.03)
    run("backup", source, repository, uid=NOBODY)
    assert (repository / "current/d/linked").samefile(repository / "current/f")


@as_another
def test_a_new_file_that_cannot_be_read_is_named(theirs: tuple[Path, Path]) -> None:
    source, repository = theirs
    (source / "new").write_text("x")
    (source / "new").chmod(0)
    os.chown(source / "new", 0, 0)
    done = run("backup", "--init", source, repository, uid=NOBODY, code=3)
    assert "new: permission denied" in done.err
    assert not (repository / "current" / "new").exists()
    assert run("backup", source, repository, uid=NOBODY, code=3)  # told again, every night


@as_another
def test_an_unreadable_source_is_no_empty_one(theirs: tuple[Path, Path]) -> None:
    source, repository = theirs
    run("backup", "--init", source, repository, uid=NOBODY)
    os.chown(source, 0, 0)
    source.chmod(0o700)
    run("backup", source, repository, uid=NOBODY, code=1)
    assert (repository / "current" / "f").read_text() == "first f"


@as_another
def test_without_root_what_cannot_be_kept_is_counted(theirs: tuple[Path, Path]) -> None:
    source, repository = theirs
    (source / "roots").write_text("x")
    os.chown(source / "roots", 0, 0)
    (source / "roots").chmod(0o4755)
    os.mknod(source / "device", 0o644 | stat.S_IFCHR, os.makedev(1, 3))
    done = run("backup", "--init", source, repository, "--json", uid=NOBODY)
    assert done.summary["not_kept"] == {"devices": 1, "ownership": 1}
    held = (repository / "current" / "roots").stat()
    assert held.st_uid == NOBODY
    assert not held.st_mode & stat.S_ISUID  # it would be a gift to that user
    listed = {e["path"]: e for e in run("ls", repository, "--json", uid=NOBODY).json}
    assert listed["roots"]["mode"] == "4755"
    assert listed["device"]["type"] == "device"
    restored = repository.parent / "restored"
    run("restore", repository, "--to", restored)  # as root it all comes back
    assert (restored / "roots").stat().st_uid == 0
    assert (restored / "roots").stat().st_mode & 0o7777 == 0o4755
    assert (restored / "device").stat().st_rdev == os.makedev(1, 3)
    assert run("backup", source, repository, "--json", uid=NOBODY).summary["unchanged"]


# --- while it is read ---------------------------------------------------------------


@pytest.fixture
def known(nights: Nights) -> Nights:
    """A night with one file, which has changed since."""
    (nights.source / "f").write_text("first")
    (nights.source / "other").write_text("other")
    time.sleep(0.03)
    nights.backup()
    (nights.source / "f").write_text("second")
    return nights


def before_opening(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Let something happen between the listing of a folder and the reading of `f`."""
    original = system.open_quietly
    done = threading.Event()

    def open_quietly(name: bytes, flags: int, dir_fd: int) -> int:
        if name == b"f" and not done.is_set():
            done.set()
            act()
        return original(name, flags, dir_fd)

    monkeypatch.setattr(system, "open_quietly", open_quietly)


def test_a_file_that_vanishes_keeps_its_last_version(
    known: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_opening(monkeypatch, (known.source / "f").unlink)
    summary = known.backup().summary
    assert (summary.files_stale, summary.errors, summary.files_removed) == (1, 1, 0)
    assert (known.current / "f").read_text() == "first"
    monkeypatch.undo()
    assert known.backup().summary.files_removed == 1


def test_a_new_file_that_vanishes_is_a_warning(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nights.source / "f").write_text("x")
    before_opening(monkeypatch, (nights.source / "f").unlink)
    assert nights.backup().summary.errors == 0
    assert [path for _message, path in nights.heard.warnings] == [b"f"]


def put_symlink(path: Path, aim: Path) -> None:
    path.unlink()
    path.symlink_to(aim)


def put_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("first", [True, False])
def test_a_symlink_swapped_in_leads_nowhere(
    known: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    outside = tmp_path / "outside"
    outside.write_text(SECRET)
    if first:
        (known.source / "f").rename(known.source / "g")
        (known.source / "f").write_text("a new one")
    before_opening(monkeypatch, lambda: put_symlink(known.source / "f", outside))
    known.backup()
    for path in known.repository.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.name != "catalog.db":
            assert SECRET.encode() not in path.read_bytes()


def test_a_fifo_swapped_in_does_not_hang(known: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    before_opening(monkeypatch, lambda: put_fifo(known.source / "f"))
    assert known.backup().summary.files_stale == 1
    assert (known.current / "f").read_text() == "first"


def test_a_folder_swapped_for_a_symlink_leads_nowhere(
    nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text(SECRET)
    inside = nights.source / "d"
    inside.mkdir()
    (inside / "f").write_text("inside")

    def swap(folder: bytes) -> None:
        if inside.is_dir() and not inside.is_symlink():
            inside.rename(tmp_path / "away")
            inside.symlink_to(outside)

    from mirrorback.store import tree

    opened = tree.Cursor.open

    def open_(self: tree.Cursor, path: bytes) -> int:
        if path == b"d":
            swap(path)
        return opened(self, path)

    monkeypatch.setattr(tree.Cursor, "open", open_)
    summary = nights.backup().summary
    assert summary.errors == 1
    assert not (nights.current / "d" / "f").exists()


def changing(
    monkeypatch: pytest.MonkeyPatch, path: Path, times: int, change: Callable[[], None]
) -> None:
    """Change a file each time that it has been read, so many times."""
    left = [times]
    original = os.pread
    number = path.stat().st_ino

    def pread(fd: int, count: int, offset: int) -> bytes:
        data = original(fd, count, offset)
        if left[0] and os.fstat(fd).st_ino == number:
            left[0] -= 1
            change()
        return data

    monkeypatch.setattr(os, "pread", pread)


def grow(path: Path) -> Callable[[], None]:
    def more() -> None:
        with path.open("a") as file:
            file.write("more")

    return more


@pytest.mark.parametrize("times", [1, 2])
def test_a_file_that_changes_while_read_is_read_again(
    known: Nights, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    path = known.source / "f"
    changing(monkeypatch, path, times, grow(path))
    summary = known.backup().summary
    assert (summary.files_changed, summary.errors) == (1, 0)
    assert known.heard.warnings == []
    assert (known.current / "f").read_text() == "second" + "more" * times


def test_a_file_that_never_rests_is_kept_with_a_warning(
    known: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = known.source / "f"
    changing(monkeypatch, path, 1000, grow(path))
    summary = known.backup().summary
    assert (summary.files_changed, summary.errors) == (1, 0)
    assert [p for _m, p in known.heard.warnings] == [b"f"]
    monkeypatch.undo()
    assert known.backup().summary.files_changed == 1  # it is not trusted, but read again
    assert (known.current / "f").read_text() == path.read_text()


def test_a_file_that_shrinks_while_read(known: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    path = known.source / "f"
    changing(monkeypatch, path, 1, lambda: os.truncate(path, 3))
    known.backup()
    assert (known.current / "f").read_text() == "sec"


def test_a_file_that_fails_in_the_middle_keeps_its_last_version(
    known: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a disk with a bad sector."""
    number = (known.source / "f").stat().st_ino
    original = os.pread

    def pread(fd: int, count: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == number:
            raise OSError(5, "Input/output error")
        return original(fd, count, offset)

    monkeypatch.setattr(os, "pread", pread)
    summary = known.backup().summary
    assert (summary.files_stale, summary.errors) == (1, 1)
    assert (known.current / "f").read_text() == "first"


def test_a_source_that_cannot_be_listed_is_no_removal(
    known: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = known.source / "d"
    folder.mkdir()
    (folder / "x").write_text("x")
    known.backup()
    original: Any = os.scandir
    number = folder.stat().st_ino

    def scandir(fd: Any) -> Any:
        if isinstance(fd, int) and os.fstat(fd).st_ino == number:
            raise OSError(5, "Input/output error")
        return original(fd)

    monkeypatch.setattr(os, "scandir", scandir)
    summary = known.backup().summary
    assert (summary.files_removed, summary.errors, summary.files_stale) == (0, 1, 1)
    assert (known.current / "d" / "x").read_text() == "x"


def test_the_drive_failing_is_no_trouble_of_the_source(
    known: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = content.write_all

    def write_all(fd: int, data: bytes, offset: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(content, "write_all", write_all)
    from mirrorback.errors import DriveError

    with pytest.raises(DriveError):
        known.backup()
    monkeypatch.setattr(content, "write_all", original)
    assert (known.current / "f").read_text() == "first"
    assert known.backup().summary.files_changed == 1


def test_open_file_refuses_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(Trouble):
            reading.open_file(fd, b"fifo")
        assert system.open_quietly(b".", os.O_RDONLY, fd)
    finally:
        os.close(fd)
