"""The logs of runs: in which order, which one is meant, and what came of its run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from mirrorback.errors import NotInHistory
from mirrorback.plan import when
from mirrorback.plan.overdue import is_to_come
from mirrorback.plan.spans import instant

_NAME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9]{6})(?:-([0-9]{1,3}))?", re.ASCII)
_LAST = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8} (ok|incomplete|failed): (.*)", re.ASCII | re.DOTALL
)


def taken(run: str, now: datetime) -> datetime | None:
    """When the run of a log began, by the log's name, in the zone of `now`; None where the name
    tells no time."""
    match = _NAME.fullmatch(run)
    try:
        date, clock = (match[1][:10], match[1][11:]) if match else ("", "")
        return datetime.fromisoformat(f"{date}T{clock}").replace(tzinfo=now.tzinfo)
    except ValueError:
        return None


def ordered(runs: Iterable[str], now: datetime) -> list[str]:
    """Logs by their names, the newest last.  Those of a time to come, by a clock that was set
    back since, are taken for older than all others."""

    def key(run: str) -> tuple[bool, str, int]:
        match, moment = _NAME.fullmatch(run), taken(run, now)
        known = moment is not None and not is_to_come(moment, now)
        return (known, match[1], int(match[2] or 1)) if match else (known, run, 1)

    return sorted(runs, key=key)


def chosen(runs: Sequence[str], text: str, now: datetime) -> str:
    """The run that is meant: by its own name, or the newest at or before a WHEN.  `runs` are the
    newest last.  Raises NotInHistory, UsageError."""
    if not runs:
        raise NotInHistory("there is no log of a run yet")
    if text in ("latest", "now"):
        return runs[-1]
    if text in runs:
        return text
    end = when.end(text, now)
    for run in reversed(runs):
        moment = taken(run, now)
        if moment is not None and instant(moment) < end:
            return run
    raise NotInHistory(f"there is no log as old as {text}; the oldest is {runs[0]}")


def result(text: str) -> tuple[str | None, str | None]:
    """The result and the message at the end of a log; None for one that has no end: its run was
    cut short, or goes on."""
    lines = text.rstrip("\n").splitlines()
    match = _LAST.fullmatch(lines[-1]) if lines else None
    return (match[1], match[2]) if match else (None, None)
