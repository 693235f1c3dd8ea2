"""What a schedule is to the system: systemd units, launchd agents, lines of a crontab."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mirrorback.plan import calendar_event
from mirrorback.plan.calendar_event import CalendarEvent

MARK = "# Written by `mirrorback schedule install`; `mirrorback schedule remove` takes it away."
UNIT = re.compile(r"mirrorback-[A-Za-z0-9_.-]+\.(?:service|timer)", re.ASCII)
LABEL = "org.mirrorback."
BEGIN, END = "# BEGIN mirrorback", "# END mirrorback"
LONGEST_DELAY = timedelta(minutes=15)
WAIT = ("--wait", "12h")  # until another run lets go of the drive
_OURS = re.compile(rf"^{BEGIN}\n(?:(?!{BEGIN}$).*\n)*?{END}(?:\n|\Z)", re.MULTILINE)
CATCH_UP = "47 * * * *"  # when cron looks whether a run was missed


@dataclass(frozen=True, slots=True)
class Job:
    """A run that is to come again and again."""

    name: str
    schedule: CalendarEvent
    program: tuple[str, ...]  # by its absolute path
    config: str  # the configuration's path
    mount: str | None = None  # also to start when this folder is mounted

    def run(self, *more: str) -> tuple[str, ...]:
        """The command at its time, with more options."""
        options = ("--if-present", "--no-progress", "--config", self.config)
        return (*self.program, "run", self.name, *options, *more)


@dataclass(frozen=True, slots=True)
class Written:
    """Something that `install` writes: where, and its text."""

    where: str
    text: str


def delay(job: Job, now: datetime) -> timedelta:
    """How much later a run may begin, so that not all machines write to one server at once."""
    between = calendar_event.interval(job.schedule, now)
    return LONGEST_DELAY if between is None else min(LONGEST_DELAY, between / 4)


def systemd_units(job: Job, now: datetime) -> dict[str, str]:
    """File names and texts of a job's service and timer (systemd.service(5), systemd.timer(5))."""
    service = [
        MARK,
        "[Unit]",
        f"Description=Backup {job.name} (mirrorback)",
        "Documentation=man:mirrorback(1)",
        *([] if job.mount is None else [f"After={mount_unit(job.mount)}"]),
        "",
        "[Service]",
        "Type=oneshot",
        f"ExecStart={systemd_command(job.run(*WAIT))}",
        "SuccessExitStatus=3",
        "KillMode=mixed",  # a hook is not to be stopped by the signal that lets us run it
        "Nice=19",
        "CPUSchedulingPolicy=idle",
        "IOSchedulingClass=idle",
    ]
    if job.mount is not None:
        service += ["", "[Install]", f"WantedBy={mount_unit(job.mount)}"]
    timer = [
        MARK,
        "[Unit]",
        f"Description=When to back up {job.name} (mirrorback)",
        "Documentation=man:mirrorback(1)",
        "",
        "[Timer]",
        calendar_line(job.schedule),
        "Persistent=true",
        f"RandomizedDelaySec={int(delay(job, now).total_seconds())}",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    name = f"mirrorback-{job.name}"
    return {f"{name}.service": _lines(service), f"{name}.timer": _lines(timer)}


def calendar_line(schedule: CalendarEvent) -> str:
    """When a timer comes, as a line of it."""
    return f"OnCalendar={schedule.text()}"


def systemd_command(words: Sequence[str]) -> str:
    """A command line as systemd reads it back (systemd.service(5), "Command lines"): of the
    program's own path alone it replaces no variables."""
    program, *arguments = (word.replace("%", "%%") for word in words)
    return " ".join(map(_word, (program, *(word.replace("$", "$$") for word in arguments))))


def _word(doubled: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_./:=@%$+,-]+", doubled):
        return doubled
    return '"' + "".join(_escaped(char) for char in doubled) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable() and not "\udc80" <= char <= "\udcff":
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def mount_unit(folder: str) -> str:
    """The unit of a mount (systemd.unit(5), "String escaping for inclusion in unit names")."""
    parts = [part for part in folder.split("/") if part]
    if not parts:
        return "-.mount"
    escaped = "-".join(
        "".join(map(_unit_char, part.encode("utf-8", "surrogateescape"))) for part in parts
    )
    if escaped.startswith("."):
        escaped = "\\x2e" + escaped[1:]
    return escaped + ".mount"


def _unit_char(byte: int) -> str:
    char = chr(byte)
    return char if byte < 128 and (char.isalnum() or char in ":_.") else f"\\x{byte:02x}"


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


def launchd_agent(job: Job) -> dict[str, Any] | None:
    """The property list of a job (launchd.plist(5)); None where launchd cannot say when."""
    intervals = calendar_event.launchd_intervals(job.schedule)
    if intervals is None:
        return None
    return {
        "Label": LABEL + job.name,
        # At log-in too: what was missed meanwhile is made up for.
        "ProgramArguments": list(job.run("--if-due", *WAIT)),
        "StartCalendarInterval": intervals,
        "RunAtLoad": True,
        "ProcessType": "Background",
        "LowPriorityIO": True,
        "LowPriorityBackgroundIO": True,
        "Nice": 19,
    }


def cron_lines(job: Job) -> list[str] | None:
    """The lines of a crontab (crontab(5)): one at the time, one that makes up for what was
    missed.  None where cron cannot say when."""
    fields = calendar_event.cron_fields(job.schedule)
    if fields is None:
        return None
    # What is printed is mailed: nothing is to be, where all is well.
    at_its_time = cron_command(job.run("--quiet", *WAIT))
    missed = cron_command(job.run("--quiet", "--if-due"))
    return [f"{fields} {at_its_time}", f"{CATCH_UP} {missed}"]


def crontab_runs(text: str, name: str, schedule: CalendarEvent) -> bool:
    """Whether one of our lines in a crontab runs a backup at its times."""
    fields = calendar_event.cron_fields(schedule)
    ours = (line for block in _OURS.findall(text) for line in block.splitlines())
    return fields is not None and any(
        line.startswith(f"{fields} ") and f" run {name} " in line for line in ours
    )


def cron_command(words: Sequence[str]) -> str:
    """A command as cron hands it to the shell; raises ValueError for what no line can hold.

    Crons take a backslash away from before `%`, and some (ISC's, Debian's) from before another
    one, also between quotes: so none stands before either.
    """
    if any(char in word for word in words for char in "\n\0"):
        raise ValueError("a line break cannot stand in a crontab")
    line = " ".join(shlex.quote(word).replace("\\", "\\''") for word in words)
    return "nice -n 19 " + line.replace("%", "\\%")


def crontab(text: str, jobs: Sequence[Sequence[str]]) -> str:
    """A crontab with our lines in the place of those that were ours; nothing else changes."""
    kept = _OURS.sub("", text)
    if kept and not kept.endswith("\n"):
        kept += "\n"
    if not jobs:
        return kept
    return kept + _lines([BEGIN, *(line for lines in jobs for line in lines), END])
