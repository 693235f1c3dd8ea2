"""Jobs of cron, where there is nothing better: lines in a crontab of one's own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from datetime import datetime

from mirrorback.engine.night.commands import ScheduleError, result
from mirrorback.errors import UsageError
from mirrorback.plan import units
from mirrorback.plan.calendar_event import CalendarEvent
from mirrorback.plan.units import Job, Written

PROCESSES = "/proc"
DAEMONS = (b"cron", b"crond", b"fcron", b"bcron-sched")


class Cron:
    """A crontab of one's own."""

    def show(self, jobs: Sequence[Job], now: datetime) -> list[Written]:
        """The lines."""
        return [Written("crontab", "".join(f"{line}\n" for one in self._all(jobs) for line in one))]

    def _all(self, jobs: Sequence[Job]) -> list[list[str]]:
        found = []
        for job in jobs:
            try:
                lines = units.cron_lines(job)
            except ValueError as error:
                raise UsageError(f"{job.name}: {error}") from error
            if lines is None:
                raise UsageError(f"{job.name}: cron cannot come at {job.schedule.text()}")
            found.append(lines)
        return found

    def install(self, jobs: Sequence[Job], now: datetime) -> list[str]:
        """Put our lines into the crontab."""
        self._write(units.crontab(self._read(), self._all(jobs)))
        if _runs():
            return []
        return ["no cron is running: start it, and let it start with the machine"]

    def remove(self) -> list[str]:
        """Take our lines out of it."""
        before = self._read()
        after = units.crontab(before, [])
        if after == before:
            return []
        self._write(after)
        return ["crontab"]

    def runs(self, name: str, schedule: CalendarEvent) -> bool:
        """Whether one of our lines runs a backup at its times."""
        try:
            return units.crontab_runs(self._read(), name, schedule)
        except ScheduleError:
            return False

    def _read(self) -> str:
        done = result(["crontab", "-l"])
        if done.returncode == 0:
            return done.stdout
        # Of BusyBox' crontab the latter.
        if "no crontab" in done.stderr or "No such file" in done.stderr:
            return ""
        raise ScheduleError(f"the crontab cannot be read: {done.stderr.strip()}")

    def _write(self, text: str) -> None:
        done = result(["crontab", "-"] if text else ["crontab", "-r"], text)
        if done.returncode:
            raise ScheduleError(f"the crontab cannot be written: {done.stderr.strip()}")


def _runs() -> bool:
    """Whether a cron runs, as far as the processes of others can be seen."""
    if not os.path.exists(f"{PROCESSES}/1/comm"):
        return True
    for name in os.listdir(PROCESSES):
        with contextlib.suppress(OSError), open(f"{PROCESSES}/{name}/comm", "rb") as file:
            if file.read(32).strip() in DAEMONS:
                return True
    return False
