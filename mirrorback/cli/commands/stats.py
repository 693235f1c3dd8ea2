"""`mirrorback stats`: what takes the space, and what deleting would free."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from mirrorback.cli import chart, shapes, table, words
from mirrorback.cli.command import add
from mirrorback.cli.escape import escape
from mirrorback.cli.options import Repo
from mirrorback.cli.session import Session
from mirrorback.errors import UsageError

if TYPE_CHECKING:
    from mirrorback.engine.stats import (
        Added,
        Forecast,
        Heavy,
        Overview,
        Period,
        Share,
        Together,
        Totals,
    )

PERIODS = 60  # shown where there is no terminal
MOST_PATHS = 100_000
WEEK = 7 * 86_400 * words.SECOND
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AXIS = "1023.9 MiB"  # as wide as any label beside a chart


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "stats", stats)


def stats(
    session: Session,
    repo: Repo,
    snapshots: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SNAPSHOT | FIRST..LAST]...", help="Only these; what they free together."
        ),
    ] = None,
    top: Annotated[
        str, typer.Option("--top", metavar="N", help="How many paths are listed (10).")
    ] = "10",
) -> int:
    """Tell what takes the space, what deleting snapshots would free, and how it grows."""
    from mirrorback.engine.stats import Statistics

    count = _count(top)
    now = session.now
    with session.history(repo) as history:
        asked = Statistics(history, now)
        chosen = asked.chosen(snapshots or [])
        together = asked.together(chosen) if snapshots else None
        shares = asked.shares(chosen)
        overview = asked.overview(count) if session.json or not snapshots else None
    if session.json and overview is not None:
        _print_json(session, shares, together, overview, now)
        return 0
    _show_shares(session, shares)
    if together is not None:
        _show_together(session, together)
    if overview is not None:
        _show_totals(session, overview.totals)
        _show_growth(session, overview.growth, overview.forecast)
        _show_paths(session, "Largest, all versions together", overview.largest)
        _show_paths(session, "Most often changed", overview.most_changed)
    return 0


def _count(text: str) -> int:
    """Raises UsageError."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= MOST_PATHS):
        raise UsageError(f"--top {escape(text)}: give a number, at most {MOST_PATHS:,}")
    return int(text)


def _print_json(
    session: Session,
    shares: Sequence[Share],
    together: Together | None,
    overview: Overview,
    now: datetime,
) -> None:
    moment = (now - EPOCH) // timedelta(microseconds=1) * 1000
    session.out.json(
        {
            "snapshots": [shapes.share(one) for one in shares],
            "together": None if together is None else shapes.together(together),
            "totals": shapes.totals(overview.totals, overview.forecast, moment, session.zone),
            "growth": shapes.growth(overview.growth),
            "largest": [shapes.heavy(one) for one in overview.largest],
            "most_changed": [shapes.heavy(one) for one in overview.most_changed],
        }
    )


def _show_shares(session: Session, shares: Sequence[Share]) -> None:
    table.show(
        session.out,
        ("SNAPSHOT", "FILES", "SIZE", "ONLY IN IT", "FREES", ""),
        (
            (
                one.snapshot.name,
                f"{one.snapshot.files:,}",
                words.size(one.snapshot.bytes),
                words.size(one.exclusive, one.exclusive_estimated),
                "-" if one.frees is None else words.size(one.frees, one.frees_estimated),
                "current" if one.snapshot.current else _pinned(one),
            )
            for one in shares
        ),
        right=" >>>>",
    )


def _pinned(one: Share) -> str:
    return "" if one.snapshot.pinned is None else "pinned"


def _show_together(session: Session, together: Together) -> None:
    count = words.number(len(together.snapshots), "snapshot")
    session.out.line(
        f"deleting {count} frees {words.size(together.frees, together.estimated)}"
        + (" together" if len(together.snapshots) > 1 else "")
    )


def _show_totals(session: Session, totals: Totals) -> None:
    ratio = "" if totals.ratio is None else f", {totals.ratio:.1f} times as much"
    other = sum(totals.rest.values())
    session.out.line()
    for line in (
        f"{words.number(totals.snapshots, 'snapshot')}, {words.number(totals.versions, 'version')}"
        " of files",
        f"as copies: {words.size(totals.logical)}{ratio}",
        f"on the drive: {words.size(totals.drive, totals.estimated)}",
        f"  files {words.size(totals.files, totals.estimated)},"
        f" folders {words.size(totals.folders)}",
        f"  catalog {words.size(totals.catalog)}, the rest {words.size(other)}",
        f"free on the drive: {words.size(totals.free)}",
    ):
        session.out.line(line)


def _show_growth(session: Session, points: Sequence[Added], leads: Forecast | None) -> None:
    if not points:
        return
    session.out.line()
    if not (session.out.is_terminal and _plot(session, points)):
        unit, found = _periods(points, PERIODS)
        session.out.line(f"Added by each {unit}")
        rows = ((p.label, words.size(p.added), words.size(p.total)) for p in found)
        table.show(session.out, (unit.upper(), "ADDED", "TOTAL"), rows, right=" >>")
    if leads is not None:
        _show_forecast(session, leads)


def _plot(session: Session, points: Sequence[Added]) -> bool:
    """A chart, of all snapshots but the first, beside which they would hardly be seen; whether
    there is one."""
    width = _width()
    rest = points[1:]
    if not rest:
        return False
    unit, found = _periods(rest, max(1, chart.most(width, AXIS)))
    top = words.size(max(period.added for period in found)).rjust(len(AXIS))
    ends = (found[0].label, found[-1].label)
    plot = chart.columns([p.added for p in found], ends, top, width, chart.style())
    if plot:
        first = words.size(points[0].added)
        title = f"Added by each {unit} since the first snapshot, which has {first}"
        for line in (title if len(title) <= width else f"Added by each {unit}", *plot):
            session.out.line(line)
    return bool(plot)


def _periods(points: Sequence[Added], most: int) -> tuple[str, list[Period]]:
    from mirrorback.engine.stats import periods

    return periods(points, most)


def _show_forecast(session: Session, leads: Forecast) -> None:
    rate = words.size(leads.per_day * 7)
    session.out.line(f"it grows by about {rate} a week")
    if leads.full_in is not None:
        weeks = leads.full_in // WEEK
        left = f"about {words.number(weeks, 'week')}" if weeks else "less than a week"
        session.out.line(f"at this rate the drive is full in {left}")


def _show_paths(session: Session, title: str, found: Sequence[Heavy]) -> None:
    if not found:
        return
    session.out.line()
    session.out.line(title)
    rows = ((f"{one.versions:,}", words.size(one.bytes), escape(one.path) or ".") for one in found)
    table.show(session.out, ("VERSIONS", "ON THE DRIVE", "PATH"), rows, right=">> ")


def _width() -> int:
    from rich.console import Console

    return Console().width
