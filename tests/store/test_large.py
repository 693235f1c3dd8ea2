"""Large files: what is read of them, and what their holes are."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirrorback.store import system
from mirrorback.store.large import LargeFile

PAGE = 1 << 16  # a multiple of every file system's block
Make = Callable[..., int]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Make]:
    """Makes a file of pieces at their offsets and of this size, and gives a descriptor."""
    opened = []

    def make(size: int, *pieces: tuple[int, bytes]) -> int:
        fd = os.open(tmp_path / f"f{len(opened)}", os.O_CREAT | os.O_RDWR)
        opened.append(fd)
        os.ftruncate(fd, size)
        for offset, data in pieces:
            os.pwrite(fd, data, offset)
        return fd

    yield make
    for fd in opened:
        os.close(fd)


def holes_are_kept(fd: int) -> bool:
    return os.fstat(fd).st_blocks * 512 < os.fstat(fd).st_size


@pytest.mark.parametrize("window", [0, 100, 4096])
def test_what_is_read_is_what_stands_there(made: Make, window: int) -> None:
    data = random.Random(1).randbytes(3 * PAGE)
    fd = made(9 * PAGE + 5, (2 * PAGE, data), (8 * PAGE, b"end"))
    file = LargeFile(fd, window)
    whole = bytes(2 * PAGE) + data + bytes(3 * PAGE) + b"end" + bytes(PAGE + 2)
    assert file.size == len(whole)
    rng = random.Random(2)
    for _ in range(300):
        at, length = rng.randrange(len(whole)), rng.choice([1, 100, 4096, 3 * PAGE])
        wanted = whole[at : at + length].ljust(length, b"\0")
        assert file.read(at, length) == wanted
        assert file.look(at, length) == wanted


def test_holes_are_told(made: Make) -> None:
    fd = made(1 << 40, (5 * PAGE, b"x" * PAGE), ((1 << 40) - PAGE, b"y" * PAGE))
    if not holes_are_kept(fd):
        pytest.skip("no holes here")
    file = LargeFile(fd)
    assert file.sparse and file.data < 4 * PAGE
    assert file.hole(0) == 5 * PAGE and file.hole(PAGE + 1) == 4 * PAGE - 1
    assert file.hole(5 * PAGE) == file.hole(6 * PAGE - 1) == 0
    assert file.hole(6 * PAGE) == (1 << 40) - 7 * PAGE
    assert file.hole((1 << 40) - 1) == file.hole(1 << 40) == file.hole(-1) == 0
    assert file.largest_hole(10) == (6 * PAGE, (1 << 40) - 7 * PAGE)
    assert file.largest_hole(1) == (0, 5 * PAGE)
    assert list(file.pieces_with_data(PAGE)) == [5, (1 << 40) // PAGE - 1]
    assert file.read(PAGE, 1 << 21) == bytes(4 * PAGE) + b"x" * PAGE + bytes((1 << 21) - 5 * PAGE)


def test_a_file_that_is_all_hole(made: Make) -> None:
    file = LargeFile(made(1 << 40))
    assert list(file.pieces_with_data(PAGE)) == []
    assert file.hole(123) == (1 << 40) - 123
    assert file.largest_hole(10) == (0, 1 << 40)


def test_a_dense_file_has_no_holes(made: Make) -> None:
    fd = made(3 * PAGE + 1, (0, random.Random(1).randbytes(3 * PAGE + 1)))
    os.fsync(fd)
    file = LargeFile(fd)
    assert file.hole(0) == 0 and file.largest_hole(10)[1] == 0
    assert list(file.pieces_with_data(PAGE)) == [0, 1, 2, 3]


@pytest.mark.parametrize("window", [0, PAGE])
def test_what_has_been_cut_off_reads_as_zeros(made: Make, window: int) -> None:
    fd = made(2 * PAGE, (0, b"x" * 2 * PAGE))
    file = LargeFile(fd, window)
    assert file.look(PAGE, PAGE) == b"x" * PAGE
    os.ftruncate(fd, PAGE + 3)
    assert file.size == 2 * PAGE
    for read in (file.read, file.look):
        assert read(PAGE, PAGE) == b"xxx" + bytes(PAGE - 3)
        assert read(PAGE + 100, 50) == bytes(50)


def test_short_reads_are_gone_on_with(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random.Random(1).randbytes(10_500)
    file = LargeFile(made(len(data), (0, data)), 10_000)
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, at: pread(fd, min(length, 999), at))
    monkeypatch.setattr(os, "preadv", lambda fd, into, at: os.readv(fd, [memoryview(into[0])[:7]]))
    assert file.read(100, 10_000) == data[100:10_100]
    assert file.look(0, 10_000) == data[:10_000]
    assert file.look(10_000, 1000) == data[10_000:] + bytes(500)


def test_holes_of_a_file_that_was_cut_off(made: Make) -> None:
    fd = made(1 << 30, (5 * PAGE, b"x"))
    file = LargeFile(fd)
    os.ftruncate(fd, PAGE)
    assert file.hole(2 * PAGE) == (1 << 30) - 2 * PAGE
    assert list(file.pieces_with_data(PAGE)) == []


@pytest.mark.parametrize("cached", [0, 1])
def test_only_what_was_not_cached_is_forgotten(
    made: Make, monkeypatch: pytest.MonkeyPatch, cached: int
) -> None:
    dropped: list[tuple[int, int]] = []
    monkeypatch.setattr(system, "cached_pages", lambda fd: cached)
    monkeypatch.setattr(system, "drop_cache", lambda fd, at, length: dropped.append((at, length)))
    file = LargeFile(made(64 << 20, (0, b"x")))
    file.let_go(PAGE, PAGE)
    file.passed(32 << 20)
    file.done()
    assert dropped == ([] if cached else [(PAGE, PAGE), (0, 32 << 20), (0, 0)])
