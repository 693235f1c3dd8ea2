"""Points in time as people name them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.errors import NotInHistory, UsageError
from mirrorback.model import Snapshot
from mirrorback.plan.when import SECOND, resolve

BERLIN = ZoneInfo("Europe/Berlin")
HAVANA = ZoneInfo("America/Havana")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=BERLIN)
LONGEST_AGO = 4 * 10**9  # seconds either side of 1970 for random times


def instant(text: str) -> int:
    """Nanoseconds since 1970 of an ISO time with an offset, and perhaps nine digits."""
    whole, dot, rest = text.partition(".")
    fraction, offset = (rest[:9], rest[9:]) if dot else ("0", "")
    moment = datetime.fromisoformat(whole + offset)
    return int((moment - EPOCH) // timedelta(seconds=1)) * SECOND + int(fraction)


def taken(*times: str) -> list[Snapshot]:
    """Snapshots of these times, each named by its place: `s0`, `s1`, ..."""
    return taken_at([instant(time) for time in times])


def taken_at(times: list[int]) -> list[Snapshot]:
    """The same, of instants."""
    newest = len(times) - 1
    return [Snapshot(i, f"s{i}", time, 3600, i == newest) for i, time in enumerate(times)]


def printed(snapshot: Snapshot) -> str:
    """A snapshot's time as ISO 8601 with its offset and full fraction."""
    whole, rest = divmod(snapshot.time, SECOND)
    moment = (EPOCH + timedelta(seconds=whole)).astimezone(
        timezone(timedelta(seconds=snapshot.offset))
    )
    text = moment.isoformat()
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return text[:19] + fraction + text[19:]


WEEK = taken(
    "2026-11-20T02:00:00+01:00",
    "2026-11-21T02:00:00+01:00",
    "2026-11-22T02:00:00+01:00",
    "2026-11-22T14:30:59.999999999+01:00",
    "2026-11-22T14:31:00+01:00",
    "2026-11-23T02:00:00+01:00",
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("latest", "s5"),
        ("now", "s5"),
        ("s0", "s0"),
        ("s3", "s3"),
        ("0B", "s5"),
        ("1B", "s4"),
        ("5B", "s0"),
        ("2026-11-20", "s0"),
        ("2026-11-21", "s1"),
        ("2026-11-22", "s4"),
        ("2026-11-23", "s5"),
        ("2031-01-01", "s5"),
        ("2026-11-22T14:30", "s3"),
        ("2026-11-22 14:30", "s3"),
        ("2026-11-22T14:29", "s2"),
        ("2026-11-22T14:31", "s4"),
        ("2026-11-22T14:30:58", "s2"),
        ("2026-11-22T14:30:59", "s3"),
        ("2026-11-22T14:30:59.999999998", "s2"),
        ("2026-11-22T14:30:59.999999999", "s3"),
        ("2026-11-22T14:30:59.9", "s2"),
        ("2026-11-22T14:31:00", "s4"),
        ("2026-11-22T14:31:00.0", "s4"),
        ("2026-11-22T13:30Z", "s3"),
        ("2026-11-22T14:30+01:00", "s3"),
        ("2026-11-22T14:30+0100", "s3"),
        ("2026-11-22T15:30+02:00", "s3"),
        ("2026-11-22T14:30+02:00", "s2"),
        ("2026-11-22T08:30:59-05:00", "s3"),
        ("2026-11-22T19:00:59+05:30:00", "s3"),
        ("0m", "s5"),
        ("600m", "s5"),
        ("601m", "s4"),
        ("10h", "s5"),
        ("11h", "s4"),
        ("21h", "s4"),
        ("22h", "s2"),
        ("1d", "s2"),
        ("2d", "s1"),
        ("3d", "s0"),
        ("0w", "s5"),
        ("0M", "s5"),
        ("0y", "s5"),
    ],
)
def test_each_form_means_one_snapshot(text: str, name: str) -> None:
    assert resolve(text, WEEK, NOON).name == name


