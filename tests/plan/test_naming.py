"""Names of dated folders."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.plan.naming import folder_name

BERLIN = ZoneInfo("Europe/Berlin")
SHAPE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9]{6}(-[1-9][0-9]*)?")
FEW_MOMENTS = st.builds(
    lambda second, zone: datetime(2026, 10, 25, 0, 30, second, tzinfo=UTC).astimezone(zone),
    st.integers(0, 2),
    st.sampled_from([UTC, BERLIN]),
)
ANY_MOMENT = st.datetimes(
    timezones=st.sampled_from([UTC, BERLIN, timezone(timedelta(hours=-11, minutes=-30))])
)


@pytest.mark.parametrize(
    ("moment", "name"),
    [
        (datetime(2026, 11, 22, 2, 0, 0, tzinfo=BERLIN), "2026-11-22-020000"),
        (datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC), "2026-01-02-030405"),
        (datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), "2026-12-31-235959"),
        (datetime(987, 6, 5, 4, 3, 2, tzinfo=UTC), "0987-06-05-040302"),
        (datetime(2026, 7, 1, 22, 30, tzinfo=UTC).astimezone(BERLIN), "2026-07-02-003000"),
    ],
)
def test_a_name_is_the_local_time(moment: datetime, name: str) -> None:
    assert folder_name(moment, ()) == name


def test_a_repeated_hour_gives_a_second_name() -> None:
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC).astimezone(BERLIN)
    second = datetime(2026, 10, 25, 1, 30, tzinfo=UTC).astimezone(BERLIN)
    assert folder_name(first, ()) == "2026-10-25-023000"
    assert folder_name(second, {"2026-10-25-023000"}) == "2026-10-25-023000-2"


@pytest.mark.parametrize(
    ("taken", "name"),
    [
        ({"2026-11-22-020000-2"}, "2026-11-22-020000"),
        ({"2026-11-22-020000"}, "2026-11-22-020000-2"),
        ({"2026-11-22-020000", "2026-11-22-020000-3"}, "2026-11-22-020000-2"),
        (
            {"2026-11-22-020000", "2026-11-22-020000-2", "2026-11-22-020000-3"},
            "2026-11-22-020000-4",
        ),
        ({"2026-11-22-02000", "2026-11-22-0200000"}, "2026-11-22-020000"),
    ],
)
def test_the_first_free_number_is_taken(taken: set[str], name: str) -> None:
    assert folder_name(datetime(2026, 11, 22, 2, tzinfo=BERLIN), taken) == name


@given(st.lists(FEW_MOMENTS, max_size=30))
def test_names_never_collide(moments: list[datetime]) -> None:
    taken: list[str] = []
    for moment in moments:
        taken.append(folder_name(moment, taken))
    assert len(set(taken)) == len(moments)


@given(ANY_MOMENT, st.integers(0, 15))
def test_a_name_has_one_shape_and_no_colons(moment: datetime, used: int) -> None:
    taken: set[str] = set()
    for _ in range(used):
        taken.add(folder_name(moment, taken))
    name = folder_name(moment, taken)
    assert SHAPE.fullmatch(name)
    assert name.startswith(f"{moment.year:04}-")


@given(ANY_MOMENT, ANY_MOMENT)
def test_names_sort_as_the_local_clock_goes(one: datetime, other: datetime) -> None:
    early, late = sorted([one.replace(tzinfo=None, microsecond=0), other.replace(tzinfo=None)])
    assert folder_name(early, ()) <= folder_name(late, ())
