"""`mirrorback config`: what is configured, and whether it is right."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from mirrorback.cli import shapes, values, words
from mirrorback.cli.command import add
from mirrorback.cli.escape import plain
from mirrorback.cli.output import complain
from mirrorback.cli.session import Session
from mirrorback.errors import UsageError

if TYPE_CHECKING:
    from mirrorback.engine.night.configuration import Configuration

ACTIONS = ("show", "check", "edit")


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "config", config, reads=False)


def config(
    session: Session,
    action: Annotated[
        str, typer.Argument(metavar="show|check|edit", help="What to do with it.")
    ] = "show",
) -> int:
    """Show the configuration, check it, or open it in an editor."""
    values.action("config", action, ACTIONS)
    from mirrorback.engine.night import configuration

    file = session.configuration_file()
    if action == "edit":
        from mirrorback.engine.night import entries

        entries.edit(file)
    found = configuration.load(file, session.now)
    if action == "show":
        found.require_sound()
        _show(session, found)
        return 0
    return _check(session, found)


def _check(session: Session, found: Configuration) -> int:
    """Tell all mistakes, not the first alone."""
    if session.json:
        session.out.json({"file": found.file, "mistakes": list(found.mistakes)})
    for mistake in found.mistakes:
        complain(plain(mistake))
    if not (found.mistakes or session.json or session.quiet):
        count = words.number(len(found.backups), "backup")
        there = f"{count}, no mistakes" if found.exists else "there is no such file yet"
        session.out.line(f"{plain(found.file)}: {there}")
    return UsageError.exit_code if found.mistakes else 0


def _show(session: Session, found: Configuration) -> None:
    if session.json:
        shown = [shapes.configured(backup) for backup in found.backups]
        session.out.json({"file": found.file, "backups": shown})
        return
    if not found.backups:
        where = "holds no backup" if found.exists else "is not there"
        session.out.line(
            f"{plain(found.file)} {where}: `mirrorback init REPO --source SOURCE --name NAME`"
            " writes one into it"
        )
        return
    session.out.line(plain(found.file))
    for backup in found.backups:
        usual = shapes.configured(type(backup)(backup.name, "", ""))
        session.out.line()
        session.out.line(f"[backup.{backup.name}]")
        for key, value in shapes.configured(backup).items():
            if value != usual[key]:
                session.out.line(f"{key} = {json.dumps(value)}")
