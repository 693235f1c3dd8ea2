"""What a person is told of, unasked, and when: only what matters, and not again and again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

AGAIN = timedelta(hours=20)  # until the same is told once more
DAMAGED = 4  # exit code


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell: `subject` is one line of words of our own, `text` may be anything."""

    subject: str
    text: str


def of_run(
    name: str, result: str, code: int, message: str, pinned: Collection[str]
) -> Notice | None:
    """What a run that was not skipped gives cause to tell; None for nothing.  `pinned` are the
    snapshots that a mass change has pinned in it."""
    if result == "failed":
        what = "is damaged" if code == DAMAGED else "failed"
        return Notice(f"backup {name} {what}", message)
    if pinned:
        told = ", ".join(pinned)
        return Notice(
            f"backup {name}: more than half of the files were removed or changed",
            f"What they were is kept in {told}, and nothing is thinned until you say that it was"
            f" meant: look with `mirrorback diff {name} {next(iter(pinned))}`, then"
            f" `mirrorback unpin {name} {told.replace(', ', ' ')}`.",
        )
    return None


def of_overdue(name: str, last: datetime | None, why: str) -> Notice:
    """A run was skipped, and it has been too long since the last good one."""
    when = "has never been made" if last is None else f"was last made on {last:%Y-%m-%d %H:%M}"
    return Notice(f"backup {name} is overdue", f"It {when}; now {why}.")


def of_all(name: str, result: str, message: str) -> Notice:
    """A run that gives no cause, for who wants to be told of each."""
    return Notice(f"backup {name}: {result}", message)


def is_new(notice: Notice, told: datetime | None, told_of: str | None, now: datetime) -> bool:
    """Whether it has not been told already, in the last 20 hours.  A time to come, by a clock
    that was set back since, is none."""
    if told is None or told_of != notice.subject or told > now:
        return True
    return now - told >= AGAIN
