"""`mirrorback status`: when was each backup last made."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import typer

from mirrorback.cli import shapes, table
from mirrorback.cli.command import add
from mirrorback.cli.escape import plain
from mirrorback.cli.session import Session

if TYPE_CHECKING:
    from mirrorback.engine.night.standing import Status

OVERDUE = 3


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "status", status)


def status(session: Session) -> int:
    """Say when each configured backup was last made.

    Exit code 3: one is overdue.
    """
    from mirrorback.engine.night import configuration, diary
    from mirrorback.engine.night.schedule import idle
    from mirrorback.engine.night.standing import status as look

    found = configuration.in_use(session.config, session.now)
    found.require_sound()
    states = look(found.backups, session.now, diary.known_folder())
    if session.json:
        session.out.array(map(shapes.status, states))
    else:
        shown = [one for one in states if not session.quiet or one.overdue or one.pinned]
        _show(session, shown, [] if session.quiet else idle(found.backups))
        if not states and not session.quiet:
            session.out.line(f"no backup is configured in {plain(found.file)}")
    return OVERDUE if any(one.overdue for one in states) else 0


def _show(session: Session, states: Sequence[Status], idle: Sequence[str]) -> None:
    table.show(
        session.out,
        ("NAME", "LAST BACKUP", "LAST CHECK", "RESULT", "NEXT RUN", ""),
        (
            (
                one.name,
                _minute(one.last_success) or "never",
                _minute(one.last_check),
                one.last_result or "",
                _minute(one.next_run),
                "OVERDUE" if one.overdue else "",
            )
            for one in states
        ),
    )
    for one in states:
        _explain(session, one)
    for name in idle:
        session.out.line(
            f"{name}: nothing here runs it at its times: `mirrorback schedule install` does"
        )


def _minute(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat(" ", "minutes")


def _explain(session: Session, one: Status) -> None:
    """What there is to do, and why."""
    for pin in one.pinned:
        session.out.line(
            f"{one.name}: {pin.name} is pinned ({plain(pin.reason)}): look with"
            f" `mirrorback diff {one.name} {pin.name}`; nothing is thinned until you"
            f" `mirrorback unpin {one.name} {pin.name}`"
        )
    if one.last_result not in (None, "ok") and one.message:
        session.out.line(
            f"{one.name}: {plain(one.message)} (`mirrorback log {one.name}` tells more)"
        )
    if one.overdue and one.absent and one.absent != one.message:
        session.out.line(f"{one.name}: {plain(one.absent)}")
