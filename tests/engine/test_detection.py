"""Changes are found where size and mtime do not tell, and nothing is written where
there are none."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from runs import Nights
from trees import describe, require_same

OLD = 1_600_000_000_123_456_789


def settle() -> None:
    """Let the clock's tick pass in which a change could hide."""
    time.sleep(0.03)


def write(path: Path, content: str, mtime: int | None = OLD) -> None:
    path.write_text(content)
    if mtime is not None:
        os.utime(path, ns=(mtime, mtime))


def test_content_changed_with_size_and_mtime_put_back(nights: Nights) -> None:
    path = nights.source / "f"
    write(path, "one")
    settle()
    nights.backup()
    write(path, "two")
    assert nights.backup().summary.files_changed == 1
    assert (nights.current / "f").read_text() == "two"
    assert (nights.folders()[0] / "f").read_text() == "one"


def test_replaced_by_another_inode_of_equal_size_and_time(nights: Nights) -> None:
    write(nights.source / "f", "one")
    settle()
    nights.backup()
    write(nights.source / "g", "two")
    os.replace(nights.source / "g", nights.source / "f")
    summary = nights.backup().summary
    assert (summary.files_changed, summary.files_removed) == (1, 0)
    assert (nights.current / "f").read_text() == "two"


@pytest.mark.parametrize("attempt", range(5))
def test_changed_in_the_tick_in_which_it_was_read(nights: Nights, attempt: int) -> None:
    path = nights.source / "f"
    write(path, "one", None)
    nights.backup()
    write(path, "two", None)
    nights.backup()
    assert (nights.current / "f").read_text() == "two"


def test_changed_in_the_same_second(nights: Nights) -> None:
    path = nights.source / "f"
    write(path, "one", OLD)
    settle()
    nights.backup()
    write(path, "two", OLD + 1)
    assert nights.backup().summary.files_changed == 1


def test_a_touch_alone_is_metadata(nights: Nights) -> None:
    path = nights.source / "f"
    write(path, "one")
    settle()
    nights.backup()
    os.utime(path, ns=(OLD + 7, OLD + 7))
    settle()
    summary = nights.backup().summary
    assert (summary.files_changed, summary.files_metadata) == (0, 1)
    assert summary.bytes_copied == 0


def test_a_ctime_alone_makes_no_snapshot(nights: Nights) -> None:
    path = nights.source / "f"
    write(path, "one")
    settle()
    nights.backup()
    path.chmod(0o600)
    path.chmod(0o644)
    settle()
    assert nights.backup().summary.unchanged
    assert nights.folders() == []


def test_a_copied_source_with_the_same_times_is_unchanged(nights: Nights, tmp_path: Path) -> None:
    (nights.source / "d").mkdir()
    write(nights.source / "d" / "f", "one")
    shutil.copystat(nights.source / "d", nights.source)
    nights.backup()
    shutil.copytree(nights.source, tmp_path / "other")
    shutil.rmtree(nights.source)
    (tmp_path / "other").rename(nights.source)
    settle()
    assert nights.backup().summary.unchanged


def test_checksum_reads_what_no_time_stamp_tells(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose bytes changed below the file system."""
    path = nights.source / "f"
    write(path, "one")
    settle()
    nights.backup()
    read = os.pread

    def altered(fd: int, count: int, offset: int) -> bytes:
        data = read(fd, count, offset)
        return b"two" if data == b"one" else data

    monkeypatch.setattr(os, "pread", altered)
    assert nights.backup().summary.unchanged
    assert nights.backup(checksum=True).summary.files_changed == 1
    monkeypatch.undo()
    assert (nights.current / "f").read_text() == "two"


def test_when_nothing_changed_only_the_catalog_is_written(nights: Nights) -> None:
    (nights.source / "d").mkdir()
    write(nights.source / "d" / "f", "one")
    settle()
    nights.backup()
    nights.backup()  # what was too young to be trusted has been looked at again
    before = describe(nights.repository)
    entries = {path: path.stat().st_ctime_ns for path in nights.repository.rglob("*")}
    assert nights.backup().summary.unchanged
    changed = {
        path.name
        for path in nights.repository.rglob("*")
        if entries.get(path) != path.stat().st_ctime_ns
    }
    assert changed <= {"catalog.db", "catalog.blake3", ".mirrorback", "lock"}
    after = describe(nights.repository)
    kept = {p for p in before if not p.startswith(b".mirrorback") and p != b""}
    require_same({p: before[p] for p in kept}, {p: after[p] for p in kept})


def test_always_makes_a_snapshot_of_links_alone(nights: Nights) -> None:
    write(nights.source / "f", "one")
    settle()
    nights.backup()
    summary = nights.backup(always=True).summary
    assert not summary.unchanged
    assert summary.bytes_written == 0
    assert (nights.folders()[0] / "f").stat().st_ino == (nights.current / "f").stat().st_ino


def test_access_times_are_left_alone(nights: Nights) -> None:
    path = nights.source / "f"
    write(path, "one")
    os.utime(path, ns=(5, OLD))
    (nights.source / "d").mkdir()
    os.utime(nights.source / "d", ns=(5, OLD))
    nights.backup()
    nights.backup(checksum=True)
    assert path.stat().st_atime_ns == 5
    assert (nights.source / "d").stat().st_atime_ns == 5
