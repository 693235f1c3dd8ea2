"""`mirrorback run`: the configured backups, as at night."""

from __future__ import annotations

import dataclasses
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from mirrorback.cli import clock, shapes
from mirrorback.cli.command import add
from mirrorback.cli.escape import plain
from mirrorback.cli.events import listener
from mirrorback.cli.output import complain
from mirrorback.cli.session import Session
from mirrorback.errors import MirrorbackError, UsageError

if TYPE_CHECKING:
    from mirrorback.engine.night.configuration import Configuration, Configured
    from mirrorback.engine.night.outcome import Outcome


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "run", run, stream=True, reads=False)


def run(
    session: Session,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Which; all, unless named.")
    ] = None,
    if_present: Annotated[
        bool, typer.Option("--if-present", help="Skip, without a word, what has no drive now.")
    ] = False,
    if_due: Annotated[
        bool, typer.Option("--if-due", help="Skip what has run since its schedule last came.")
    ] = False,
    wait: Annotated[
        str | None,
        typer.Option(
            "--wait",
            metavar="TIME",
            help="Wait so long for another run on the same drive.",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Run configured backups: back up, thin, verify a slice.

    One that fails does not stop the others; the worst exit code counts.
    """
    from mirrorback.engine.night import configuration, diary
    from mirrorback.engine.night.outcome import worst
    from mirrorback.engine.night.running import Run, parse_duration

    patience = timedelta() if wait is None else parse_duration(wait)
    try:
        found = configuration.in_use(session.config, session.now)
        chosen = _chosen(found, names or [])
    except MirrorbackError as error:
        _tell_unwatched(str(error), session, names or [])
        raise
    try:
        where = diary.folder()
    except MirrorbackError as error:
        complain(f"warning: {error}")
        where = None
    night = Run(clock.now, where, if_present=if_present, if_due=if_due, wait=patience)
    codes = []
    for backup in chosen:
        with listener(session, stream=True) as events:
            outcome = night.one(backup, events)
        _tell(session, outcome)
        codes.append(outcome.code)
    if found.mistakes and not names:
        for mistake in found.mistakes:
            complain(plain(mistake))
        _tell_unwatched(found.mistakes[0], session, [])
        codes.append(UsageError.exit_code)
    return worst(codes)


def _chosen(found: Configuration, names: list[str]) -> list[Configured]:
    """Those that are named, else all that are sound: a mistake in one does not stop others."""
    if not names:
        if not found.backups:
            found.require_sound()
            raise UsageError(f"{plain(found.file)}: no backup is configured")
        return list(found.backups)
    chosen = {}
    for name in names:
        backup = found.named(name)
        if backup is None:
            found.require_sound()
            raise UsageError(f"no backup is configured as {plain(name)} in {plain(found.file)}")
        chosen[name] = backup
    return list(chosen.values())


def _tell_unwatched(mistake: str, session: Session, names: list[str]) -> None:
    """Tell of a mistake in the configuration, where no person sees this run."""
    if sys.stderr is None or not sys.stderr.isatty():
        from mirrorback.engine.night import diary
        from mirrorback.engine.night.notifying import notify_of_configuration

        notify_of_configuration(mistake, names, diary.known_folder(), session.now)


def _tell(session: Session, outcome: Outcome) -> None:
    if session.json:
        shape = {k: v for k, v in dataclasses.asdict(outcome).items() if k != "summary"}
        summary = None if outcome.summary is None else shapes.summary(outcome.summary)
        session.out.json({"message_type": "result", **shape, "summary": summary})
    if outcome.result == "failed":
        complain(f"{outcome.name}: {plain(outcome.message)}")
    elif not (session.json or session.quiet or outcome.result == "skipped"):
        session.out.line(f"{outcome.name}: {outcome.result}: {plain(outcome.message)}")
