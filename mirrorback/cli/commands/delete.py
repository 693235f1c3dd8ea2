"""`mirrorback delete`: remove snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mirrorback.cli import words
from mirrorback.cli.command import add
from mirrorback.cli.escape import plain
from mirrorback.cli.events import listener
from mirrorback.cli.options import DryRun, Repo
from mirrorback.cli.session import Session
from mirrorback.errors import Locked

if TYPE_CHECKING:
    from mirrorback.engine.removal import Fate


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "delete", delete, reads=False)


def delete(
    session: Session,
    repo: Repo,
    snapshots: Annotated[
        list[str], typer.Argument(metavar="SNAPSHOT", help="Names, as `snapshots` lists them.")
    ],
    dry_run: DryRun = False,
    even_damaged: Annotated[
        bool,
        typer.Option(
            "--even-damaged",
            help="Also where damaged versions of large files need it: what they need is kept.",
        ),
    ] = False,
) -> int:
    """Delete snapshots; what others share with them stays.

    One that a restore or a mount is reading is left for the next time.
    """
    from mirrorback.engine.delete import delete as remove

    with listener(session) as events:
        fates = remove(
            repo,
            list(snapshots),
            dry_run=dry_run,
            now=session.now,
            events=events,
            even_damaged=even_damaged,
        )
    if session.json:
        session.out.array(
            {"name": f.name, "keep": f.keep, "reasons": list(f.reasons), "frees": f.frees}
            for f in fates
        )
    elif not session.quiet:
        _show(session, fates, dry_run)
    return Locked.exit_code if any(fate.keep for fate in fates) else 0


def _show(session: Session, fates: Sequence[Fate], dry_run: bool) -> None:
    for fate in fates:
        reasons = f" ({', '.join(map(plain, fate.reasons))})" if fate.reasons else ""
        if not fate.keep:
            verb = "would delete" if dry_run else "deleted"
            freed = f"{'frees' if dry_run else 'freed'} {words.size(fate.frees, fate.estimated)}"
            session.out.line(f"{verb} {fate.name}: {freed}")
        elif dry_run or session.verbose:
            session.out.line(f"keep {fate.name}{reasons}")
