"""Digests and copies of content, holes included."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.store import content, reading

PIECES = st.lists(st.tuples(st.integers(0, 5000), st.binary(min_size=1, max_size=3000)), max_size=6)


def laid_out(gaps: list[tuple[int, bytes]], tail: int) -> tuple[list[tuple[int, bytes]], bytes]:
    """Pieces at rising offsets, and the whole content with zeros between."""
    whole = b""
    pieces = []
    for gap, data in gaps:
        whole += bytes(gap)
        pieces.append((len(whole), data))
        whole += data
    return pieces, whole + bytes(tail)


@given(PIECES, st.integers(0, 5000))
def test_a_plain_digest_is_that_of_the_bytes(gaps: list[tuple[int, bytes]], tail: int) -> None:
    pieces, whole = laid_out(gaps, tail)
    hashing = content.hasher(sparse=False)
    for offset, data in pieces:
        hashing.feed(offset, data)
    assert hashing.finish(len(whole)).value == blake3(whole).digest()
    assert content.digest_bytes(whole.rstrip(b"\0"), len(whole)).value == blake3(whole).digest()


@given(PIECES, st.integers(0, 200_000), st.integers(1, 70_000))
def test_a_sparse_digest_does_not_depend_on_how_it_was_read(
    gaps: list[tuple[int, bytes]], tail: int, step: int
) -> None:
    pieces, whole = laid_out([(gap * 40, data) for gap, data in gaps], tail)
    one, other = content.hasher(sparse=True), content.hasher(sparse=True)
    for offset, data in pieces:
        one.feed(offset, data)
    for at in range(0, len(whole), step):
        other.feed(at, whole[at : at + step])
    assert one.finish(len(whole)) == other.finish(len(whole))


@given(st.binary(min_size=1, max_size=2000), st.integers(0, 100_000), st.integers(0, 15_999))
def test_a_sparse_digest_tells_contents_apart(data: bytes, at: int, bit: int) -> None:
    number = bit % (len(data) * 8)
    flipped = (int.from_bytes(data, "big") ^ 1 << number).to_bytes(len(data), "big")
    digests = []
    for some in (data, flipped):
        hashing = content.hasher(sparse=True)
        hashing.feed(at, some)
        digests.append(hashing.finish(at + len(data)))
    assert digests[0] != digests[1]
    hashing = content.hasher(sparse=True)
    hashing.feed(at, data)
    assert hashing.finish(at + len(data) + 1) != digests[0]


@pytest.mark.parametrize("size", [0, 1, 4096, content.CHUNK, content.CHUNK + 1, 3 * content.CHUNK])
def test_a_copy_has_the_bytes_and_their_digest(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    folder = os.open(tmp_path, os.O_RDONLY)
    target = os.open(tmp_path / "g", os.O_CREAT | os.O_RDWR)
    told: list[int] = []
    try:
        seen = reading.copy_file(folder, b"f", target, told.append)
    finally:
        os.close(target)
        os.close(folder)
    assert (tmp_path / "g").read_bytes() == data
    assert seen.digest is not None and seen.digest.value == blake3(data).digest()
    assert sum(told) == size
    assert not seen.torn


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: original(fd, data[:1000], at))
    fd = os.open(tmp_path / "f", os.O_CREAT | os.O_RDWR)
    data = os.urandom(10_500)
    content.write_all(fd, data, 5)
    os.close(fd)
    assert (tmp_path / "f").read_bytes() == bytes(5) + data


@given(
    st.integers(0, 3 * content.PAGE),
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([1, 100, 4095, 4096, 4097, 9000])), max_size=8
    ),
)
def test_runs_of_pages(offset: int, parts: list[tuple[bool, int]]) -> None:
    """Together they are all of the data, and exactly the whole pages of zeros are holes."""
    data = b"".join(bytes(size) if zeros else b"x" * size for zeros, size in parts)
    runs = list(content.page_runs(offset, data))
    assert [run[0] for run in runs] == [0, *(run[1] for run in runs[:-1])][: len(runs)]
    assert not data or runs[-1][1] == len(data)
    holes = {
        at
        for start, end, hole in runs
        if hole
        for at in range(offset + start, offset + end, content.PAGE)
    }
    first = offset + -offset % content.PAGE
    assert holes == {
        at
        for at in range(first, offset + len(data) - content.PAGE + 1, content.PAGE)
        if not any(data[at - offset : at - offset + content.PAGE])
    }


def test_holes_are_left(tmp_path: Path) -> None:
    data = b"a" * 5000 + bytes(20_000) + b"b" + bytes(3000)
    with (tmp_path / "f").open("wb") as file:
        content.write_sparsely(file.fileno(), data, 0)
        file.truncate(len(data))
    assert (tmp_path / "f").read_bytes() == data
    assert (tmp_path / "f").stat().st_blocks * 512 <= 3 * content.PAGE


def test_a_read_that_gives_less_than_was_asked_for_is_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a file system of a server may do."""
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, size - size // 2, at))
    (tmp_path / "file").write_bytes(b"all of it")
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        small = reading.read_file(folder, b"file")
    finally:
        os.close(folder)
    assert small is not None and small.data == b"all of it"
