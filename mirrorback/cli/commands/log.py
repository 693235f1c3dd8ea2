"""`mirrorback log`: what came of the runs, and what they said."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from mirrorback.cli import shapes, table
from mirrorback.cli.command import add
from mirrorback.cli.escape import plain
from mirrorback.cli.session import Session
from mirrorback.errors import UsageError

if TYPE_CHECKING:
    from mirrorback.engine.night.logs import Logs

CUT = "no end"  # of a run that was cut short, or goes on


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "log", log)


def log(
    session: Session,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Whose newest log is shown; unless given, all are listed."
        ),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the runs of NAME.")] = False,
    when: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="WHEN",
            help="Show that run: its name, a date, `3d` ago.",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Show what the runs of configured backups said, and what came of them.

    Where a drive is away, what was kept on this machine is shown.
    """
    if when is not None and (name is None or listed):
        raise UsageError("--run shows one run of NAME: give that, and no --list")
    with contextlib.ExitStack() as stack:
        chosen = [stack.enter_context(one) for one in _chosen(session, name)]
        if name is None or listed:
            _list(session, chosen)
        else:
            _show(session, chosen[0], when or "latest")
    return 0


def _chosen(session: Session, name: str | None) -> list[Logs]:
    from mirrorback.engine.night import configuration, diary
    from mirrorback.engine.night.logs import Logs

    if name is not None and "/" in name:
        return [Logs.of_repository(name, session.now)]
    where = diary.known_folder()
    found = configuration.in_use(session.config, session.now)
    if name is None:
        found.require_sound()
        return [Logs.of_backup(backup, where, session.now) for backup in found.backups]
    backup = found.named(name)
    if backup is None:
        return [Logs.of_repository(session.repository(name), session.now)]
    return [Logs.of_backup(backup, where, session.now)]


def _list(session: Session, chosen: list[Logs]) -> None:
    found = (one for logs in chosen for one in logs.listed())
    if session.json:
        session.out.array(shapes.run_log(one) for one in found)
        return
    rows = [
        (plain(one.name), one.run, one.result or CUT, plain(one.message or "")) for one in found
    ]
    table.show(session.out, ("NAME", "RUN", "RESULT", ""), rows)
    if not rows and not session.quiet:
        session.out.line("there is no log of a run yet")


def _show(session: Session, logs: Logs, when: str) -> None:
    found = logs.shown(when)
    if session.json:
        session.out.array([shapes.run_log(found) | {"lines": list(found.lines)}])
        return
    for line in found.lines:
        session.out.line(plain(line))
