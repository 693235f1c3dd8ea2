"""A folder of very many entries, and 1,000 levels, by every command.

`make hostile` gives the folder 100,000 entries.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounts import mounted, require_fuse
from program import run
from runs import Nights

from mirrorback.model import ChangeKind

LEVELS = 1000
NAME = b"a folder of a name that is long enough"  # 39,000 bytes; a path may have 4,096
DEEP = b"/".join([NAME] * LEVELS)
MANY = int(os.environ.get("MIRRORBACK_ENTRIES", "20000"))


@pytest.fixture(autouse=True)
def cleared(tmp_path: Path) -> Iterator[None]:
    """What is made is removed by a program that can: shutil's way takes a frame a level."""
    yield
    subprocess.run(["rm", "-rf", *tmp_path.iterdir()], check=True)


def deepest(top: Path, *, make: bool = False) -> int:
    """A descriptor of the last level."""
    fd = os.open(top, os.O_RDONLY)
    for _ in range(LEVELS):
        if make:
            os.mkdir(NAME, dir_fd=fd)
        below = os.open(NAME, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)
        os.close(fd)
        fd = below
    return fd


def write(top: Path, content: bytes, *, make: bool = False) -> None:
    folder = deepest(top, make=make)
    fd = os.open(b"f", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, dir_fd=folder)
    os.write(fd, content)
    os.close(fd)
    os.close(folder)


def read(top: Path) -> bytes:
    folder = deepest(top)
    fd = os.open(b"f", os.O_RDONLY, dir_fd=folder)
    content = os.read(fd, 100)
    os.close(fd)
    os.close(folder)
    return content


def test_a_thousand_levels(nights: Nights, tmp_path: Path) -> None:
    write(nights.source, b"first", make=True)
    time.sleep(0.03)
    nights.backup()
    write(nights.source, b"then")
    assert nights.backup().summary.files_changed == 1
    assert nights.backup().summary.unchanged
    assert (read(nights.folders()[0]), read(nights.current)) == (b"first", b"then")
    repository = nights.repository
    assert len(run("ls", "-R", repository, "--json").json) == LEVELS + 1
    assert len(run("versions", repository, DEEP + b"/f", "--json").json) == 2
    assert len(run("find", repository, "f", "--json").json) == 2
    assert len(run("diff", repository, "1B", "--json").json) == 1
    assert run("cat", repository, DEEP + b"/f", "--at", "1B").out == "first"
    run("stats", repository)
    nights.restore(tmp_path / "one", DEEP + b"/f")
    nights.restore(tmp_path / "all", at="1B")
    assert (read(tmp_path / "one"), read(tmp_path / "all")) == (b"then", b"first")
    run("restore", repository, "--in-place", "--at", "1B", "--no-keep")
    assert read(nights.source) == b"first"
    assert nights.problems() == []
    run("rebuild", repository, "--force")
    assert nights.problems() == []
    nights.delete(nights.folders()[0].name)
    assert nights.folders() == []


def test_a_thousand_levels_in_a_view(nights: Nights, tmp_path: Path) -> None:
    require_fuse()
    write(nights.source, b"first", make=True)
    nights.backup()
    with mounted(nights.repository, tmp_path / "view"):
        assert read(tmp_path / "view" / "current") == b"first"


def test_a_folder_of_very_many(nights: Nights, tmp_path: Path) -> None:
    folder = nights.source / "d"
    folder.mkdir()
    for number in range(MANY):
        (folder / f"{number}").touch()
    time.sleep(0.03)
    assert nights.backup().summary.files_new == MANY
    assert nights.backup().summary.unchanged
    (folder / "7").write_text("later")
    (folder / "8").unlink()
    (folder / "9").rename(folder / "nine")
    dry = nights.backup(dry_run=True)
    assert {change.change for change in dry.changes} == {
        ChangeKind.MODIFIED,
        ChangeKind.REMOVED,
        ChangeKind.MOVED,
    }
    summary = nights.backup().summary
    assert (summary.files_changed, summary.files_removed, summary.files_moved) == (1, 1, 1)
    assert nights.problems() == []
    nights.restore(tmp_path / "out", at="1B")
    assert len(os.listdir(tmp_path / "out" / "d")) == MANY
    nights.delete(nights.folders()[0].name)
    assert len(os.listdir(nights.current / "d")) == MANY - 1
