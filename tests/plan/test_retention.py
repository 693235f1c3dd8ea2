"""Which snapshots stay by a policy: restic's rules, checked against a naive account of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.errors import UsageError
from mirrorback.model import Snapshot
from mirrorback.plan.guards import MASS_CHANGE
from mirrorback.plan.retention import (
    ALL,
    MOST,
    NOT_KEPT,
    Fate,
    Policy,
    fates,
    held_by,
    next_to_go,
    read_policy,
)
from mirrorback.plan.sizes import Room
from mirrorback.plan.spans import SECOND, Span, instant

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [UTC, BERLIN, ZoneInfo("America/St_Johns"), ZoneInfo("Australia/Lord_Howe")]
NEVER = 1 << 62  # a `now` after all snapshots
HOUR = 3600 * SECOND


def made(times: Sequence[int], **marks: Any) -> list[Snapshot]:
    """Snapshots of these times, oldest first; `incomplete` and `pinned` by their index."""
    pinned = marks.get("pinned", {})
    return [
        Snapshot(
            id=3 + 2 * index,
            name=f"s{index}",
            time=time,
            offset=0,
            current=index == len(times) - 1,
            incomplete=index in marks.get("incomplete", ()),
            pinned=pinned.get(index),
        )
        for index, time in enumerate(times)
    ]


def at(text: str, zone: tzinfo = BERLIN) -> int:
    """`2026-11-22 14:30`, with a `*` for the second of two such hours."""
    moment = datetime.fromisoformat(text.rstrip("*")).replace(tzinfo=zone, fold=text.endswith("*"))
    return instant(moment)


def kept(
    snapshots: Sequence[Snapshot], policy: Policy, zone: tzinfo = BERLIN, now: int = NEVER
) -> list[int]:
    """The indices of those that stay."""
    return [i for i, fate in enumerate(fates(snapshots, policy, zone, now)) if fate.keep]


def nightly(count: int, *, last: str = "2026-11-22 02:00") -> list[Snapshot]:
    """A snapshot every night at the same local time."""
    newest = datetime.fromisoformat(last).replace(tzinfo=BERLIN)
    return made([instant(newest - timedelta(days=n)) for n in reversed(range(count))])


# --- the rules -----------------------------------------------------------------------------


def test_the_last() -> None:
    assert kept(nightly(10), Policy(last=3)) == [7, 8, 9]
    assert kept(nightly(2), Policy(last=3)) == [0, 1]


def test_the_newest_of_a_day() -> None:
    snapshots = made([at(f"2026-11-{day} {hour}:00") for day in (20, 21, 22) for hour in (10, 23)])
    assert kept(snapshots, Policy(daily=1)) == [5]
    assert kept(snapshots, Policy(daily=2)) == [3, 5]
    assert kept(snapshots, Policy(daily=3)) == [1, 3, 5]


def test_the_oldest_stays_where_there_are_fewer_periods_than_asked_for() -> None:
    snapshots = made([at(f"2026-11-{day} {hour}:00") for day in (20, 21, 22) for hour in (10, 23)])
    found = fates(snapshots, Policy(daily=4), BERLIN, NEVER)
    assert [i for i, fate in enumerate(found) if fate.keep] == [0, 1, 3, 5]
    assert found[0].reasons == ("oldest daily snapshot",)


def test_only_periods_that_have_a_snapshot_count() -> None:
    snapshots = made([at("2020-01-01 05:00"), at("2021-06-01 05:00"), at("2026-11-22 05:00")])
    for rule in ("hourly", "daily", "weekly", "monthly", "yearly"):
        assert kept(snapshots, Policy(**{rule: 2})) == [1, 2]


def test_weeks_begin_on_monday() -> None:
    # 2026-11-22 is a Sunday.
    snapshots = made([at("2026-11-15 23:59"), at("2026-11-16 00:00"), at("2026-11-22 23:59"),
                      at("2026-11-23 00:00")])  # fmt: skip
    assert kept(snapshots, Policy(weekly=3)) == [0, 2, 3]
    assert kept(snapshots, Policy(weekly=2)) == [2, 3]


def test_a_week_over_the_turn_of_the_year_is_one() -> None:
    # 2026-12-28 is a Monday: its week is the 53rd of 2026, and ends on 2027-01-03.
    days = ("2026-12-27", "2026-12-28", "2026-12-31", "2027-01-01", "2027-01-03", "2027-01-04")
    snapshots = made([at(f"{day} 12:00") for day in days])
    assert kept(snapshots, Policy(weekly=3)) == [0, 4, 5]
    # 2024-12-30 is in the first week of 2025, and so not in that of 2024-01-01.
    snapshots = made([at("2024-01-01 12:00"), at("2024-12-30 12:00"), at("2025-01-02 12:00")])
    assert kept(snapshots, Policy(weekly=2)) == [0, 2]


def test_months_and_years() -> None:
    snapshots = made([at(f"{y}-{m:02}-{d} 03:00") for y in (2024, 2025) for m in (1, 2, 12)
                      for d in ("01", "28")])  # fmt: skip
    assert kept(snapshots, Policy(monthly=4)) == [5, 7, 9, 11]
    assert kept(snapshots, Policy(yearly=1)) == [11]
    assert kept(snapshots, Policy(yearly=2)) == [5, 11]


def test_an_hour_that_the_clocks_show_twice_is_two() -> None:
    snapshots = made([at("2026-10-25 01:30"), at("2026-10-25 02:30"), at("2026-10-25 02:30*"),
                      at("2026-10-25 03:30")])  # fmt: skip
    assert kept(snapshots, Policy(hourly=4)) == [0, 1, 2, 3]
    assert kept(snapshots, Policy(hourly=3)) == [1, 2, 3]
    assert kept(snapshots, Policy(daily=1)) == [3]


def test_a_day_of_23_hours_and_one_of_25() -> None:
    for day, hours in (("2026-03-29", 23), ("2026-10-25", 25)):
        start = at(f"{day} 00:00")
        snapshots = made([start - HOUR, *(start + n * HOUR for n in range(hours))])
        assert kept(snapshots, Policy(daily=2)) == [0, hours]
        assert len(kept(snapshots, Policy(hourly=hours))) == hours
        assert kept(made([start, start + hours * HOUR - 1]), Policy(daily=1)) == [1]
        assert kept(made([start, start + hours * HOUR]), Policy(daily=2)) == [0, 1]


def test_the_zone_says_where_a_day_ends() -> None:
    snapshots = made([at("2026-11-22 20:00", UTC), at("2026-11-22 23:30", UTC)])
    assert kept(snapshots, Policy(daily=1), UTC) == [1]
    assert kept(snapshots, Policy(daily=2), ZoneInfo("Asia/Tokyo")) == [0, 1]  # both on the 23rd
    assert kept(snapshots, Policy(daily=1), ZoneInfo("Asia/Tokyo")) == [1]
    reasons = fates(snapshots, Policy(daily=2), BERLIN, NEVER)[0].reasons
    assert reasons == ("daily snapshot",)  # in Berlin it is the day before
    reasons = fates(snapshots, Policy(daily=2), UTC, NEVER)[0].reasons
    assert reasons == ("oldest daily snapshot",)


def test_within_counts_back_from_the_newest_snapshot_whenever_that_was() -> None:
    snapshots = nightly(40)
    assert kept(snapshots, Policy(within=Span(days=7))) == list(range(33, 40))
    assert kept(snapshots, Policy(within=Span(days=7)), now=NEVER) == list(range(33, 40))
    assert kept(snapshots, Policy(within=Span(months=1))) == list(range(9, 40))
    assert kept(snapshots, Policy(within=Span(hours=1))) == [39]


def test_time_machine() -> None:
    """Hourly backups for a hundred days: all of the last day, then the newest of each day of
    the month before, then the newest of each week."""
    newest = at("2026-11-22 14:00")
    snapshots = made([newest - n * HOUR for n in reversed(range(2400))])
    found = [snapshots[i] for i in kept(snapshots, Policy(time_machine=True))]
    times = [datetime.fromtimestamp(s.time / SECOND, BERLIN) for s in found]
    recent = [t for t in times if t.timestamp() > newest / SECOND - 86_400]
    assert len(recent) == 24
    month_ago = datetime(2026, 10, 22, 14, tzinfo=BERLIN)
    days = [t for t in times if month_ago < t and t not in recent]
    assert [t.hour for t in days] == [23] * len(days)
    assert [t.date() for t in days] == [
        (datetime(2026, 10, 22) + timedelta(days=n)).date() for n in range(30)
    ]
    weeks = [t for t in times if t <= month_ago]
    assert weeks and {(t.isoweekday(), t.hour) for t in weeks} == {(7, 23)}
    assert len(weeks) == 10


def test_rules_are_ored_and_every_reason_is_told() -> None:
    found = fates(nightly(3), Policy(last=1, daily=2, within=Span(days=1)), BERLIN, NEVER)
    assert [fate.reasons for fate in found] == [
        (NOT_KEPT,),
        ("daily snapshot",),
        ("the mirror", "last snapshot", "daily snapshot", "within 1d"),
    ]


def test_what_always_stays() -> None:
    snapshots = made(
        [n * 86_400 * SECOND for n in range(6)],
        incomplete={2, 5},
        pinned={0: "mass change on 2026-11-22", 4: ""},
    )
    found = fates(snapshots, Policy(none=True), UTC, NEVER)
    assert [fate.reasons for fate in found] == [
        ("pinned: mass change on 2026-11-22",),
        (NOT_KEPT,),
        (NOT_KEPT,),
        (NOT_KEPT,),
        ("pinned", "last complete before an incomplete one"),
        ("the mirror",),
    ]


def test_the_last_complete_before_a_row_of_incomplete_ones() -> None:
    times = [n * 86_400 * SECOND for n in range(5)]
    assert kept(made(times, incomplete={2, 3, 4}), Policy(last=1), UTC) == [1, 4]
    assert kept(made(times, incomplete={2, 3}), Policy(last=3), UTC) == [1, 2, 3, 4]
    assert kept(made(times, incomplete={0, 1, 2, 3, 4}), Policy(last=1), UTC) == [4]
    # When the incomplete one goes itself, nothing has to stand in for it.
    assert kept(made(times, incomplete={2}), Policy(last=1), UTC) == [4]


def test_only_space_lets_snapshots_go() -> None:
    found = fates(nightly(3), Policy(min_free=Room(bytes=1)), BERLIN, NEVER)
    assert [fate.keep for fate in found] == [True] * 3
    assert found[0].reasons == ("until space is needed",)
    assert found[2].reasons == ("the mirror",)


def test_no_snapshots() -> None:
    for policy in (Policy(last=1), Policy(within=Span(days=1)), Policy(time_machine=True)):
        assert fates([], policy, UTC, 0) == []
    assert next_to_go([]) is None and held_by([]) is None


# --- clocks that were wrong -------------------------------------------------------------------


def test_the_order_of_the_list_is_the_truth() -> None:
    """The clock was set back: of one day, the one made later stays."""
    snapshots = made([at("2026-11-22 23:50"), at("2026-11-23 00:10"), at("2026-11-22 23:40")])
    assert kept(snapshots, Policy(daily=1)) == [2]
    assert kept(snapshots, Policy(daily=2)) == [1, 2]
    assert kept(snapshots, Policy(last=2)) == [1, 2]


def test_a_snapshot_from_the_future_takes_one_period_only() -> None:
    nights = nightly(9)
    wrong = replace(nights[4], time=at("2040-01-01 00:00"))
    snapshots = [*nights[:4], wrong, *nights[5:]]
    assert kept(snapshots, Policy(daily=7)) == [2, 3, 4, 5, 6, 7, 8]
    assert kept(snapshots, Policy(daily=3)) == [6, 7, 8]  # and goes with the others of its age


def test_spans_do_not_count_back_from_the_future() -> None:
    nights = nightly(9)
    snapshots = [*nights[:-1], replace(nights[-1], time=at("2040-01-01 00:00"))]
    policy = Policy(within=Span(days=3))
    assert kept(snapshots, policy, now=at("2026-11-22 03:00")) == [5, 6, 7, 8]
    assert kept(snapshots, policy, now=at("2040-01-01 03:00")) == [8]
    assert kept(made([at("2040-01-01 00:00")] * 2), policy, now=0) == [0, 1]


def test_a_clock_that_fell_back_to_1970_removes_nothing_within() -> None:
    nights = nightly(9)
    snapshots = [*nights[:-1], replace(nights[-1], time=0)]
    assert kept(snapshots, Policy(within=Span(days=3))) == list(range(9))


def test_two_snapshots_in_one_second() -> None:
    snapshots = made([at("2026-11-22 02:00")] * 3)
    assert kept(snapshots, Policy(hourly=1)) == [2]
    assert kept(snapshots, Policy(last=2)) == [1, 2]
    assert kept(snapshots, Policy(within=Span(hours=1))) == [0, 1, 2]


@pytest.mark.parametrize("time", [-(1 << 63), (1 << 63) - 1])
def test_any_time_that_a_catalog_can_hold(time: int) -> None:
    for zone in ZONES:
        policy = Policy(1, 1, 1, 1, 1, 1, Span(years=1000), time_machine=True)
        assert kept(made([time, 0, time]), policy, zone)[-1] == 2


# --- properties -------------------------------------------------------------------------------


NUMBERS = st.none() | st.integers(1, 6) | st.just(ALL)
SPANS = st.builds(
    Span, st.integers(0, 2), st.integers(0, 3), st.integers(0, 40), st.integers(1, 50)
)
POLICIES = st.builds(
    Policy, *[NUMBERS] * 6, within=st.none() | SPANS, time_machine=st.booleans()
).filter(lambda policy: policy.by_age)


@st.composite
def histories(draw: st.DrawFn) -> list[Snapshot]:
    """Histories with steps of seconds to years, some of them back."""
    step = st.sampled_from([0, 1, 600, 1800, 3600, 40_000, 86_400, 604_800, 2_700_000, 31_536_000])
    time = draw(st.sampled_from([at("2026-03-28 20:00"), at("2026-10-24 20:00"), at("2024-12-27")]))
    times = []
    for seconds in draw(st.lists(step, max_size=30)):
        time += (seconds if draw(st.integers(0, 9)) else -seconds) * SECOND
        times.append(time)
    marks = st.sets(st.integers(0, 30), max_size=6)
    return made(times, incomplete=draw(marks), pinned=dict.fromkeys(draw(marks), "by hand"))


def naive(snapshots: Sequence[Snapshot], policy: Policy, zone: tzinfo, now: int) -> set[str]:
    """The names of those that stay, rule by rule, told as the manual tells it."""
    keep: set[str] = set()
    stamped = [(s, datetime.fromtimestamp(s.time // SECOND, UTC).astimezone(zone))
               for s in snapshots]  # fmt: skip

    def key(rule: str, moment: datetime) -> str:
        return {
            "hourly": moment.strftime("%Y-%m-%d %H %z"),
            "daily": moment.strftime("%Y-%m-%d"),
            "weekly": moment.strftime("%G-%V"),
            "monthly": moment.strftime("%Y-%m"),
            "yearly": moment.strftime("%Y"),
        }[rule]

    def newest_of_each(rule: str, among: list[tuple[Snapshot, datetime]]) -> list[Snapshot]:
        periods: list[str] = []
        for _s, moment in reversed(among):
            if key(rule, moment) not in periods:
                periods.append(key(rule, moment))
        return [[s for s, moment in among if key(rule, moment) == period][-1]
                for period in periods]  # fmt: skip

    for rule in ("hourly", "daily", "weekly", "monthly", "yearly"):
        count = getattr(policy, rule)
        if count is not None and snapshots:
            newest = newest_of_each(rule, stamped)
            keep |= {s.name for s in newest[:count]}
            if len(newest) < count:
                keep.add(snapshots[0].name)
    if policy.last is not None:
        keep |= {s.name for s in snapshots[-policy.last :]}
    true = [s for s in snapshots if s.time <= now] or list(snapshots)

    def since(span: Span) -> list[tuple[Snapshot, datetime]]:
        return [(s, m) for s, m in stamped if s.time > span.before(true[-1].time, zone)]

    if policy.within is not None and snapshots:
        keep |= {s.name for s, _m in since(policy.within)}
    if policy.time_machine and snapshots:
        keep |= {s.name for s, _m in since(Span(hours=24))}
        keep |= {s.name for s in newest_of_each("daily", since(Span(months=1)))}
        keep |= {s.name for s in newest_of_each("weekly", stamped)}
    keep |= {s.name for s in snapshots if s.pinned is not None or s.current}
    for index, snapshot in enumerate(snapshots):
        if snapshot.incomplete and snapshot.name in keep:
            keep |= {[s for s in snapshots[:index] if not s.incomplete][-1].name
                     for _ in [0] if any(not s.incomplete for s in snapshots[:index])}  # fmt: skip
    return keep


ZONED = st.sampled_from(ZONES) | st.timezones()
NOWS = st.sampled_from([NEVER, at("2026-10-25 00:00"), at("2027-06-01 00:00")])


@given(histories(), POLICIES, ZONED, NOWS)
def test_as_told_by_the_manual(
    snapshots: list[Snapshot], policy: Policy, zone: tzinfo, now: int
) -> None:
    found = fates(snapshots, policy, zone, now)
    assert [fate.snapshot for fate in found] == snapshots
    assert all(fate.reasons and fate.keep is (fate.reasons != (NOT_KEPT,)) for fate in found)
    assert {f.snapshot.name for f in found if f.keep} == naive(snapshots, policy, zone, now)


@given(histories(), POLICIES, ZONED, NOWS)
def test_pruning_again_removes_nothing(
    snapshots: list[Snapshot], policy: Policy, zone: tzinfo, now: int
) -> None:
    left = [f.snapshot for f in fates(snapshots, policy, zone, now) if f.keep]
    assert all(fate.keep for fate in fates(left, policy, zone, now))


RULES = [field.name for field in fields(Policy)][:6]


@given(histories(), POLICIES, st.sampled_from(RULES), st.integers(1, 8), ZONED, NOWS)
def test_another_rule_never_removes_more(
    snapshots: list[Snapshot], policy: Policy, rule: str, count: int, zone: tzinfo, now: int
) -> None:
    fewer = replace(policy, **{rule: None})
    more = replace(policy, **{rule: count})
    if fewer.by_age:
        assert set(kept(snapshots, fewer, zone, now)) <= set(kept(snapshots, more, zone, now))
    machine = replace(policy, time_machine=True)
    assert set(kept(snapshots, policy, zone, now)) <= set(kept(snapshots, machine, zone, now))


@given(histories(), st.sampled_from(RULES), st.integers(1, 8), ZONED)
def test_more_periods_keep_more(
    snapshots: list[Snapshot], rule: str, count: int, zone: tzinfo
) -> None:
    fewer = kept(snapshots, Policy(**{rule: count}), zone)
    more = kept(snapshots, Policy(**{rule: count + 1}), zone)
    assert set(fewer) <= set(more) <= set(kept(snapshots, Policy(**{rule: ALL}), zone))
    assert len(more) >= min(len(snapshots), 1)


@given(histories(), st.just(Policy(none=True)) | POLICIES, ZONED)
def test_the_mirror_and_pins_stay(snapshots: list[Snapshot], policy: Policy, zone: tzinfo) -> None:
    for fate in fates(snapshots, policy, zone, NEVER):
        if fate.snapshot.current or fate.snapshot.pinned is not None:
            assert fate.keep


@given(histories())
def test_for_space_the_oldest_goes_until_only_what_always_stays_is_left(
    snapshots: list[Snapshot],
) -> None:
    left = list(snapshots)
    while (going := next_to_go(left)) is not None:
        assert not going.current and going.pinned is None
        following = left[left.index(going) + 1]
        if not going.incomplete:  # never the last complete before an incomplete one
            assert not following.incomplete
        left.remove(going)
    assert left == [f.snapshot for f in fates(left, Policy(none=True), UTC, NEVER) if f.keep]
    assert {s.id for s in snapshots if s.current or s.pinned is not None} <= {s.id for s in left}


def test_a_long_history_is_quick() -> None:
    chance = random.Random(1)
    times = sorted(chance.randrange(0, 10**9) * SECOND for _ in range(20_000))
    assert len(kept(made(times), Policy(1, 2, 3, 4, 5, ALL, Span(years=1), True))) > 20


# --- what holds thinning, and what is typed -----------------------------------------------------


def test_a_mass_change_holds_thinning() -> None:
    snapshots = made([0, 1, 2], pinned={0: "by hand"})
    assert held_by(snapshots) is None
    snapshots = made([0, 1, 2], pinned={1: f"{MASS_CHANGE} on 2026-11-22: 2"})
    assert held_by(snapshots) == snapshots[1]


def test_a_policy_as_typed() -> None:
    assert read_policy() is None
    assert read_policy(
        keep_last="1", keep_hourly="24", keep_daily="unlimited", keep_within="1y2m", min_free="10%"
    ) == Policy(
        last=1,
        hourly=24,
        daily=ALL,
        within=Span(1, 2),
        min_free=Room(percent=10),  # type: ignore[arg-type]
    )
    assert read_policy(keep_none=True) == Policy(none=True)
    assert read_policy(time_machine=True, min_free="1G") == Policy(
        time_machine=True, min_free=Room(bytes=1 << 30)
    )
    assert not Policy(min_free=Room(bytes=1)).by_age
    assert Policy(none=True).by_age and Policy(time_machine=True).by_age


@pytest.mark.parametrize(
    "text",
    ["0", "-1", "-5", "", "x", "1.5", "1e3", "+3", " 3", "3 ", "³", str(MOST + 1), "9" * 5000,
     "all", "Unlimited", "0x10", "1_000"],
)  # fmt: skip
@pytest.mark.parametrize("rule", RULES)
def test_numbers_that_keep_nothing_or_are_none(rule: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"--keep-{rule}"):
        read_policy(**{f"keep_{rule}": text})  # type: ignore[arg-type]


def test_other_nonsense_names_its_option() -> None:
    with pytest.raises(UsageError, match="--keep-within"):
        read_policy(keep_within="yesterday")
    with pytest.raises(UsageError, match="--min-free"):
        read_policy(min_free="lots")


@pytest.mark.parametrize(
    "other", [{"keep_last": "1"}, {"time_machine": True}, {"min_free": "1G"}, {"keep_within": "1d"}]
)
def test_to_keep_nothing_goes_with_no_other_rule(other: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--keep-none"):
        read_policy(keep_none=True, **other)


def test_a_fate_is_a_value() -> None:
    [only] = made([0])
    assert fates([only], Policy(last=1), UTC, 0) == [
        Fate(only, True, ("the mirror", "last snapshot"))
    ]
