"""Times of dated folders by their names."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from mirrorback.plan.dating import dated, in_order

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = 3_600_000_000_000


def ns(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp()) * 1_000_000_000  # type: ignore[misc, arg-type]


def test_the_name_is_local_time() -> None:
    winter, summer = dated("2026-01-05-020000", BERLIN), dated("2026-07-05-020001", BERLIN)
    assert winter is not None and (winter.time, winter.offset) == (ns(2026, 1, 5, 1), 3600)
    assert summer is not None
    assert (summer.time, summer.offset) == (ns(2026, 7, 5, 0, 0, 1), 7200)


@pytest.mark.parametrize(
    "name", ["2026-13-01-020000", "2026-02-30-020000", "10000-01-01-000000", "x", "2026-01-05"]
)
def test_what_is_no_day(name: str) -> None:
    assert dated(name, UTC) is None


def test_an_hour_that_comes_twice() -> None:
    first = dated("2026-10-25-023000", BERLIN)
    again = dated("2026-10-25-023000-2", BERLIN)
    assert first is not None and again is not None
    assert (first.offset, again.offset) == (7200, 3600)
    assert again.time - first.time == HOUR


def test_a_folder_made_later_is_of_the_second_time() -> None:
    first = dated("2026-10-25-021000", BERLIN)
    assert first is not None
    later = dated("2026-10-25-021000", BERLIN, born=first.time + HOUR + 5)
    copied = dated("2026-10-25-021000", BERLIN, born=first.time + 1000 * HOUR)
    assert later is not None and later.time == first.time + HOUR
    assert copied == first


def test_the_order_is_that_of_instants() -> None:
    names = ["2026-10-25-020000-2", "2026-10-25-023000", "2026-10-25-020000", "2026-10-25-023000-2"]
    found = [one for name in names if (one := dated(name, BERLIN)) is not None]
    assert [one.name for one in in_order(found)] == [
        "2026-10-25-020000",
        "2026-10-25-023000",
        "2026-10-25-020000-2",
        "2026-10-25-023000-2",
    ]


def test_numbers_behind_a_name_count_as_numbers() -> None:
    names = [f"2026-01-05-020000-{n}" for n in (10, 2, 9)] + ["2026-01-05-020000"]
    found = [one for name in names if (one := dated(name, UTC)) is not None]
    assert [one.name[17:] for one in in_order(found)] == ["", "-2", "-9", "-10"]
