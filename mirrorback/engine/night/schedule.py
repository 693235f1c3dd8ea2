"""Scheduling: the nightly runs as jobs of systemd, launchd or cron; nothing but ours is touched."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from mirrorback.engine.night.configuration import Configuration, expanded
from mirrorback.errors import UsageError
from mirrorback.plan.units import Job as Job
from mirrorback.plan.units import Written

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


def coming(made: Iterable[Job], now: datetime) -> list[Coming]:
    """When they run next."""
    return [Coming(job.name, job.schedule.text(), job.schedule.after(now)) for job in made]


def _program() -> tuple[str, ...]:
    """The program as it was started, by its absolute path."""
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


def backend(asked: str | None) -> Backend:
    """The scheduler that was asked for, else the best there is.  Raises UsageError."""
    from mirrorback.engine.night import cron, launchd, systemd

    if asked is not None and asked not in BACKENDS:
        raise UsageError(f"--backend {asked}: give systemd, launchd or cron")
    if asked == "systemd" or (asked is None and os.path.isdir("/run/systemd/system")):
        return systemd.Systemd(systemd.home(), user=os.geteuid() != 0)
    if asked == "launchd" or (asked is None and sys.platform == "darwin"):
        return launchd.Launchd(launchd.home())
    if asked is None and not shutil.which("crontab"):
        raise UsageError("there is neither systemd, nor launchd, nor cron here")
    return cron.Cron()
