"""`mirrorback cat`: the content of a file as it was."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mirrorback.cli.command import add
from mirrorback.cli.options import At, Repo
from mirrorback.cli.output import RawOutput
from mirrorback.cli.session import Session


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "cat", cat)


def cat(
    session: Session,
    repo: Repo,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file.")],
    at: At = None,
) -> int:
    """Write the content of a file as it was to standard output."""
    from mirrorback.engine import contents

    with session.history(repo, needs_folders=True) as history:
        contents.cat(history, os.fsencode(path), at, RawOutput.open())
    return 0
