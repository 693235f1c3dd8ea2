"""`mirrorback diff`: what changed between two snapshots."""

from __future__ import annotations

from typing import Annotated

import typer

from mirrorback.cli import shapes
from mirrorback.cli.command import add
from mirrorback.cli.events import change_line
from mirrorback.cli.options import Repo
from mirrorback.cli.session import Session

Old = Annotated[str, typer.Argument(metavar="OLD", help="A snapshot, as WHEN.")]
New = Annotated[
    str | None,
    typer.Argument(metavar="NEW", help="Another; the mirror by default.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "diff", diff)


def diff(session: Session, repo: Repo, old: Old, new: New = None) -> int:
    """Tell what changed from one snapshot to another.

    A line each: + added, - removed, M modified, m metadata only, R moved, T another kind.
    """
    with session.history(repo) as history:
        changes = history.diff(old, new)
    if session.json:
        session.out.array(map(shapes.change, changes))
    else:
        for change in changes:
            session.out.line(change_line(change))
    return 0
