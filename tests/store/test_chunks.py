"""The index of chunks: what has moved is found, and its size has a limit."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrorback.store import chunks
from mirrorback.store.chunks import ChunkIndex, average_for
from mirrorback.store.large import LargeFile

PIECE = 8192  # for these tests
MIB = 1 << 20
CONTENT = random.Random(1).randbytes(MIB)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LargeFile]:
    monkeypatch.setattr(chunks, "_PIECE", PIECE)
    (tmp_path / "f").write_bytes(CONTENT)
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    yield LargeFile(fd)
    os.close(fd)


def found(index: ChunkIndex, data: bytes) -> list[int]:
    """The shifts at which chunks of the data were found."""
    starts, digests = index.chunker.cut(data)
    places = index.find(digests)
    return [place - at for at, place in zip(starts, places, strict=True) if place is not None]


def test_content_is_found_at_any_offset(file: LargeFile) -> None:
    index = ChunkIndex(file, 256)
    assert index.widen(0, MIB)
    assert index.indexed == MIB
    rng = random.Random(2)
    for _ in range(50):
        at = rng.randrange(MIB - 20_000)
        shifts = found(index, rng.randbytes(777) + CONTENT[at : at + 20_000])
        right = [shift for shift in shifts if shift == at - 777]
        assert len(right) > 20 and len(right) == len(shifts)


def test_what_is_not_there_is_not_found(file: LargeFile) -> None:
    index = ChunkIndex(file, 256)
    index.widen(0, MIB)
    assert found(index, random.Random(3).randbytes(100_000)) == []
    assert index.find([0]) == [None]


def test_the_nearest_comes_first(file: LargeFile) -> None:
    index = ChunkIndex(file, 256)
    assert index.widen(MIB // 2, 10 * PIECE)
    assert index.indexed == 10 * PIECE
    assert found(index, CONTENT[MIB // 2 - 4 * PIECE : MIB // 2])
    assert found(index, CONTENT[MIB // 2 : MIB // 2 + 4 * PIECE])
    assert not found(index, CONTENT[: 4 * PIECE])
    assert index.widen(0, 10 * PIECE)
    assert found(index, CONTENT[: 4 * PIECE])
    assert not found(index, CONTENT[-4 * PIECE :])


@pytest.mark.parametrize("home", [-5, 0, MIB // 3, MIB - 1, 9 * MIB])
def test_widening_ends(file: LargeFile, home: int) -> None:
    index = ChunkIndex(file, 256)
    widened = 0
    while index.widen(home, 5 * PIECE):
        widened += 1
    assert widened == -(-MIB // (5 * PIECE))
    assert index.indexed == MIB
    assert found(index, CONTENT[:PIECE]) and found(index, CONTENT[-PIECE:])


def test_each_piece_is_read_once(file: LargeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    original = LargeFile.read
    monkeypatch.setattr(
        LargeFile, "read", lambda self, at, n: (reads.append(at), original(self, at, n))[1]
    )
    index = ChunkIndex(file, 256)
    for home in (MIB // 2, 0, MIB, 100, 0):
        index.widen(home, MIB // 4)
    assert sorted(reads) == list(range(0, MIB, PIECE))


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_indexed_is_read_in_order_and_forgotten_where_asked_for(
    file: LargeFile, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    reads: list[int] = []
    gone: list[tuple[int, int]] = []
    original = LargeFile.read
    monkeypatch.setattr(
        LargeFile, "read", lambda self, at, n: (reads.append(at), original(self, at, n))[1]
    )
    monkeypatch.setattr(LargeFile, "let_go", lambda self, at, n: gone.append((at, n)))
    ChunkIndex(file, 256).widen(MIB // 2, MIB // 4, keep=keep)
    assert reads == sorted(reads) and len(reads) == MIB // 4 // PIECE
    assert gone == ([] if keep else [(at, PIECE) for at in reads])


def test_a_full_index_takes_no_more(file: LargeFile) -> None:
    index = ChunkIndex(file, 256, slots=1024)
    index.widen(0, MIB)
    assert index.slots == 1024
    assert 900 < len(index) <= 1024
    assert found(index, CONTENT)  # of what was taken in


def test_an_index_as_large_as_it_should_be_leaves_little_out(file: LargeFile) -> None:
    index = ChunkIndex(file, 256)
    index.widen(0, MIB)
    cut = sum(len(index.chunker.cut(CONTENT[at : at + PIECE])[0]) for at in range(0, MIB, PIECE))
    assert cut * 0.7 < len(index) <= cut


@pytest.mark.parametrize("size", [0, 1, 1 << 20, 1 << 28, 8 << 30, 500 << 30, 8 << 40])
def test_chunks_are_as_long_as_the_index_demands(size: int) -> None:
    average = average_for(size)
    assert chunks.SMALLEST <= average <= chunks.LARGEST
    assert size // average <= chunks.SLOTS // 2 or average == chunks.LARGEST
    assert average == chunks.SMALLEST or size // (average // 2) > chunks.SLOTS // 2


def test_the_index_of_half_a_terabyte_stays_below_a_hundred_megabytes(tmp_path: Path) -> None:
    assert chunks.SLOTS * 16 < 100_000_000
    with (tmp_path / "f").open("wb") as made:
        made.truncate(500 << 30)
        file = LargeFile(made.fileno())
        file.sparse, file.data = False, file.size  # as if it were written
        index = ChunkIndex(file, average_for(file.data))
    assert index.slots == chunks.SLOTS
    assert index._digests.nbytes + index._places.nbytes == chunks.SLOTS * 16
    assert len(index._pieces) < 100_000


def test_holes_are_not_indexed(tmp_path: Path) -> None:
    with (tmp_path / "f").open("w+b") as made:
        made.truncate(1 << 40)
        os.pwrite(made.fileno(), CONTENT, 1 << 39)
        file = LargeFile(made.fileno())
        if not file.sparse:
            pytest.skip("no holes here")
        index = ChunkIndex(file, 4096)
        assert index.widen(0, 1 << 40)
        assert index.indexed <= 8 * MIB
        assert set(found(index, CONTENT[1000:500_000])) == {(1 << 39) + 1000}
        assert index.slots <= 4096


@pytest.mark.parametrize("data", [b"", b"x", bytes(50_000), b"ab" * 30_000])
def test_plain_content_is_cut_as_well(data: bytes) -> None:
    starts, digests = chunks.Chunker(256).cut(data)
    assert len(starts) == len(digests) and starts[:1] == [0][: len(data)]
    assert starts == sorted(set(starts))
