"""Periods of the calendar, and where growth leads."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.plan import growth
from mirrorback.plan.growth import DAY, SECOND, Added

HOUR = 3600


def at(text: str, added: int = 1, offset: int = 0) -> Added:
    """A snapshot of this local time."""
    moment = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    return Added(text, (int(moment) - offset) * SECOND, offset, added)


def test_few_snapshots_stand_for_themselves() -> None:
    points = [at("2026-01-01T02:00", 5), at("2026-03-01T02:00", -2)]
    assert growth.periods(points, 2) == (
        "snapshot",
        [("2026-01-01T02:00", 5, 5), ("2026-03-01T02:00", -2, 3)],
    )
    assert growth.periods([], 1) == ("snapshot", [])


def test_days_with_none_between() -> None:
    points = [at("2026-01-01T02:00"), at("2026-01-01T23:59"), at("2026-01-03T00:00", 4)]
    assert growth.periods([*points, points[-1]], 3) == (
        "day",
        [("2026-01-01", 2, 2), ("2026-01-02", 0, 2), ("2026-01-03", 8, 10)],
    )


def test_weeks_begin_on_monday() -> None:
    points = [at("2026-01-04T12:00"), at("2026-01-05T12:00"), at("2026-01-11T23:00")]
    assert growth.periods(points, 2) == (
        "week",
        [("2025-12-29", 1, 1), ("2026-01-05", 2, 3)],
    )


def test_months_and_years() -> None:
    points = [at("2025-12-31T12:00"), at("2026-02-01T12:00"), at("2026-02-28T12:00")] * 2
    points.sort(key=lambda point: point.time)
    assert growth.periods(points, 3) == (
        "month",
        [("2025-12", 2, 2), ("2026-01", 0, 2), ("2026-02", 4, 6)],
    )
    assert growth.periods(points, 2) == ("year", [("2025", 2, 2), ("2026", 4, 6)])
    assert growth.periods(points, 1) == ("year", [("2026", 4, 6)])


def test_days_are_those_of_the_snapshots_own_zone() -> None:
    points = [at("2026-01-01T00:30", 1, 2 * HOUR), at("2026-01-01T23:30", 1, -11 * HOUR)] * 2
    assert growth.periods(points, 3)[1] == [("2026-01-01", 4, 4)]


def test_a_clock_that_was_set_back() -> None:
    points = [at("2026-01-02T12:00"), at("1970-01-01T00:00"), at("2026-01-03T12:00")]
    assert growth.periods(points, 2) == (
        "day",
        [("2026-01-02", 2, 2), ("2026-01-03", 1, 3)],
    )


@given(
    st.lists(st.tuples(st.integers(-(1 << 63), 1 << 63), st.integers(-90_000, 90_000)), max_size=9),
    st.integers(1, 8),
)
def test_nothing_is_lost_whatever_the_clock_said(times: list[tuple[int, int]], most: int) -> None:
    points = [Added("x", time, offset, 1 << at) for at, (time, offset) in enumerate(times)]
    _unit, found = growth.periods(points, most)
    assert len(found) <= max(most, 1)
    if found:
        assert found[-1].total == sum(point.added for point in points)


def nightly(count: int, added: int, first: int = 1 << 40) -> tuple[list[Added], int]:
    """So many nights, and the time when the last is over."""
    points = [Added(f"{n}", n * DAY, 0, added if n else first) for n in range(count)]
    return points, (count - 1) * DAY


def test_at_this_rate() -> None:
    points, now = nightly(29, 1000)
    assert growth.forecast(points, now, 14_000) == (1000, 14 * DAY)
    assert growth.forecast(points, now, 0) == (1000, 0)
    assert growth.forecast(points, now, -5) == (1000, 0)


def test_nights_without_a_snapshot_count() -> None:
    points, now = nightly(29, 1000)
    found = growth.forecast(points, now + 28 * DAY, 14_000)
    assert found == (500, 28 * DAY)


def test_what_is_long_past_does_not_count() -> None:
    old = [Added("old", n * DAY, 0, 1 << 30) for n in range(50)]
    new = [Added("new", n * DAY, 0, 1000) for n in range(300, 401)]
    found = growth.forecast(old + new, 400 * DAY, 1 << 20)
    assert found is not None
    assert found.per_day == 1000 * 91 // 90


@pytest.mark.parametrize("count", [0, 1, 2, 5, 14])
def test_too_little_to_tell(count: int) -> None:
    points, now = nightly(count, 1000)
    assert growth.forecast(points, max(now, 0), 14_000) is None


def test_too_few_snapshots_to_tell() -> None:
    points, now = nightly(29, 1000)
    assert growth.forecast([points[0], *points[-4:]], now, 14_000) is None
    assert growth.forecast([points[0], *points[-5:]], now, 14_000) is not None


@pytest.mark.parametrize("added", [0, -1000])
def test_what_does_not_grow_never_fills_the_drive(added: int) -> None:
    points, now = nightly(29, added)
    assert growth.forecast(points, now, 14_000) is None


def test_a_drive_that_lasts_for_ever() -> None:
    points, now = nightly(29, 1)
    assert growth.forecast(points, now, 1 << 40) == (1, None)


def test_snapshots_from_the_future() -> None:
    points, _now = nightly(29, 1000)
    assert growth.forecast(points, -DAY, 14_000) is None
