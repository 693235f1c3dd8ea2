"""What only moved is linked, and costs no copied byte."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import Nights
from trees import describe, require_same

CONTENT = "x" * 10_000


def fill(folder: Path, count: int = 5) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"f{number}").write_text(f"{folder}{number}" + CONTENT)


@pytest.fixture
def filled(nights: Nights) -> Nights:
    """A night with some folders, long enough ago to be trusted."""
    fill(nights.source / "a" / "deep")
    fill(nights.source / "b")
    (nights.source / "one").write_text(CONTENT)
    time.sleep(0.03)
    nights.backup()
    return nights


def rename_file(top: Path) -> None:
    (top / "one").rename(top / "b" / "other")


def rename_folder(top: Path) -> None:
    (top / "a").rename(top / "b" / "moved")


def nested(top: Path) -> None:
    (top / "a" / "deep").rename(top / "a" / "deeper")
    (top / "a" / "deeper" / "f1").rename(top / "a" / "deeper" / "g1")
    (top / "a").rename(top / "c")


def swap(top: Path) -> None:
    (top / "a").rename(top / "t")
    (top / "b").rename(top / "a")
    (top / "t").rename(top / "b")


def over_another(top: Path) -> None:
    os.replace(top / "one", top / "b" / "f0")


def with_metadata(top: Path) -> None:
    (top / "one").rename(top / "two")
    (top / "two").chmod(0o600)


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        (rename_file, 1),
        (rename_folder, 5),
        (nested, 5),
        (swap, 10),
        (over_another, 1),
        (with_metadata, 1),
    ],
)
def test_a_move_copies_nothing(filled: Nights, change: Callable[[Path], None], moved: int) -> None:
    before = describe(filled.source)
    change(filled.source)
    summary = filled.backup().summary
    assert summary.bytes_copied == 0
    assert summary.files_moved == moved
    require_same(describe(filled.source), describe(filled.current))
    require_same(before, describe(filled.folders()[0]))


def test_a_source_whose_inodes_are_all_new_is_not_copied(filled: Nights, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", filled.source, tmp_path / "other"], check=True)
    shutil.rmtree(filled.source)
    (tmp_path / "other").rename(filled.source)
    summary = filled.backup().summary
    assert summary.bytes_copied == 0
    assert summary.files_unmodified == 11


def test_moved_and_all_inodes_new(filled: Nights, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", filled.source, tmp_path / "other"], check=True)
    shutil.rmtree(filled.source)
    (tmp_path / "other").rename(filled.source)
    (filled.source / "one").rename(filled.source / "two")
    summary = filled.backup().summary
    assert (summary.bytes_copied, summary.files_moved) == (0, 1)
    require_same(describe(filled.source), describe(filled.current))


def test_a_move_and_a_copy_in_its_place_are_two_files(filled: Nights) -> None:
    a, b = filled.source / "one", filled.source / "two"
    a.rename(b)
    subprocess.run(["cp", "-p", b, a], check=True)
    filled.backup()
    require_same(describe(filled.source), describe(filled.current))
    one, two = (filled.current / name for name in ("one", "two"))
    assert one.stat().st_ino != two.stat().st_ino


def test_a_moved_file_that_changed_too_is_copied_and_called_moved(filled: Nights) -> None:
    (filled.source / "one").rename(filled.source / "two")
    with (filled.source / "two").open("a") as file:
        file.write("more")
    summary = filled.backup().summary
    assert summary.files_moved == 1
    assert summary.files_new == summary.files_removed == 0
    assert summary.bytes_copied == len(CONTENT) + 4


def test_a_number_used_again_for_another_file_is_no_move(filled: Nights) -> None:
    """The inode of a removed file may be given to the next one made."""
    old = filled.source / "one"
    st = old.stat()
    old.unlink()
    for number in range(50):
        new = filled.source / f"new{number}"
        new.write_text("y" * len(CONTENT))
        os.utime(new, ns=(st.st_mtime_ns, st.st_mtime_ns))
        if new.stat().st_ino == st.st_ino:
            break
    filled.backup()
    require_same(describe(filled.source), describe(filled.current))


def test_a_hundred_thousandth_part_of_a_moved_tree_is_not_forgotten(nights: Nights) -> None:
    """Many more entries than the spool holds in memory, moved at once."""
    for number in range(60):
        fill(nights.source / "a" / f"d{number}", 50)
    time.sleep(0.03)
    nights.backup()
    (nights.source / "a").rename(nights.source / "z")
    summary = nights.backup().summary
    assert (summary.files_moved, summary.bytes_copied) == (3000, 0)
    require_same(describe(nights.source), describe(nights.current))


def test_a_new_hard_link_to_an_old_file(filled: Nights) -> None:
    os.link(filled.source / "one", filled.source / "again")
    summary = filled.backup().summary
    assert summary.bytes_copied == 0
    require_same(describe(filled.source), describe(filled.current))
