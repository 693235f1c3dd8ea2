"""Jobs of systemd: timers of the system, or of a user."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from mirrorback.engine.night.commands import SYSTEMD, ScheduleError, put, succeeded, writing
from mirrorback.engine.night.configuration import expanded
from mirrorback.errors import Refused
from mirrorback.plan import units
from mirrorback.plan.calendar_event import CalendarEvent
from mirrorback.plan.units import Job, Written

WANTS = ".wants"  # what a folder is called, behind a unit's name, that holds links to others


def home() -> str:
    """The folder of units: root's are the system's.  Raises UsageError."""
    if os.geteuid() == 0:
        return "/etc/systemd/system"
    base = os.environ.get("XDG_CONFIG_HOME") or expanded("~/.config")
    return os.path.join(base, "systemd", "user")


class Systemd:
    """Timers of the system, or of a user."""

    def __init__(self, folder: str, *, user: bool) -> None:
        self._folder = folder
        self._user = user

    def show(self, jobs: Sequence[Job], now: datetime) -> list[Written]:
        """The units."""
        return [
            Written(os.path.join(self._folder, name), text)
            for job in jobs
            for name, text in units.systemd_units(job, now).items()
        ]

    def install(self, jobs: Sequence[Job], now: datetime) -> list[str]:
        """Write units, enable the timers, and start them where systemd runs."""
        wanted = {os.path.basename(one.where): one.text for one in self.show(jobs, now)}
        with writing(self._folder):
            os.makedirs(self._folder, exist_ok=True)
            for name in wanted:
                if self._text(name) is not None and not self._is_ours(name):
                    raise Refused(
                        f"{os.path.join(self._folder, name)} is not ours: move it away, or rename"
                        " the backup"
                    )
            self._clear(set(self._ours()) - set(wanted))
            for name, text in wanted.items():
                if self._text(name) != text:
                    put(self._folder, name, text)
            self._want_only(dict(pair for job in jobs for pair in _wanting(job)))
        notes = []
        if self._control("daemon-reload"):
            timers = [f"mirrorback-{job.name}.timer" for job in jobs]
            failed = [timer for timer in timers if not self._control("start", timer)]
            if failed:
                user = "--user " if self._user else ""
                raise ScheduleError(
                    f"systemd does not start {', '.join(failed)}: `systemctl {user}status"
                    f" {failed[0]}` tells why"
                )
        elif self._user and os.path.isdir(SYSTEMD):
            notes.append(
                "your systemd cannot be spoken to from here: the timers start when you log in"
            )
        else:
            notes.append("systemd does not run here: the timers start when it does")
        if self._user and not os.path.exists(f"/var/lib/systemd/linger/{_user()}"):
            notes.append(
                "they run while you are logged in; to let them run always:"
                f" `loginctl enable-linger {_user()}`"
            )
        return notes

    def remove(self) -> list[str]:
        """Stop and remove our units."""
        with writing(self._folder):
            ours = self._ours()
            self._clear(set(ours))
        if ours:
            self._control("daemon-reload")
        return ours

    def runs(self, name: str, schedule: CalendarEvent) -> bool:
        """Whether a timer of ours runs a backup at its times, and is enabled."""
        timer = f"mirrorback-{name}.timer"
        try:
            lines = (self._text(timer) or "").splitlines()
        except OSError:
            return False
        return (
            lines[:1] == [units.MARK]
            and units.calendar_line(schedule) in lines
            and os.path.islink(os.path.join(self._folder, f"timers.target{WANTS}", timer))
        )

    def _ours(self) -> list[str]:
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return sorted(n for n in names if units.UNIT.fullmatch(n) and self._is_ours(n))

    def _text(self, name: str) -> str | None:
        try:
            with open(os.path.join(self._folder, name), encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def _is_ours(self, name: str) -> bool:
        text = self._text(name)
        return text is not None and text.startswith(units.MARK)

    def _clear(self, names: Iterable[str]) -> None:
        """Remove units of ours, and the links that want them."""
        for name in sorted(names, reverse=True):  # the timer before what it starts
            if name.endswith(".timer"):
                self._control("stop", name)
            self._unwant(name)
            os.unlink(os.path.join(self._folder, name))

    def _want_only(self, wanted: Mapping[str, str | None]) -> None:
        """Let units be wanted by others, each by one or none: what `systemctl enable` does, also
        where systemd does not run."""
        for name, by in wanted.items():
            self._unwant(name, besides=by)
            if by is not None:
                folder = os.path.join(self._folder, by + WANTS)
                os.makedirs(folder, exist_ok=True)
                link = os.path.join(folder, name)
                if not os.path.islink(link):
                    os.symlink(os.path.join(self._folder, name), link)

    def _unwant(self, name: str, *, besides: str | None = None) -> None:
        """Remove the links that want a unit, but one."""
        for entry in os.listdir(self._folder):
            link = os.path.join(self._folder, entry, name)
            wants = entry.endswith(WANTS) and entry.removesuffix(WANTS) != besides
            if wants and os.path.islink(link):
                os.unlink(link)
                with contextlib.suppress(OSError):
                    os.rmdir(os.path.dirname(link))

    def _control(self, *arguments: str) -> bool:
        return succeeded(["systemctl", *(["--user"] if self._user else []), *arguments])


def _wanting(job: Job) -> list[tuple[str, str | None]]:
    """The units of a job, each with what wants it."""
    mount = None if job.mount is None else units.mount_unit(job.mount)
    name = f"mirrorback-{job.name}"
    return [(f"{name}.timer", "timers.target"), (f"{name}.service", mount)]


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
