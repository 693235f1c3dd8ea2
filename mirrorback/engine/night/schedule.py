"""Scheduling: the nightly runs as jobs of systemd, launchd or cron; nothing but ours is touched."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from mirrorback.engine.night import diary, notifying
from mirrorback.engine.night.commands import SYSTEMD
from mirrorback.engine.night.configuration import (
    Configuration,
    Configured,
    expanded,
    loose_folder,
)
from mirrorback.errors import UsageError
from mirrorback.plan.calendar_event import CalendarEvent
from mirrorback.plan.units import Job as Job
from mirrorback.plan.units import Written as Written

BACKENDS = ("systemd", "launchd", "cron")


@dataclass(frozen=True, slots=True)
class Coming:
    """A scheduled backup, and when it runs next."""

    name: str
    schedule: str
    next_run: datetime | None


class Backend(Protocol):
    """A scheduler."""

    def show(self, jobs: Sequence[Job], now: datetime) -> list[Written]:
        """What would be written."""

    def install(self, jobs: Sequence[Job], now: datetime) -> list[str]:
        """Let these jobs, and no other of ours, run; what a person should know besides."""

    def remove(self) -> list[str]:
        """Take away all that is ours; the names of what was."""

    def runs(self, name: str, schedule: CalendarEvent) -> bool:
        """Whether something of ours runs a backup at its times."""


def jobs(found: Configuration, *, on_mount: bool) -> list[Job]:
    """The configured backups that have a schedule.  Raises UsageError where none has."""
    found.require_sound()
    made = [
        Job(
            backup.name,
            backup.schedule,
            _program(),
            os.path.abspath(found.file),
            _mount_of(expanded(backup.repository)) if on_mount else None,
        )
        for backup in found.backups
        if backup.schedule is not None
    ]
    if not made:
        raise UsageError(
            f'{found.file}: no backup has a schedule: write schedule = "daily 02:00" into one'
        )
    return made


def idle(backups: Iterable[Configured]) -> list[str]:
    """Those that have a schedule, and that no scheduler runs by it: none has been told, or it
    has been told of another."""
    return [
        backup.name
        for backup in backups
        if backup.schedule is not None
        and not any(_named(here).runs(backup.name, backup.schedule) for here in _here())
    ]


def advice(found: Configuration) -> list[str]:
    """What a person should know of what will run."""
    return entrusted() + unguarded(found) + unheard(found)


def unguarded(found: Configuration) -> list[str]:
    """What to do for backups that would take any drive at the place for their own."""
    return [
        f"{backup.name} has no repository-id, by which another drive at the same place is refused:"
        f" `mirrorback backup --init {backup.name}` writes it"
        for backup in found.backups
        if backup.schedule is not None and backup.repository_id is None
    ]


def entrusted() -> list[str]:
    """What root should know of a program that others can change."""
    program = _started()[0]
    try:
        loose = loose_folder(program)
    except OSError:
        return []
    if loose is None:
        return []
    return [
        f"root will run {program}, which others can change, for {loose} is theirs to write:"
        " install it where root alone can, such as /opt/mirrorback"
    ]


def unheard(found: Configuration) -> list[str]:
    """What a person should know of backups that would fail unheard."""
    scheduled = [backup for backup in found.backups if backup.schedule is not None]
    notes = []
    if mailed := notifying.unmailed(scheduled):
        notes.append(f"of {', '.join(mailed)} nothing is mailed: mail-to needs a sendmail here")
    if deaf := notifying.deaf(scheduled):
        notes.append(
            f"nobody would hear if {', '.join(deaf)} failed, for there is no desktop: give mail-to"
            " or on-failure in the configuration, or look at `mirrorback status`"
        )
    return notes


def coming(made: Iterable[Job], now: datetime) -> list[Coming]:
    """When they run next."""
    return [Coming(job.name, job.schedule.text(), job.schedule.after(now)) for job in made]


def _program() -> tuple[str, ...]:
    """The program as it was started, by its absolute path, with the folder of the diary where
    that is not the usual one: a scheduler knows nothing of our environment."""
    names = ("MIRRORBACK_STATE_DIR", "XDG_STATE_HOME")
    if not any(map(os.environ.get, names)) or (where := diary.known_folder()) is None:
        return _started()
    return ("/usr/bin/env", f"MIRRORBACK_STATE_DIR={where}", *_started())


def _started() -> tuple[str, ...]:
    started = os.path.abspath(sys.argv[0])
    if os.access(started, os.X_OK) and os.path.basename(started) == "mirrorback":
        return (started,)
    found = shutil.which("mirrorback")
    return (os.path.abspath(found),) if found else (sys.executable, "-m", "mirrorback")


def _mount_of(path: str) -> str:
    """The mount point that a path lies on, or is to."""
    at = os.path.realpath(path)
    while not os.path.ismount(at):
        at = os.path.dirname(at)
    if at == "/":
        raise UsageError(f"{path} lies on no drive of its own: --on-mount needs it mounted now")
    return at


def install(asked: str | None, made: Sequence[Job], now: datetime) -> list[str]:
    """Let these jobs, and no other of ours, run by the scheduler that was asked for, else by the
    best there is; what a person should know besides.  Raises MirrorbackError."""
    chosen = chosen_name(asked)
    notes = _named(chosen).install(made, now)
    for other in _here():
        if other != chosen and (gone := _named(other).remove()):
            notes.append(f"no longer run by {other}: {', '.join(gone)}")
    return notes


def remove(asked: str | None) -> list[str]:
    """Take away all that is ours, of one scheduler or of all; the names of what was.  Raises
    MirrorbackError."""
    names = _here() if asked is None else [chosen_name(asked)]
    return [gone for name in names for gone in _named(name).remove()]


def show(asked: str | None, made: Sequence[Job], now: datetime) -> list[Written]:
    """What `install` would write.  Raises MirrorbackError."""
    return _named(chosen_name(asked)).show(made, now)


def chosen_name(asked: str | None) -> str:
    """The scheduler that was asked for, else the best there is.  Raises UsageError."""
    if asked is not None:
        if asked not in BACKENDS:
            raise UsageError(f"--backend {asked}: give systemd, launchd or cron")
        return asked
    if os.path.isdir(SYSTEMD):
        return "systemd"
    here = [name for name in _here() if name != "systemd"]
    if not here:
        raise UsageError("there is neither systemd, nor launchd, nor cron here")
    return here[0]


def _here() -> list[str]:
    """The schedulers that something of ours may be with, the best first."""
    found = ["launchd"] if sys.platform == "darwin" else ["systemd"]
    return found + (["cron"] if shutil.which("crontab") else [])


def _named(name: str) -> Backend:
    from mirrorback.engine.night import cron, launchd, systemd

    if name == "systemd":
        return systemd.Systemd(systemd.home(), user=os.geteuid() != 0)
    return launchd.Launchd(launchd.home()) if name == "launchd" else cron.Cron()