@pytest.mark.parametrize("name", ["2026-11-22-020000", "2026-11-22-020000-2"])
def test_a_name_means_that_snapshot_whatever_its_time(name: str) -> None:
    odd = Snapshot(1, name, instant("1999-01-01T00:00:00+00:00"), 0, False)
    assert resolve(name, [odd, *WEEK], NOON) is odd


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "yesterday",
        "LATEST",
        "Now",
        " latest",
        "s6",
        "2026-11",
        "2026-11-22-020001",
        "2026-11-31",
        "2026-13-01",
        "2026-00-10",
        "0000-01-01",
        "2026-02-29",
        "26-11-22",
        "2026/11/22",
        "2026-11-22T",
        "2026-11-22T14",
        "2026-11-22T24:00",
        "2026-11-22T14:60",
        "2026-11-22T14:30:60",
        "2026-11-22T14:30.5",
        "2026-11-22T14:30:00.",
        "2026-11-22T14:30:00.1234567890",
        "2026-11-22T14:30+1",
        "2026-11-22T14:30+24:00",
        "2026-11-22T14:30 Z",
        "2026-11-22T14:30\n",
        "2026-11-22\n",
        "1d\n",
        "1",
        "d",
        "-1d",
        "+1d",
        "1.5d",
        "1D",
        "1s",
        "1b",
        "1d2h",
        "1 d",
        "\u0661d",
        "\uff12\uff10\uff12\uff16-11-22",
    ],
)
def test_what_is_no_time_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(text, WEEK, NOON)
    assert repr(text) in str(caught.value)
    assert "2026-11-22T14:30" in str(caught.value)


@given(st.text(max_size=20))
def test_any_text_is_a_snapshot_or_an_error_of_ours(text: str) -> None:
    try:
        assert resolve(text, WEEK, NOON) in WEEK
    except (UsageError, NotInHistory):
        pass


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-19",
        "0001-01-01",
        "2026-11-20T01:59",
        "2026-11-20T01:59:59.999999999+01:00",
        "2026-11-20T02:00+02:00",
        "6B",
        "999999999B",
        "4d",
        "1w",
        "1M",
        "1y",
        "2025y",
        "200h",
        "100000m",
        "999999999m",
    ],
)
def test_nothing_that_old_names_the_oldest(text: str) -> None:
    with pytest.raises(NotInHistory, match=r"; the oldest is s0$"):
        resolve(text, WEEK, NOON)


@pytest.mark.parametrize("text", ["latest", "0B", "1d", "2026-11-22", "nonsense"])
def test_without_a_snapshot_there_is_nothing_to_mean(text: str) -> None:
    with pytest.raises(NotInHistory, match="no snapshot yet"):
        resolve(text, [], NOON)


