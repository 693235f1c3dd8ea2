"""What a person is told of, unasked, and when: only what matters, and not again and again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

AGAIN = timedelta(hours=20)  # until the same is told once more
SELDOM = timedelta(days=7)  # where it is less
DAMAGED = 4  # exit code


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell: `subject` is one line of words of our own, `text` may be anything; the
    same is not told for so long `again`."""

    subject: str
    text: str
    again: timedelta = AGAIN


def of_run(
    name: str, result: str, code: int, message: str, pinned: Collection[str]
) -> Notice | None:
    """What a run that was not skipped gives cause to tell; None for nothing.  `pinned` are the
    snapshots that a mass change has pinned in it."""
    meant = _mass_change(name, pinned) if pinned else ""
    if result == "failed":
        what = "is damaged" if code == DAMAGED else "failed"
        return Notice(f"backup {name} {what}", "\n\n".join(filter(None, (message, meant))))
    if pinned:
        what = "more than half of the files were removed or changed"
        return Notice(f"backup {name}: {what}", meant)
    return None


def _mass_change(name: str, pinned: Collection[str]) -> str:
    told = ", ".join(pinned)
    return (
        f"What the files were before most of them were removed or changed is kept in {told}, and"
        " nothing is thinned until you say that it was meant: look with"
        f" `mirrorback diff {name} {next(iter(pinned))}`, then"
        f" `mirrorback unpin {name} {told.replace(', ', ' ')}`."
    )


def of_incomplete(name: str, message: str) -> Notice:
    """Not the first run in which files of the source could not be read: it goes on."""
    return Notice(
        f"backup {name}: files cannot be read, again",
        f"{message}.  `mirrorback log {name}` names them: let them be read, or exclude them.",
        SELDOM,
    )


def of_overdue(name: str, last: datetime | None, why: str) -> Notice:
    """A run was skipped, and it has been too long since the last good one."""
    when = "has never been made" if last is None else f"was last made on {last:%Y-%m-%d %H:%M}"
    return Notice(f"backup {name} is overdue", f"It {when}; now {why}.")


def of_all(name: str, result: str, message: str) -> Notice:
    """A run that gives no cause, for who wants to be told of each."""
    return Notice(f"backup {name}: {result}", message)


def is_new(notice: Notice, told: datetime | None, told_of: str | None, now: datetime) -> bool:
    """Whether it has not been told already, of late.  A time to come, by a clock that was set
    back since, is none."""
    if told is None or told_of != notice.subject or told > now:
        return True
    return now - told >= notice.again
