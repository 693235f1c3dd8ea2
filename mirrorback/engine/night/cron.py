"""Jobs of cron, where there is nothing better: lines in a crontab of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mirrorback.engine.night.commands import ScheduleError, result
from mirrorback.errors import UsageError
from mirrorback.plan import units
from mirrorback.plan.units import Job, Written


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
        return []

    def remove(self) -> list[str]:
        """Take our lines out of it."""
        before = self._read()
        after = units.crontab(before, [])
        if after == before:
            return []
        self._write(after)
        return ["crontab"]

    def _read(self) -> str:
        done = result(["crontab", "-l"])
        if done.returncode == 0:
            return done.stdout
        if "no crontab" in done.stderr:
            return ""
        raise ScheduleError(f"the crontab cannot be read: {done.stderr.strip()}")

    def _write(self, text: str) -> None:
        done = result(["crontab", "-"] if text else ["crontab", "-r"], text)
        if done.returncode:
            raise ScheduleError(f"the crontab cannot be written: {done.stderr.strip()}")
