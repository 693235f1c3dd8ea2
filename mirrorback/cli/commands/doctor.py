"""`mirrorback doctor`: is this drive fit, is all well."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from mirrorback.cli import shapes, table
from mirrorback.cli.command import add
from mirrorback.cli.escape import plain
from mirrorback.cli.options import Repo
from mirrorback.cli.session import Session
from mirrorback.model import Finding, Level

WELL = (Level.GOOD, Level.NOTE)


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "doctor", doctor)


def doctor(session: Session, repo: Repo) -> int:
    """Say whether the drive is fit for backups, and all is well."""
    from mirrorback.engine.doctor import examine

    found = examine(repo, session.now)
    show(session, found)
    return 1 if any(finding.level is Level.BAD for finding in found) else 0


def show(session: Session, found: Sequence[Finding]) -> None:
    """Print findings; with -q only those that are not well."""
    if session.json:
        session.out.array(map(shapes.finding, found))
        return
    told = [f for f in found if not session.quiet or f.level not in WELL]
    table.show(
        session.out,
        ("", "WHAT", "FOUND", "WHAT FOLLOWS"),
        ((f.level.value, plain(f.subject), plain(f.found), plain(f.follows)) for f in told),
    )
