"""`mirrorback init`: make a repository."""

from __future__ import annotations

from typing import Annotated

import typer

from mirrorback.cli import values
from mirrorback.cli.command import add
from mirrorback.cli.commands.doctor import show
from mirrorback.cli.escape import plain
from mirrorback.cli.keeping import Keep
from mirrorback.cli.options import DeltaMinSize, Force, LargeFiles, Mode
from mirrorback.cli.session import Session
from mirrorback.errors import UsageError

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
    schedule: Annotated[
        str | None,
        typer.Option("--schedule", metavar="WHEN", help='With --name: such as "daily 02:00".'),
    ] = None,
    *,
    keep: Keep,
) -> int:
    """Make a repository, and say what the drive can hold.

    With --name it can be backed up to by that name, and by `mirrorback run`; --schedule and what
    is to be kept are written down there.  One that is there already, of the same source, is only
    written down then.
    """
    keep.policy()
    if keep.keep_none:
        raise UsageError("--keep-none stands in no configuration: leave it out")
    wishes = keep.typed() | ({} if schedule is None else {"schedule": schedule})
    if wishes and name is None:
        raise UsageError(
            f"--{next(iter(wishes))} goes into the configuration: give --name NAME too"
        )
    permissions = values.mode(mode)
    size, large = values.size(delta_min_size), values.large_files(large_files)
    from mirrorback.engine.create import create
    from mirrorback.engine.night import entries

    file = session.configuration_file()
    if name is not None:
        entries.require_addable(file, name, source, repo, session.now, wishes)
    plainly = not force and (permissions, size, large) == (None, None, None)
    if name is not None and plainly and entries.is_made(source, repo):
        from mirrorback.engine.doctor import examine

        found = examine(repo, session.now)
        if not (session.json or session.quiet):
            session.out.line(f"{plain(repo)} is a repository of {plain(source)} already")
    else:
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
        entries.add_made(file, name, source, repo, session.now, wishes)
    show(session, found)
    if schedule is not None and not (session.json or session.quiet):
        session.out.line("It runs at its times after `mirrorback schedule install`.")
    return 0
