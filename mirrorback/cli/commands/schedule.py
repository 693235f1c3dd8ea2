"""`mirrorback schedule`: let the system run the configured backups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mirrorback.cli import values
from mirrorback.cli.command import add
from mirrorback.cli.escape import plain
from mirrorback.cli.session import Session

if TYPE_CHECKING:
    from mirrorback.engine.night.schedule import Job, Written

ACTIONS = ("install", "remove", "show")


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "schedule", schedule, reads=False)


def schedule(
    session: Session,
    action: Annotated[
        str, typer.Argument(metavar="install|remove|show", help="What to do.")
    ] = "show",
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            metavar="systemd|launchd|cron",
            help="The scheduler; the best there is, unless given.",
            show_default=False,
        ),
    ] = None,
    on_mount: Annotated[
        bool, typer.Option("--on-mount", help="Also run when the drive is mounted (systemd).")
    ] = False,
) -> int:
    """Let the configured backups run by themselves, at their times."""
    values.action("schedule", action, ACTIONS)
    from mirrorback.engine.night import configuration
    from mirrorback.engine.night import schedule as engine

    if action == "remove":
        _removed(session, engine.remove(backend))
        return 0
    engine.chosen_name(backend)  # tells first what was typed wrong
    found = configuration.in_use(session.config, session.now)
    jobs = engine.jobs(found, on_mount=on_mount)
    if action == "install":
        notes = engine.install(backend, jobs, session.now)
        _installed(session, jobs, notes + engine.advice(found))
    else:
        _show(session, jobs, engine.show(backend, jobs, session.now))
    return 0


def _removed(session: Session, removed: list[str]) -> None:
    if session.json:
        session.out.json({"removed": removed})
    elif not session.quiet:
        session.out.line(f"removed: {', '.join(map(plain, removed)) or 'nothing was there'}")


def _installed(session: Session, jobs: list[Job], notes: list[str]) -> None:
    if session.json:
        session.out.json({"installed": [job.name for job in jobs], "notes": notes})
        return
    if not session.quiet:
        _next(session, jobs)
    for note in notes:
        session.out.line(plain(note))


def _show(session: Session, jobs: list[Job], written: list[Written]) -> None:
    from mirrorback.engine.night.schedule import coming

    if session.json:
        runs = [
            {
                "name": one.name,
                "schedule": one.schedule,
                "next_run": None if one.next_run is None else one.next_run.isoformat(),
            }
            for one in coming(jobs, session.now)
        ]
        files = [{"path": one.where, "text": one.text} for one in written]
        session.out.json({"runs": runs, "files": files})
        return
    for one in written:
        session.out.line(f"==> {plain(one.where)}")
        for line in one.text.splitlines():
            session.out.line(plain(line.expandtabs(2)))
        session.out.line()
    _next(session, jobs)


def _next(session: Session, jobs: list[Job]) -> None:
    from mirrorback.engine.night.schedule import coming

    for one in coming(jobs, session.now):
        when = "never" if one.next_run is None else one.next_run.isoformat(" ", "minutes")
        session.out.line(f"{one.name}: {one.schedule}; the next run is at {when}")
