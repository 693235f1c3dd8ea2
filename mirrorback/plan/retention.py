"""Retention: which snapshots stay by a policy, and why.

The rules are those of restic's `forget` and borg's `prune` (restic's manual, "Removing
snapshots according to a policy"): for each rule, newest first, the newest snapshot of each of
the last N periods that have one stays; where there are fewer periods than N, so does the oldest
snapshot, so that history grows until it is as long as asked for.  Rules are ORed, and count by
themselves: what one keeps is a snapshot like any other for the next.

Periods are natural ones of the local calendar: hours, days, weeks from Monday, months, years.
An hour that the clocks show twice is two: each is sixty minutes of work.  An hour that they
leave out has no snapshots.

The order of the list is the truth about which snapshot is newer.  A time stamp only says which
period one counts for: one that was taken while the clock was wrong takes a period of its own at
most, wherever that lies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TypeVar

from mirrorback.errors import UsageError
from mirrorback.model import Snapshot
from mirrorback.plan import guards
from mirrorback.plan.sizes import Room, parse_room
from mirrorback.plan.spans import SECOND, Span, parse_span

UNLIMITED = "unlimited"
ALL = 1 << 62  # more than there will ever be
MOST = 1_000_000  # snapshots to keep by one rule: more is a slip of the hand
DAY = Span(hours=24)
MONTH = Span(months=1)
NOT_KEPT = "no rule keeps it"
FOR_SPACE = "the oldest, to free space"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

T = TypeVar("T")
Period = Callable[[datetime], Hashable]


def _hour(moment: datetime) -> Hashable:
    return moment.date(), moment.hour, moment.utcoffset()


def _day(moment: datetime) -> Hashable:
    return moment.date()


def _week(moment: datetime) -> Hashable:
    return moment.isocalendar()[:2]  # of the year to which the week's Thursday belongs


def _month(moment: datetime) -> Hashable:
    return moment.year, moment.month


def _year(moment: datetime) -> Hashable:
    return moment.year


@dataclass(frozen=True, slots=True)
class Policy:
    """What is to stay.  Numbers are of periods, or snapshots for `last`; None is no such rule,
    ALL all of them."""

    last: int | None = None
    hourly: int | None = None
    daily: int | None = None
    weekly: int | None = None
    monthly: int | None = None
    yearly: int | None = None
    within: Span | None = None
    time_machine: bool = False  # all of 24 hours, daily for a month, weekly beyond
    none: bool = False  # nothing, but for what always stays
    min_free: Room | None = None  # then the oldest go until this much of the drive is free

    @property
    def by_age(self) -> bool:
        """Whether there is a rule that lets snapshots go for their age; else all stay until
        their space is needed."""
        return self.none or self != Policy(min_free=self.min_free)


def read_policy(
    *,
    keep_last: str | None = None,
    keep_hourly: str | None = None,
    keep_daily: str | None = None,
    keep_weekly: str | None = None,
    keep_monthly: str | None = None,
    keep_yearly: str | None = None,
    keep_within: str | None = None,
    time_machine: bool = False,
    keep_none: bool = False,
    min_free: str | None = None,
) -> Policy | None:
    """A policy from options as they are typed; None where there are none.  Raises UsageError."""
    policy = Policy(
        last=_count("--keep-last", keep_last),
        hourly=_count("--keep-hourly", keep_hourly),
        daily=_count("--keep-daily", keep_daily),
        weekly=_count("--keep-weekly", keep_weekly),
        monthly=_count("--keep-monthly", keep_monthly),
        yearly=_count("--keep-yearly", keep_yearly),
        within=None if keep_within is None else _named("--keep-within", keep_within, parse_span),
        time_machine=time_machine,
        none=keep_none,
        min_free=None if min_free is None else _named("--min-free", min_free, parse_room),
    )
    if policy.none and policy != Policy(none=True):
        raise UsageError("--keep-none keeps nothing: leave it out, or all other rules")
    return None if policy == Policy() else policy


def _count(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    if text == UNLIMITED:
        return ALL
    count = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
    if not 1 <= count <= MOST:
        raise UsageError(
            f"{option} {text}: give a number from 1 to {MOST:,}, or {UNLIMITED}"
            " (to keep nothing, --keep-none)"
        )
    return count


def _named(option: str, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except UsageError as error:
        raise UsageError(f"{option} {error}") from None


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a snapshot, and why."""

    snapshot: Snapshot
    keep: bool
    reasons: tuple[str, ...]


def fates(snapshots: Sequence[Snapshot], policy: Policy, zone: tzinfo, now: int) -> list[Fate]:
    """The fate of each snapshot, in the order given: oldest first, the last is the mirror.

    Periods are those of `zone`.  Spans are counted back from the newest snapshot; not from one
    that was taken later than `now` (ns since 1970), which would let all others be old.
    """
    reasons = {snapshot.id: _standing(snapshot) for snapshot in snapshots}
    for number, reason in _by_rules(snapshots, policy, zone, now):
        reasons[number].append(reason)
    staying = {number for number, found in reasons.items() if found}
    for number in _fallbacks(snapshots, staying):
        reasons[number].append("last complete before an incomplete one")
    return [
        Fate(snapshot, bool(found), tuple(found or [NOT_KEPT]))
        for snapshot in snapshots
        for found in [reasons[snapshot.id]]
    ]


