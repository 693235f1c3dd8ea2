"""Schedules mean what systemd takes them for."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrorback.errors import UsageError
from mirrorback.plan.calendar_event import cron_fields, interval, launchd_intervals, parse

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 25, 11, 53, 7, tzinfo=BERLIN)  # a Wednesday
JUDGE = shutil.which("systemd-analyze")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("text", "full", "coming"),
    [
        ("daily 02:00", "*-*-* 02:00:00", "2026-11-26T02:00:00"),
        ("Daily 02:00", "*-*-* 02:00:00", "2026-11-26T02:00:00"),
        ("daily", "*-*-* 00:00:00", "2026-11-26T00:00:00"),
        ("hourly", "*-*-* *:00:00", "2026-11-25T12:00:00"),
        ("weekly", "Mon *-*-* 00:00:00", "2026-11-30T00:00:00"),
        ("weekly 03:00", "Mon *-*-* 03:00:00", "2026-11-30T03:00:00"),
        ("weekly sun 03:00", "Sun *-*-* 03:00:00", "2026-11-29T03:00:00"),
        ("monthly 04:30", "*-*-01 04:30:00", "2026-12-01T04:30:00"),
        ("yearly", "*-01-01 00:00:00", "2027-01-01T00:00:00"),
        ("Mon-Fri 10:00", "Mon..Fri *-*-* 10:00:00", "2026-11-26T10:00:00"),
        ("Sat,Thu,Mon..Wed", "Mon..Thu,Sat *-*-* 00:00:00", "2026-11-26T00:00:00"),
        ("*-02~01", "*-02~01 00:00:00", "2027-02-28T00:00:00"),
        ("*-2-29", "*-02-29 00:00:00", "2028-02-29T00:00:00"),
        ("12:00/20", "*-*-* 12:00/20:00", "2026-11-25T12:00:00"),
        ("03:00 UTC", "*-*-* 03:00:00 UTC", "2026-11-26T04:00:00"),
    ],
)
def test_a_schedule_is_understood(text: str, full: str, coming: str) -> None:
    event = parse(text)
    assert event.text() == full
    assert event.after(NOW) == at(coming)
    assert parse(full) == event


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "nightly", "daily 25:00", "24:00", "daily 02:00 x", "*-13-01", "Mon..Foo"),
        *("02", "UTC", "12:60", "*-*-0", "12:0/0", "*:55/5", "*/2:00", "daily daily", "1e3:00"),
        *("02:00 Europe/Berlin", "weekly sun,foo 3:00", "hourly 3:00", "*-*~1/2", "*~29"),
        *("sat..mon", "٣:00"),
    ],
)
def test_what_is_no_schedule_is_an_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


@pytest.mark.parametrize("text", ["*-02-30", "2020-01-01", "2024-*-*"])
def test_a_schedule_may_never_come(text: str) -> None:
    assert parse(text).after(NOW) is None
    assert interval(parse(text), NOW) is None


def test_an_hour_that_the_clocks_leave_out_comes_when_they_have_gone_on() -> None:
    event = parse("daily 02:30")
    coming = event.after(at("2027-03-27T12:00:00"))
    assert coming is not None
    assert coming.astimezone(BERLIN).isoformat() == "2027-03-28T03:30:00+02:00"
    assert event.after(coming) == at("2027-03-29T02:30:00")


def test_an_hour_that_the_clocks_show_twice_counts_once() -> None:
    event = parse("daily 02:30")
    first = event.after(at("2026-10-24T12:00:00"))
    assert first is not None and first.isoformat() == "2026-10-25T02:30:00+02:00"
    assert event.after(first) == at("2026-10-26T02:30:00")


def test_the_time_between_two() -> None:
    assert interval(parse("daily 02:00"), NOW) == timedelta(days=1)
    assert interval(parse("weekly"), NOW) == timedelta(days=7)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("daily 02:00", "0 2 * * *"),
        ("weekly sun 03:05", "5 3 * * 0"),
        ("Mon..Fri 10,12:30", "30 10,12 * * 1,2,3,4,5"),
        ("monthly 04:00", "0 4 1 * *"),
        ("*:0/15", "0,15,30,45 * * * *"),
        ("*-*~1", None),
        ("2027-*-* 1:00", None),
        ("02:00:30", None),
        ("02:00 UTC", None),
        ("Mon *-*-13", None),
    ],
)
def test_what_cron_can_say(text: str, fields: str | None) -> None:
    assert cron_fields(parse(text)) == fields


def test_what_launchd_can_say() -> None:
    assert launchd_intervals(parse("daily 02:00")) == [{"Hour": 2, "Minute": 0}]
    assert launchd_intervals(parse("Sun,Mon 3:00")) == [
        {"Weekday": 1, "Hour": 3, "Minute": 0},
        {"Weekday": 0, "Hour": 3, "Minute": 0},
    ]
    assert launchd_intervals(parse("Mon *-*-13")) is None
    assert launchd_intervals(parse("0..23:0..58/2")) is None


def numbers(least: int, most: int) -> st.SearchStrategy[str]:
    number = st.integers(least, most)
    part = st.one_of(
        number.map(str),
        st.tuples(number, number).map(lambda pair: f"{pair[0]}..{pair[1]}"),
        st.tuples(number, st.integers(0, 7)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
        st.tuples(number, number, st.integers(1, 5)).map(lambda p: f"{p[0]}..{p[1]}/{p[2]}"),
    )
    return st.one_of(st.just("*"), st.lists(part, min_size=1, max_size=3).map(",".join))


WEEKDAYS = st.lists(
    st.sampled_from(["Mon", "tue", "Wednesday", "Thu..Fri", "Fri-sunday", "Sun..Mon"]),
    min_size=1,
    max_size=2,
).map(",".join)
DATES = st.tuples(numbers(2020, 2035), numbers(1, 12), numbers(1, 31)).map("-".join)
CLOCKS = st.tuples(numbers(0, 23), numbers(0, 59), numbers(0, 59)).map(":".join)
EXPRESSIONS = st.tuples(
    st.one_of(st.just(""), WEEKDAYS),
    st.one_of(st.just(""), DATES),
    st.one_of(st.just(""), CLOCKS),
    st.sampled_from(["", "", "UTC"]),
).map(lambda parts: " ".join(filter(None, parts)))


def judged(text: str) -> subprocess.CompletedProcess[str]:
    assert JUDGE is not None
    return subprocess.run(
        [JUDGE, "calendar", "--base-time", "2026-11-25 11:53:07", "--iterations", "2", text],
        capture_output=True,
        text=True,
        env={"TZ": "Europe/Berlin", "LC_ALL": "C"},
    )


@pytest.mark.skipif(JUDGE is None, reason="systemd-analyze is not installed")
@settings(max_examples=150, deadline=None)
@given(EXPRESSIONS)
def test_systemd_takes_it_the_same_way(text: str) -> None:
    done = judged(text)
    if "Infinite loop" in done.stderr:
        return
    if done.returncode:
        with contextlib.suppress(UsageError):  # such as 3..3, which we write as 3
            assert judged(parse(text).text()).returncode == 0
        return
    told = [line.split(": ", 1)[1].strip() for line in done.stdout.splitlines() if ": " in line]
    keys = [line.split(":")[0].strip() for line in done.stdout.splitlines()]
    coming = [
        None if value == "never" else value[4:23]
        for key, value in zip(keys, told, strict=False)
        if key == "Next elapse" or key.startswith("Iter")
    ]
    event, moment = parse(text), NOW
    for wanted in coming:
        found = event.after(moment)
        assert (found and found.strftime("%Y-%m-%d %H:%M:%S")) == wanted
        moment = found or moment
    assert parse(event.text()) == event
