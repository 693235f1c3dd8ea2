"""Files that are larger than anything: nearly all of them is a hole, and any user can make them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import run
from runs import LargeNights, Nights

MOST = (1 << 63) - 1
SHM = Path("/dev/shm")
BEYOND_EXT4 = 17 << 40  # its largest file has 16 TiB


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder on a file system that takes files of any size."""
    if not SHM.is_dir():
        pytest.skip("there is no /dev/shm")
    with tempfile.TemporaryDirectory(dir=SHM, prefix="mirrorback-") as folder:
        (Path(folder) / "source").mkdir()
        yield Path(folder)


def make(path: Path, size: int, *data: tuple[int, bytes]) -> None:
    """A file of this size that holds some bytes here and there."""
    with path.open("ab") as file:
        file.truncate(size)
    with path.open("r+b") as file:
        for offset, content in data:
            file.seek(offset)
            file.write(content)


def test_what_the_drive_cannot_hold_stops_nothing_else(memory: Path, ext4: Path) -> None:
    source, repository = memory / "source", ext4 / "drive"
    make(source / "huge", MOST)
    (source / "other").write_text("x")
    done = run("backup", "--init", source, repository, code=3)
    assert "huge: is larger than a file may be on the drive" in done.err
    assert (repository / "current" / "other").read_text() == "x"
    assert not (repository / "current" / "huge").exists()
    assert run("verify", repository, "--json").json == []


@pytest.mark.parametrize("form", ["delta", "whole"])
def test_a_large_file_that_grows_beyond_the_drive_keeps_its_last_version(
    memory: Path, ext4: Path, form: str
) -> None:
    nights = LargeNights(memory / "source", ext4 / "drive")
    nights.form = form
    make(nights.source / "image", 1 << 20, (0, b"first"))
    nights.backup()
    make(nights.source / "image", BEYOND_EXT4, (0, b"later"))
    (nights.source / "other").write_text("x")
    summary = nights.backup().summary
    assert (summary.files_stale, summary.errors, summary.files_new) == (1, 1, 1)
    assert (nights.current / "image").stat().st_size == 1 << 20
    assert (nights.current / "image").read_bytes()[:5] == b"first"
    assert list((nights.repository / ".mirrorback" / "redo").iterdir()) == []
    make(nights.source / "image", 1 << 20)
    assert nights.backup().summary.errors == 0
    assert nights.problems() == []


def test_sizes_that_no_sum_holds(memory: Path) -> None:
    nights = Nights(memory / "source", memory / "drive")
    for number in range(3):
        make(nights.source / f"huge-{number}", MOST - number, (1 << 61, b"%d" % number))
    (nights.source / "small").write_text("x")
    nights.backup()
    assert nights.backup().summary.unchanged
    make(nights.source / "huge-1", MOST - 1, (1 << 60, b"changed"))
    (nights.source / "huge-2").unlink()
    assert nights.backup().summary.files_changed == 1
    nights.restore(memory / "out", at="1B")
    for name in ("huge-0", "huge-1", "huge-2"):
        assert (memory / "out" / name).stat().st_size >= MOST - 2
    with (memory / "out" / "huge-2").open("rb") as file:
        file.seek(1 << 61)
        assert file.read(2) == b"2\0"
    for command in (["ls"], ["snapshots"], ["stats"], ["verify"], ["doctor"], ["diff", "1B"]):
        run(command[0], nights.repository, *command[1:])
    listed = run("snapshots", nights.repository, "--json").json
    assert [s["files"] for s in listed] == [4, 3]
    run("rebuild", nights.repository, "--force")
    assert nights.problems() == []
    nights.delete(nights.folders()[0].name)
    make(nights.source / "huge-0", 10)
    (nights.source / "huge-1").unlink()
    nights.backup()
    assert nights.problems() == []