def next_to_go(snapshots: Sequence[Snapshot]) -> Snapshot | None:
    """The oldest of the snapshots there are (in their order) that may go where space is
    needed; None where all have to stay."""
    everything = {snapshot.id for snapshot in snapshots}
    fallbacks = _fallbacks(snapshots, everything)
    return next(
        (s for s in snapshots if not _standing(s) and s.id not in fallbacks),
        None,
    )


def needed_by(snapshots: Sequence[Snapshot], going: Collection[int]) -> dict[int, Snapshot]:
    """Of those that are to go, by their ids: those that are the last complete before an incomplete
    one that stays, each with that."""
    last: Snapshot | None = None
    needed: dict[int, Snapshot] = {}
    for snapshot in snapshots:
        if not snapshot.incomplete:
            last = snapshot
        elif last is not None and last.id in going and snapshot.id not in going:
            needed.setdefault(last.id, snapshot)
    return needed


def may_go(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """All that may go where space is needed, in the order in which they would."""
    staying, going = list(snapshots), []
    while (oldest := next_to_go(staying)) is not None:
        staying.remove(oldest)
        going.append(oldest)
    return going


def held_by(snapshots: Sequence[Snapshot]) -> Snapshot | None:
    """The snapshot whose pin holds all thinning, since nobody has acknowledged a mass change
    yet; None where there is none."""
    return next((s for s in snapshots if guards.holds_thinning(s.pinned)), None)


def _standing(snapshot: Snapshot) -> list[str]:
    """Why a snapshot stays whatever the rules say."""
    reasons = ["the mirror"] if snapshot.current else []
    if snapshot.pinned is not None:
        reasons.append(f"pinned: {snapshot.pinned}" if snapshot.pinned else "pinned")
    return reasons


def _fallbacks(snapshots: Sequence[Snapshot], staying: Collection[int]) -> set[int]:
    """The last complete snapshot before each incomplete one that stays."""
    complete = None
    found = set()
    for snapshot in snapshots:
        if not snapshot.incomplete:
            complete = snapshot.id
        elif snapshot.id in staying and complete is not None:
            found.add(complete)
    return found


def _by_rules(
    snapshots: Sequence[Snapshot], policy: Policy, zone: tzinfo, now: int
) -> list[tuple[int, str]]:
    """Ids of snapshots that rules keep, each with the rule's name."""
    if not policy.by_age:
        return [(s.id, "until space is needed") for s in snapshots if not _standing(s)]
    newest_first = snapshots[::-1]
    local = {snapshot.id: _local(snapshot.time, zone) for snapshot in snapshots}

    def of_each(period: Period, among: Sequence[Snapshot]) -> list[Snapshot]:
        """The newest snapshot of each period, newest first."""
        found: dict[Hashable, Snapshot] = {}
        for snapshot in among:
            found.setdefault(period(local[snapshot.id]), snapshot)
        return list(found.values())

    kept: list[tuple[Snapshot, str]] = []
    if policy.last is not None:
        kept += [(snapshot, "last snapshot") for snapshot in newest_first[: policy.last]]
    for count, period, name in (
        (policy.hourly, _hour, "hourly snapshot"),
        (policy.daily, _day, "daily snapshot"),
        (policy.weekly, _week, "weekly snapshot"),
        (policy.monthly, _month, "monthly snapshot"),
        (policy.yearly, _year, "yearly snapshot"),
    ):
        if count is not None:
            found = of_each(period, newest_first)
            kept += [(snapshot, name) for snapshot in found[:count]]
            if found and len(found) < count and found[-1] != snapshots[0]:
                kept.append((snapshots[0], f"oldest {name}"))
    origin = _origin(snapshots, now)
    if policy.within is not None:
        recent = _since(newest_first, policy.within.before(origin, zone))
        kept += [(snapshot, f"within {policy.within}") for snapshot in recent]
    if policy.time_machine:
        recent = _since(newest_first, DAY.before(origin, zone))
        kept += [(snapshot, "within 24 hours") for snapshot in recent]
        recent = _since(newest_first, MONTH.before(origin, zone))
        kept += [(snapshot, "daily snapshot of a month") for snapshot in of_each(_day, recent)]
        kept += [(snapshot, "weekly snapshot") for snapshot in of_each(_week, newest_first)]
    return [(snapshot.id, reason) for snapshot, reason in kept]


def _origin(snapshots: Sequence[Snapshot], now: int) -> int:
    """From when spans count back."""
    for snapshot in reversed(snapshots):
        if snapshot.time <= now:
            return snapshot.time
    return snapshots[-1].time if snapshots else now


def _since(snapshots: Sequence[Snapshot], start: int) -> list[Snapshot]:
    return [snapshot for snapshot in snapshots if snapshot.time > start]


def _local(time: int, zone: tzinfo) -> datetime:
    return (_EPOCH + timedelta(seconds=time // SECOND)).astimezone(zone)