@pytest.mark.parametrize(
    ("now", "text", "just", "missed"),
    [
        # Local noon is 23 hours after local noon, and 25 in autumn.
        ("2026-03-29T12:00", "1d", "2026-03-28T12:00:00+01:00", "2026-03-28T12:00:01+01:00"),
        ("2026-03-29T12:00", "24h", "2026-03-28T11:00:00+01:00", "2026-03-28T11:00:01+01:00"),
        ("2026-10-25T12:00", "1d", "2026-10-24T12:00:00+02:00", "2026-10-24T12:00:01+02:00"),
        ("2026-10-25T12:00", "24h", "2026-10-24T13:00:00+02:00", "2026-10-24T13:00:01+02:00"),
        ("2026-10-25T12:00", "1440m", "2026-10-24T13:00:00+02:00", "2026-10-24T13:00:01+02:00"),
        ("2026-11-01T12:00", "1w", "2026-10-25T12:00:00+01:00", "2026-10-25T12:00:01+01:00"),
        ("2026-11-01T12:00", "2w", "2026-10-18T12:00:00+02:00", "2026-10-18T12:00:01+02:00"),
        ("2026-03-31T12:00", "1M", "2026-02-28T12:00:00+01:00", "2026-02-28T12:00:01+01:00"),
        ("2028-03-31T12:00", "1M", "2028-02-29T12:00:00+01:00", "2028-02-29T12:00:01+01:00"),
        ("2026-03-31T12:00", "2M", "2026-01-31T12:00:00+01:00", "2026-01-31T12:00:01+01:00"),
        ("2026-05-31T12:00", "1M", "2026-04-30T12:00:00+02:00", "2026-04-30T12:00:01+02:00"),
        ("2026-01-31T12:00", "1M", "2025-12-31T12:00:00+01:00", "2025-12-31T12:00:01+01:00"),
        ("2026-01-31T12:00", "13M", "2024-12-31T12:00:00+01:00", "2024-12-31T12:00:01+01:00"),
        ("2026-12-15T12:00", "12M", "2025-12-15T12:00:00+01:00", "2025-12-15T12:00:01+01:00"),
        ("2026-07-15T12:00", "6M", "2026-01-15T12:00:00+01:00", "2026-01-15T12:00:01+01:00"),
        ("2028-02-29T12:00", "1y", "2027-02-28T12:00:00+01:00", "2027-02-28T12:00:01+01:00"),
        ("2028-02-29T12:00", "4y", "2024-02-29T12:00:00+01:00", "2024-02-29T12:00:01+01:00"),
    ],
)
def test_how_long_ago_goes_by_the_local_calendar_from_days_on(
    now: str, text: str, just: str, missed: str
) -> None:
    snapshots = taken("2000-01-01T00:00:00+01:00", just, missed)
    assert resolve(text, snapshots, datetime.fromisoformat(now).replace(tzinfo=BERLIN)).name == "s1"


@pytest.mark.parametrize(
    ("zone", "text", "last", "first_after"),
    [
        (BERLIN, "2026-03-29", "2026-03-29T23:59:59.9+02:00", "2026-03-30T00:00:00+02:00"),
        (BERLIN, "2026-10-25", "2026-10-25T23:59:59.9+01:00", "2026-10-26T00:00:00+01:00"),
        (UTC, "2026-10-25", "2026-10-25T23:59:59.9+00:00", "2026-10-26T00:00:00+00:00"),
        # The clocks there show midnight to one twice: the day begins with the first.
        (HAVANA, "2026-10-31", "2026-10-31T23:59:59.9-04:00", "2026-11-01T00:00:00-04:00"),
        (HAVANA, "2026-11-01", "2026-11-01T23:59:59.9-05:00", "2026-11-02T00:00:00-05:00"),
        # They skip it: the day begins at one.
        (HAVANA, "2026-03-07", "2026-03-07T23:59:59.9-05:00", "2026-03-08T01:00:00-04:00"),
    ],
)
def test_a_day_ends_at_local_midnight(
    zone: ZoneInfo, text: str, last: str, first_after: str
) -> None:
    snapshots = taken("2000-01-01T00:00:00+00:00", last.replace(".9", ".999999999"), first_after)
    assert resolve(text, snapshots, NOON.astimezone(zone)).name == "s1"


TWICE = taken(
    "2026-10-25T01:59:00+02:00",
    "2026-10-25T02:10:00+02:00",
    "2026-10-25T02:50:00+02:00",
    "2026-10-25T02:10:00+01:00",
    "2026-10-25T02:50:00+01:00",
    "2026-10-25T03:00:00+01:00",
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("2026-10-25T01:59", "s0"),
        ("2026-10-25T02:10", "s3"),
        ("2026-10-25T02:10:00", "s3"),
        ("2026-10-25T02:59", "s4"),
        ("2026-10-25T03:00", "s5"),
        ("2026-10-25T02:10+02:00", "s1"),
        ("2026-10-25T02:59+02:00", "s2"),
        ("2026-10-25T02:00+01:00", "s2"),
        ("2026-10-25T02:10+01:00", "s3"),
        ("2026-10-25T00:10Z", "s1"),
        ("2026-10-25T01:10Z", "s3"),
    ],
)
def test_an_hour_that_comes_twice_is_the_later_one_unless_the_offset_says(
    text: str, name: str
) -> None:
    assert resolve(text, TWICE, NOON).name == name


