"""Where two buffers differ: exact at both ends, and nothing left out."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.store.differing import CELL, GAP, differing

EDITS = st.lists(st.tuples(st.integers(0, 20_000), st.binary(min_size=1, max_size=700)), max_size=8)
SIZES = [0, 1, 7, 8, 63, 64, 65, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1 << 20, (1 << 20) + 1]


def edited(data: bytes, edits: list[tuple[int, bytes]]) -> bytes:
    """The same length, with pieces written over it."""
    out = bytearray(data)
    for offset, piece in edits:
        at = offset % (len(data) + 1)
        out[at : at + len(piece)] = piece[: len(data) - at]
    return bytes(out)


def check(old: bytes, new: bytes) -> list[tuple[int, int]]:
    """The ranges, after proof that they are what they should be."""
    ranges = differing(old, new)
    rebuilt, end_before = bytearray(new), None
    for start, end in ranges:
        assert 0 <= start < end <= len(old)
        assert old[start] != new[start] and old[end - 1] != new[end - 1]
        assert end_before is None or start - end_before >= GAP
        rebuilt[start:end] = old[start:end]
        end_before = end
    assert rebuilt == old
    return ranges


@given(st.binary(max_size=600), st.integers(1, 40), EDITS)
def test_the_ranges_turn_one_into_the_other(seed: bytes, times: int, edits: list) -> None:
    old = seed * times
    check(old, edited(old, edits))


@given(st.lists(st.integers(0, 1), max_size=2000), st.integers(1, 90))
def test_dense_changes(bits: list[int], spread: int) -> None:
    new = b"".join(bytes([bit]) + bytes(spread - 1) for bit in bits)
    check(bytes(len(new)), new)


@pytest.mark.parametrize("size", SIZES)
def test_equal_buffers_have_no_ranges(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert differing(data, bytes(bytearray(data))) == []


@pytest.mark.parametrize("size", SIZES[1:])
def test_the_first_and_the_last_byte_are_seen(size: int) -> None:
    data = random.Random(size).randbytes(size)
    for at in {0, size // 2, size - 1}:
        changed = bytearray(data)
        changed[at] ^= 1
        assert differing(data, bytes(changed)) == [(at, at + 1)]
    assert differing(data, bytes(byte ^ 255 for byte in data)) == [(0, size)]


@pytest.mark.parametrize("first", [0, 30, 63, 100])
def test_near_ranges_are_one(first: int) -> None:
    for gap in range(1, 3 * CELL):
        new = bytearray(1000)
        new[first] = new[first + gap + 1] = 1
        ranges = check(bytes(1000), bytes(new))
        if gap < GAP:
            assert ranges == [(first, first + gap + 2)]
        if gap >= 2 * CELL - 1:  # a whole cell lies between, wherever they are
            assert ranges == [(first, first + 1), (first + gap + 1, first + gap + 2)]


def test_other_kinds_of_buffers_give_the_same() -> None:
    old = random.Random(1).randbytes(5000)
    new = edited(old, [(77, b"x" * 90), (4990, b"y" * 20)])
    assert differing(bytearray(old), new) == differing(old, bytearray(new)) == check(old, new)


def test_buffers_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError):
        differing(b"a", b"")
