"""The diary: what came of the last runs of each configured backup, kept on this machine.

It answers when the drive is away.  A JSON file for each backup, in the folder for state (XDG
Base Directory Specification; for root /var/lib/mirrorback).  Losing it costs nothing that a
later run does not write again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mirrorback.errors import DriveError
from mirrorback.plan.configuration import NAME
from mirrorback.store import durable, tree, turn
from mirrorback.store.catalog import FOLDER_NAME

SYSTEM = "/var/lib/mirrorback"
TURNS = "turns"  # the folder below it of locks on drives
FIRST_YEAR = 1970  # of any clock; nothing is reckoned from before
_LISTS = ("pinned", "mail_to")
RESULTS = ("ok", "incomplete", "failed", "skipped")


@dataclass(frozen=True, slots=True)
class Page:
    """What is known of one backup.  Times are ISO 8601 with offset; None where there is none."""

    name: str
    repository_id: str | None = None
    last_run: str | None = None  # when the last run ended that no signal did
    last_result: str | None = None  # one of RESULTS
    message: str | None = None  # what the last run had to say
    last_success: str | None = None  # when the last snapshot was made
    last_check: str | None = None  # when a run last found nothing new
    pinned: tuple[str, ...] = ()  # snapshots that a mass change has pinned
    told: str | None = None  # when a person was last told of something
    told_of: str | None = None  # and of what; None after a run that ended well
    untold: str | None = None  # the subject of what is to be told, and has reached nobody yet
    untold_text: str | None = None
    mail_to: tuple[str, ...] = ()  # as it was configured, for when that cannot be read any more

    def of(self, repository_id: str | None) -> Page:
        """What is known of a repository: nothing, where the page is about another."""
        known = self.repository_id is not None and repository_id is not None
        if known and self.repository_id != repository_id:
            return Page(self.name, repository_id)
        return dataclasses.replace(self, repository_id=repository_id or self.repository_id)


def folder() -> str:
    """Where the diary is: what MIRRORBACK_STATE_DIR names, else the usual place.  Raises
    DriveError where a person has no home."""
    named = os.environ.get("MIRRORBACK_STATE_DIR")
    if named:
        return os.path.abspath(named)
    if os.geteuid() == 0:
        return SYSTEM
    import platformdirs

    with contextlib.suppress(RuntimeError):
        found = platformdirs.user_state_dir("mirrorback")
        if os.path.isabs(found):
            return found
    raise DriveError("there is no home folder (HOME): nothing can be remembered of the runs")


def known_folder() -> str | None:
    """The same; None where a person has no home."""
    with contextlib.suppress(DriveError):
        return folder()
    return None


def read(where: str, name: str) -> Page:
    """What is known of a backup: nothing, where there is no page or none that can be read."""
    try:
        opened = os.open(where, tree.DIRECTORY_FLAGS)
    except OSError:
        return Page(name)
    try:
        return _page(name, json.loads(durable.read(opened, _file(name))))
    except (OSError, ValueError, RecursionError):
        return Page(name)
    finally:
        os.close(opened)


def names(where: str) -> list[str]:
    """The names of all backups of which something is known."""
    with contextlib.suppress(OSError):
        found = (name.removesuffix(".json") for name in os.listdir(where) if name.endswith(".json"))
        return sorted(name for name in found if NAME.fullmatch(name))
    return []


def _page(name: str, found: Any) -> Page:
    values: dict[str, Any] = {"name": name}
    for field in dataclasses.fields(Page)[1:]:
        value = found.get(field.name) if isinstance(found, dict) else None
        if field.name in _LISTS:
            value = value if isinstance(value, list) else []
            values[field.name] = tuple(one for one in value if isinstance(one, str))
        else:
            values[field.name] = value if isinstance(value, str) else None
    values["pinned"] = tuple(one for one in values["pinned"] if FOLDER_NAME.fullmatch(one))
    if values["last_result"] not in RESULTS:
        values["last_result"] = None
    return Page(**values)


def update(where: str, name: str, change: Callable[[Page], Page]) -> None:
    """Put down what is known of a backup by now, durably; what another run has written
    meanwhile is not lost.  Raises OSError."""
    with opened(where) as folder, turn.alone(folder):
        text = json.dumps(dataclasses.asdict(change(read(where, name))), indent=1)
        durable.replace(folder, _file(name), (text + "\n").encode())


@contextlib.contextmanager
def opened(where: str, *names: str) -> Iterator[int]:
    """A descriptor of the folder of the diary, or of one below it, made where there is none.
    Raises OSError."""
    path = os.path.join(where, *names)
    tree.make_private(path)
    folder = os.open(path, tree.DIRECTORY_FLAGS)
    try:
        yield folder
    finally:
        os.close(folder)


def moment(text: str | None, now: datetime) -> datetime | None:
    """A time as pages have it, in the zone of `now`; None where it is none that a clock shows."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        found = datetime.fromisoformat(text or "")
        if found.tzinfo is not None and found.year >= FIRST_YEAR:
            return found.astimezone(now.tzinfo)
    return None


def _file(name: str) -> bytes:
    return name.encode() + b".json"
