"""`mirrorback rebuild`: make the catalog anew from the folders."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from mirrorback.cli import words
from mirrorback.cli.command import add
from mirrorback.cli.escape import escape
from mirrorback.cli.events import listener
from mirrorback.cli.options import DryRun, Repo
from mirrorback.cli.session import Session

if TYPE_CHECKING:
    from mirrorback.engine.rebuild import Rebuilt


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "rebuild", rebuild, reads=False)


def rebuild(
    session: Session,
    repo: Repo,
    dry_run: DryRun = False,
    force: Annotated[
        bool, typer.Option("--force", help="Even if the catalog is sound, or of a newer format.")
    ] = False,
    digests: Annotated[
        bool, typer.Option("--digests", help="Read every file too, to know its digest.")
    ] = False,
    source: Annotated[
        str | None,
        typer.Option("--source", metavar="DIR", help="The source, where the settings are lost."),
    ] = None,
) -> int:
    """Make the catalog anew from the folders; the old one is kept aside."""
    from mirrorback.engine.rebuild import RebuildOptions
    from mirrorback.engine.rebuild import rebuild as make_anew

    options = RebuildOptions(dry_run=dry_run, force=force, digests=digests, source=source)
    with listener(session) as events:
        made = make_anew(repo, options, session.now, events)
    if session.json:
        session.out.json(_shape(made))
    elif not session.quiet:
        _show(session, made, dry_run)
    return 4 if made.problems else 0


def _shape(made: Rebuilt) -> dict[str, object]:
    return {
        "snapshots": list(made.snapshots),
        "versions": made.versions,
        "files": made.files,
        "deltas": made.deltas,
        "problems": made.problems,
        "old_catalog": None if made.kept is None else os.fsdecode(made.kept),
    }


def _show(session: Session, made: Rebuilt, dry_run: bool) -> None:
    verb = "would make" if dry_run else "made"
    deltas = f", {words.number(made.deltas, 'reverse delta')}" if made.deltas else ""
    session.out.line(
        f"{verb} a catalog of {words.number(len(made.snapshots), 'snapshot')}:"
        f" {words.number(made.versions, 'version')}, {words.number(made.files, 'file')}{deltas}"
    )
    if made.kept is not None:
        session.out.line(f"the old one is {escape(made.kept)}")
