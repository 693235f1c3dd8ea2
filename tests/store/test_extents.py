"""Ranges of the drive laid over each other, against counting byte by byte."""

from __future__ import annotations

from array import array
from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mirrorback.store import extents

RANGES = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=5)


def packed(ranges: list[tuple[int, int]]) -> bytes:
    return array("q", [end for at, size in ranges for end in (at, at + size)]).tobytes()


def counted(files: list[list[tuple[int, int]]]) -> Counter[int]:
    return Counter(byte for file in files for at, size in file for byte in range(at, at + size))


@given(st.lists(RANGES, max_size=6), st.lists(RANGES, max_size=3), st.sampled_from([1, 2]))
def test_overlays(
    files: list[list[tuple[int, int]]], others: list[list[tuple[int, int]]], least: int
) -> None:
    laid = extents.overlaid(map(packed, files))
    without = extents.overlaid(map(packed, others))
    mine, theirs = counted(files), counted(others)
    assert laid.covered(least) == sum(count >= least for count in mine.values())
    wanted = sum(count >= least and not theirs[byte] for byte, count in mine.items())
    assert laid.covered(least, without) == wanted


def test_places_beyond_four_gigabytes() -> None:
    far = 1 << 60
    laid = extents.overlaid([packed([(far, 1 << 50)]), packed([(far + 5, 10)])])
    assert (laid.covered(1), laid.covered(2)) == (1 << 50, 10)


def test_a_file_of_which_the_system_does_not_tell(tmp_path: Path) -> None:
    with open("/proc/self/status") as file:
        assert extents.layout(file.fileno(), 0, "proc") is None
