"""Jobs of launchd on macOS: agents of a user, or daemons of the system.  Written by its manual;
it has not been run there."""

from __future__ import annotations

import contextlib
import os
import plistlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from xml.parsers.expat import ExpatError

from mirrorback.engine.night.commands import put, succeeded, writing
from mirrorback.engine.night.configuration import expanded
from mirrorback.errors import UsageError
from mirrorback.plan import calendar_event, units
from mirrorback.plan.calendar_event import CalendarEvent
from mirrorback.plan.units import Job, Written


def home() -> str:
    """The folder of property lists.  Raises UsageError."""
    return "/Library/LaunchDaemons" if os.geteuid() == 0 else expanded("~/Library/LaunchAgents")


class Launchd:
    """Agents of a user, or daemons of the system, on macOS."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def show(self, jobs: Sequence[Job], now: datetime) -> list[Written]:
        """The property lists."""
        return [Written(self._path(job.name), _text(job)) for job in jobs]

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, f"{units.LABEL}{name}.plist")

    def install(self, jobs: Sequence[Job], now: datetime) -> list[str]:
        """Write and load them."""
        written = self.show(jobs, now)
        with writing(self._folder):
            os.makedirs(self._folder, exist_ok=True)
            self._clear(set(self._ours()) - {os.path.basename(one.where) for one in written})
            for one in written:
                put(self._folder, os.path.basename(one.where), one.text)
        loaded = True
        for one in written:
            succeeded(["launchctl", "unload", one.where])
            loaded = succeeded(["launchctl", "load", "-w", one.where]) and loaded
        return [] if loaded else ["launchd does not run here: they start at the next log-in"]

    def remove(self) -> list[str]:
        """Unload and remove ours."""
        with writing(self._folder):
            ours = self._ours()
            self._clear(ours)
        return ours

    def runs(self, name: str, schedule: CalendarEvent) -> bool:
        """Whether a property list of ours runs a backup at its times."""
        try:
            with open(self._path(name), "rb") as file:
                agent = plistlib.load(file)
        except (OSError, ValueError, ExpatError):
            return False
        wanted = calendar_event.launchd_intervals(schedule)
        return isinstance(agent, dict) and agent.get("StartCalendarInterval") == wanted

    def _ours(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(
                name
                for name in os.listdir(self._folder)
                if name.startswith(units.LABEL) and name.endswith(".plist")
            )
        return []

    def _clear(self, names: Iterable[str]) -> None:
        for name in names:
            path = os.path.join(self._folder, name)
            succeeded(["launchctl", "unload", path])
            os.unlink(path)


def _text(job: Job) -> str:
    """The property list of a job.  Raises UsageError."""
    agent = units.launchd_agent(job)
    if agent is None:
        raise UsageError(f"{job.name}: launchd cannot come at {job.schedule.text()}")
    try:
        return plistlib.dumps(agent).decode()
    except ValueError as error:  # control characters, bytes that are no text
        raise UsageError(
            f"{job.name}: no property list can hold the path of the program, or of {job.config!r}"
        ) from error