@given(
    st.lists(
        st.tuples(st.integers(-LONGEST_AGO, LONGEST_AGO), st.integers(1, SECOND - 1)),
        min_size=1,
        max_size=8,
        unique=True,
    ),
    st.integers(-14 * 60, 14 * 60),
    st.sampled_from([BERLIN, HAVANA, UTC]),
)
def test_every_printed_time_means_its_own_snapshot(
    times: list[tuple[int, int]], minutes: int, zone: ZoneInfo
) -> None:
    snapshots = [
        Snapshot(i, f"s{i}", whole * SECOND + rest, minutes * 60, False)
        for i, (whole, rest) in enumerate(sorted(times))
    ]
    for snapshot in snapshots:
        assert resolve(printed(snapshot), snapshots, NOON.astimezone(zone)) is snapshot


@given(
    st.lists(st.integers(-LONGEST_AGO, LONGEST_AGO), min_size=1, max_size=8, unique=True),
    st.integers(-14 * 60, 14 * 60),
)
def test_a_printed_time_without_a_fraction_means_its_own_snapshot_too(
    seconds: list[int], minutes: int
) -> None:
    snapshots = [
        Snapshot(i, f"s{i}", whole * SECOND, minutes * 60, False)
        for i, whole in enumerate(sorted(seconds))
    ]
    for snapshot in snapshots:
        assert resolve(printed(snapshot), snapshots, NOON) is snapshot


@given(
    st.lists(st.integers(0, 60 * 24 * 40), min_size=1, max_size=12, unique=True),
    st.integers(0, 60 * 24 * 40),
)
def test_minutes_ago_means_the_newest_that_is_old_enough(ages: list[int], asked: int) -> None:
    now = int((NOON - EPOCH) // timedelta(seconds=1)) * SECOND
    oldest_first = sorted(ages, reverse=True)
    snapshots = taken_at([now - age * 60 * SECOND for age in oldest_first])
    old_enough = [age for age in ages if age >= asked]
    if old_enough:
        wanted = snapshots[oldest_first.index(min(old_enough))]
        assert resolve(f"{asked}m", snapshots, NOON) is wanted
    else:
        with pytest.raises(NotInHistory, match="the oldest is s0"):
            resolve(f"{asked}m", snapshots, NOON)


@given(st.integers(1, 20), st.integers(0, 25))
def test_backups_are_counted_back_from_the_mirror(count: int, back: int) -> None:
    snapshots = taken_at([i * SECOND for i in range(count)])
    if back < count:
        assert resolve(f"{back}B", snapshots, NOON) is snapshots[count - 1 - back]
    else:
        with pytest.raises(NotInHistory, match="the oldest is s0"):
            resolve(f"{back}B", snapshots, NOON)


def test_too_many_backups_back_says_how_many_were_asked_for() -> None:
    with pytest.raises(NotInHistory, match="there are not 6 backups before the mirror"):
        resolve("6B", WEEK, NOON)


def test_how_long_ago_takes_in_the_moment_itself_and_nothing_after() -> None:
    now = instant("2026-11-23T12:00:00+01:00")
    assert resolve("0m", taken_at([now - 1, now, now + 1]), NOON).name == "s1"
    assert resolve("0d", taken_at([now - 1, now, now + 1]), NOON).name == "s1"


def test_a_clock_set_back_leaves_the_order_of_backups() -> None:
    snapshots = taken(
        "2026-11-20T02:00:00+01:00", "2026-11-22T02:00:00+01:00", "2026-11-21T02:00:00+01:00"
    )
    assert resolve("latest", snapshots, NOON).name == "s2"
    assert resolve("1B", snapshots, NOON).name == "s1"
    assert resolve("2026-11-22", snapshots, NOON).name == "s2"
    assert resolve("2026-11-20", snapshots, NOON).name == "s0"
