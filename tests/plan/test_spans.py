"""Spans such as 2y5m7d3h: how they are read, and what they count back to."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.errors import UsageError
from mirrorback.plan.spans import FAR, SECOND, Span, instant, parse_span

BERLIN = ZoneInfo("Europe/Berlin")


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0, fold: int = 0) -> int:
    return instant(datetime(year, month, day, hour, minute, tzinfo=BERLIN, fold=fold))


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("2y5m7d3h", Span(2, 5, 7, 3)),
        ("30d", Span(days=30)),
        ("6m", Span(months=6)),
        ("36h", Span(hours=36)),
        ("1000y", Span(years=1000)),
        ("3h2y", Span(years=2, hours=3)),
        ("0y1d", Span(days=1)),
        ("007d", Span(days=7)),
    ],
)
def test_spans_that_are_some(text: str, span: Span) -> None:
    assert parse_span(text) == span


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "5", "y", "0d", "0y0m0d0h", "-3d", "3d-2h", "1.5d", "3 d", " 3d", "3d ", "3w",
     "3D", "3M", "3d4d", "1001y", "999999999999999999999h", "٣d", "3d\n", "2y5m7d3", "+3d", "3s",
     "12001m", "1e3d"],
)  # fmt: skip
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="span of time"):
        parse_span(text)


@given(st.builds(Span, *[st.integers(0, 1000)] * 4).filter(lambda span: span != Span()))
def test_a_span_is_written_as_it_is_read(span: Span) -> None:
    assert parse_span(str(span)) == span


@pytest.mark.parametrize(
    ("span", "then"),
    [
        ("1h", at(2026, 3, 31, 11)),
        ("1d", at(2026, 3, 30, 12)),
        ("3d", at(2026, 3, 28, 12)),  # over the change of the clocks: the same time of day
        ("72h", at(2026, 3, 28, 11)),  # hours pass: one was left out
        ("1m", at(2026, 2, 28, 12)),  # the month's end
        ("1m1d", at(2026, 2, 27, 12)),
        ("1y", at(2025, 3, 31, 12)),
        ("2y1m", at(2024, 2, 29, 12)),
        ("1y1m1d1h", at(2025, 2, 27, 11)),
    ],
)
def test_back_by_the_calendar(span: str, then: int) -> None:
    assert parse_span(span).before(at(2026, 3, 31, 12), BERLIN) == then


def test_into_an_hour_that_there_is_twice_or_not_at_all() -> None:
    """The earlier instant: more lies within."""
    day = parse_span("1d")
    assert day.before(at(2026, 10, 26, 2, 30), BERLIN) == at(2026, 10, 25, 2, 30, fold=0)
    assert day.before(at(2026, 3, 30, 2, 30), BERLIN) == at(2026, 3, 29, 2, 30, fold=1)
    assert at(2026, 3, 29, 2, 30, fold=1) < at(2026, 3, 29, 2, 30, fold=0)


def test_hours_are_exact_from_either_of_two_hours() -> None:
    for fold in (0, 1):
        start = at(2026, 10, 25, 2, 30, fold)
        assert parse_span("1h").before(start, BERLIN) == start - 3600 * SECOND


def test_fractions_of_a_second_stay() -> None:
    assert parse_span("1d").before(5 * 86_400 * SECOND + 7, UTC) == 4 * 86_400 * SECOND + 7


def test_before_the_calendar_begins() -> None:
    assert parse_span("1000y1000y"[:5]).before(-(1 << 63), UTC) < -(1 << 63)
    assert Span(years=1000, months=12_000).before(0, UTC) == -FAR


@given(
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.builds(Span, *[st.integers(0, 100)] * 4).filter(lambda span: span != Span()),
    st.sampled_from([UTC, BERLIN, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Asia/Kathmandu")]),
)
def test_a_span_leads_back_always(time: int, span: Span, zone: ZoneInfo) -> None:
    assert span.before(time, zone) < time
