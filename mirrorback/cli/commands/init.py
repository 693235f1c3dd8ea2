"""`mirrorback init`: make a repository."""

from __future__ import annotations

from typing import Annotated

import typer

from mirrorback.cli import values
from mirrorback.cli.command import add
from mirrorback.cli.commands.doctor import show
from mirrorback.cli.options import DeltaMinSize, Force, LargeFiles, Mode
from mirrorback.cli.session import Session

NewRepo = Annotated[str, typer.Argument(metavar="REPO", help="The folder to make it in.")]
Source = Annotated[
    str, typer.Option("--source", metavar="SOURCE", help="The folder that will be backed up.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "init", init, reads=False)


def init(
    session: Session,
    repo: NewRepo,
    source: Source,
    force: Force = False,
    mode: Mode = None,
    delta_min_size: DeltaMinSize = None,
    large_files: LargeFiles = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="Write it into the configuration under this name."
        ),
    ] = None,
) -> int:
    """Make a repository, and say what the drive can hold."""
    permissions = values.mode(mode)
    size, large = values.size(delta_min_size), values.large_files(large_files)
    from mirrorback.engine.create import create
    from mirrorback.engine.night import entries

    if name is not None:
        file = session.configuration_file()
        entries.require_addable(file, name, source, repo, session.now)
    found = create(
        repo,
        source,
        now=session.now,
        force=force,
        mode=0o700 if permissions is None else permissions,
        delta_min_size=size,
        large_files=large,
    )
    if name is not None:
        entries.add_made(session.configuration_file(), name, source, repo, session.now)
    show(session, found)
    return 0
