"""A sync that fails: it is not tried again, and nothing that it should have written is believed."""

from __future__ import annotations

import errno
import mmap
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from filesystems import mounted, require_root
from runs import Nights
from trees import describe, require_same

from mirrorback.errors import DriveError
from mirrorback.store import system

NEW = random.Random(1).randbytes(1 << 20)
PIECE = 4096  # bytes


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Path]:
    """An ext4, whose image lies beside it."""
    require_root()
    with mounted("ext4", tmp_path, size=64 << 20) as point:
        yield point


def nights_with_something_new(top: Path, drive: Path) -> Nights:
    nights = Nights(top / "source", drive / "drive")
    nights.source.mkdir()
    (nights.source / "old").write_text("old")
    nights.backup()
    (nights.source / "new").write_bytes(NEW)
    return nights


def failing_backup(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> int:
    """A backup whose first sync fails; how many there were."""
    asked, really = 0, system.sync_filesystem

    def sync(fd: int) -> None:
        nonlocal asked
        asked += 1
        really(fd)
        if asked == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(system, "sync_filesystem", sync)
        with pytest.raises(DriveError):
            nights.backup()
    return asked


def test_it_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nights = nights_with_something_new(tmp_path, tmp_path)
    before = describe(nights.current)
    assert failing_backup(nights, monkeypatch) == 1
    require_same(before, describe(nights.current))
    assert nights.folders() == []
    nights.backup()
    require_same(describe(nights.source), describe(nights.current))
    assert nights.problems() == []


def test_what_it_has_lost_is_copied_anew(
    tmp_path: Path, drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system shows what was written for as long as it remembers it, and takes it for
    written: one more sync would tell nothing."""
    nights = nights_with_something_new(tmp_path, drive)
    failing_backup(nights, monkeypatch)
    [left] = nights.repository.glob(".mirrorback/incoming/new")
    lose(tmp_path / "ext4.img", NEW[-PIECE:])
    assert left.read_bytes() == NEW  # remembered
    nights.backup()
    fd = os.open(nights.current / "new", os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    require_same(describe(nights.source), describe(nights.current))
    assert nights.problems() == []


def lose(image: Path, piece: bytes) -> None:
    """Write zeros over the place where an image holds this, below the file system."""
    with image.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        at = data.find(piece)
        assert at >= 0 and at % PIECE == 0, "it is not on the drive"
        data[at : at + len(piece)] = bytes(len(piece))
        data.flush()
