"""Ranges of snapshots."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mirrorback.errors import NotInHistory, UsageError
from mirrorback.model import Snapshot
from mirrorback.plan import ranges

DAY = timedelta(days=1)
BEGIN = datetime(2026, 11, 1, 2, tzinfo=UTC)
NOW = BEGIN + 5 * DAY
SNAPSHOTS = [
    Snapshot(
        id=10 * n,
        name=f"{BEGIN + n * DAY:%Y-%m-%d-%H%M%S}",
        time=int((BEGIN + n * DAY).timestamp()) * 1_000_000_000,
        offset=0,
        current=n == 4,
    )
    for n in range(5)
]


def numbers(*words: str) -> list[int]:
    return [snapshot.id // 10 for snapshot in ranges.chosen(words, SNAPSHOTS, NOW)]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["2026-11-02-020000"], [1]),
        (["1B", "2026-11-01", "1B"], [0, 3]),
        (["2026-11-02-020000..2026-11-03-020000"], [1, 2]),
        (["2026-11-02..1B"], [1, 2, 3]),
        (["..2026-11-02"], [0, 1]),
        (["2026-11-03.."], [2, 3]),
        (["3B..3B"], [1]),
        (["..2026-11-02", "2026-11-02..2026-11-03"], [0, 1, 2]),
    ],
)
def test_what_is_meant(words: list[str], wanted: list[int]) -> None:
    assert numbers(*words) == wanted


@pytest.mark.parametrize("word", ["latest", "0B", "2026-11-05", "1B..latest", "latest.."])
def test_the_mirror_always_stays(word: str) -> None:
    with pytest.raises(UsageError):
        numbers(word)


@pytest.mark.parametrize("word", ["..", "1B..3B", "x..1B", "1B...", "", "a/b"])
def test_nonsense(word: str) -> None:
    with pytest.raises(UsageError):
        numbers(word)


def test_nothing_so_old() -> None:
    with pytest.raises(NotInHistory):
        numbers("2026-10-01..2026-11-02")


def test_an_empty_repository() -> None:
    for word in ("latest", "..", "2026-11-01..", "..2026-11-01"):
        with pytest.raises((NotInHistory, UsageError)):
            ranges.chosen([word], [], NOW)
    with pytest.raises(NotInHistory):
        ranges.chosen(["2026-11-05.."], SNAPSHOTS[-1:], NOW)
