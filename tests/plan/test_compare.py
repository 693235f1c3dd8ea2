"""What a difference amounts to."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.model import ChangeKind
from mirrorback.plan.compare import TICK, WHOLE_SECONDS, Look, look_at_file, settled, verdict

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
ODD = 123  # makes a time one that counts nanoseconds


def matching(rows: list[tuple[str, object]], flags: tuple[bool, ...]) -> list[object]:
    """The results of all rows of a table whose letters fit the flags: y, n, or . for both."""
    return [
        result
        for letters, result in rows
        if all(
            letter == "." or (letter == "y") is flag
            for letter, flag in zip(letters.replace(" ", ""), flags, strict=True)
        )
    ]


LOOKS: list[tuple[str, object]] = [
    # size, mtime, ctime, inode and links the same; checksum asked for
    ("n . . . . .", Look.DIFFERENT),
    ("y . . . . y", Look.READ),
    ("y n . . . n", Look.READ),
    ("y y n . . n", Look.READ),
    ("y y y n . n", Look.READ),
    ("y y y y n n", Look.READ),
    ("y y y y y n", Look.SAME),
]


@pytest.mark.parametrize("flags", list(itertools.product([True, False], repeat=6)))
def test_how_closely_a_file_is_looked_at(flags: tuple[bool, ...]) -> None:
    size, mtime, ctime, ino, nlink = ((7, 7) if same else (7, 8) for same in flags[:5])
    found = look_at_file(
        size=size, mtime=mtime, ctime=ctime, ino=ino, nlink=nlink, checksum=flags[5]
    )
    assert [found] == matching(LOOKS, flags)


@pytest.mark.parametrize("field", ["mtime", "ctime", "ino", "nlink"])
@pytest.mark.parametrize("pair", [(1, 2), (2, 1), (-1, 1), (0, -(2**62))])
def test_a_difference_in_either_direction_is_looked_into(field: str, pair: tuple[int, int]) -> None:
    pairs = dict.fromkeys(["size", "mtime", "ctime", "ino", "nlink"], (5, 5)) | {field: pair}
    assert look_at_file(**pairs, checksum=False) is Look.READ
    pairs["size"] = pair
    assert look_at_file(**pairs, checksum=True) is Look.DIFFERENT


def test_times_are_compared_to_the_nanosecond() -> None:
    same = (1, 1)
    found = look_at_file(
        size=same, mtime=(NOW, NOW + 1), ctime=same, ino=same, nlink=same, checksum=False
    )
    assert found is Look.READ


@pytest.mark.parametrize(
    ("mtime", "ctime", "is_settled"),
    [
        # A drive that counts nanoseconds.
        (NOW + ODD, NOW + ODD, False),
        (NOW - TICK, NOW - SECOND + ODD, False),
        (NOW - TICK - 1, NOW - SECOND + ODD, True),
        (NOW + TICK, NOW - SECOND + ODD, False),
        (NOW + TICK + 1, NOW - SECOND + ODD, True),
        (0, NOW - TICK, False),
        (0, NOW - TICK - 1, True),
        (0, NOW + TICK, False),
        (0, NOW + TICK + 1, True),
        (0, NOW + ODD, False),
        (NOW + ODD, 1 + ODD, False),
        # The time of content may be set to a whole second on any drive.
        (NOW - SECOND, NOW - SECOND + ODD, True),
        # One that counts whole seconds, by the time that nobody can set.
        (0, NOW, False),
        (0, NOW - SECOND, False),
        (0, NOW - 2 * SECOND, False),
        (0, NOW - 3 * SECOND, True),
        (0, NOW + 2 * SECOND, False),
        (0, NOW + 3 * SECOND, True),
        (NOW - WHOLE_SECONDS, 0, False),
        (NOW - WHOLE_SECONDS - 1, 0, True),
        (NOW + WHOLE_SECONDS, 0, False),
        (NOW + WHOLE_SECONDS + 1, 0, True),
        # Long before 1970, and far in the future.
        (-(10**18), -(10**18) + ODD, True),
        (10**19, 10**19 + ODD, True),
    ],
)
def test_a_file_younger_than_a_tick_is_not_settled(
    mtime: int, ctime: int, is_settled: bool
) -> None:
    assert settled(mtime, ctime, NOW) is is_settled


@given(st.integers(0, 2 * NOW), st.integers(0, 2 * NOW), st.integers(0, TICK - 1))
def test_what_was_written_within_a_tick_of_reading_is_never_settled(
    now: int, other: int, age: int
) -> None:
    assert settled(now - age, other, now) is False
    assert settled(other, now - age, now) is False


@given(st.integers(0, 2 * NOW), st.integers(0, 2 * NOW), st.integers(0, 2 * NOW))
def test_what_is_settled_stays_so_as_time_goes_on(mtime: int, ctime: int, wait: int) -> None:
    later = max(mtime, ctime) + WHOLE_SECONDS + 1 + wait
    assert settled(mtime, ctime, later) is True


VERDICTS: list[tuple[str, object]] = [
    # moved, existed, same kind, same content, same metadata, same links
    ("y . . . . .", ChangeKind.MOVED),
    ("n n . . . .", ChangeKind.ADDED),
    ("n y n . . .", ChangeKind.RETYPED),
    ("n y y n . .", ChangeKind.MODIFIED),
    ("n y y y n .", ChangeKind.METADATA),
    ("n y y y y n", ChangeKind.METADATA),
    ("n y y y y y", None),
]


@pytest.mark.parametrize("flags", list(itertools.product([True, False], repeat=6)))
def test_what_a_difference_is_called(flags: tuple[bool, ...]) -> None:
    moved, existed, same_kind, same_content, same_metadata, same_links = flags
    found = verdict(
        existed=existed,
        same_kind=same_kind,
        moved=moved,
        same_content=same_content,
        same_metadata=same_metadata,
        same_links=same_links,
    )
    assert [found] == matching(VERDICTS, flags)
