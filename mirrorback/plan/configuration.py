"""What a configuration says: the backups in it, and every mistake, with its place."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Final

from mirrorback.errors import MirrorbackError, UsageError
from mirrorback.plan import calendar_event
from mirrorback.plan.calendar_event import CalendarEvent
from mirrorback.plan.durations import parse_duration
from mirrorback.plan.retention import MOST, UNLIMITED
from mirrorback.plan.selection import Selection
from mirrorback.plan.sizes import parse_room, parse_size
from mirrorback.plan.spans import parse_span

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
SOURCE_SNAPSHOTS = ("btrfs",)
LARGE_FILES = ("auto", "delta", "reflink", "whole")
MAIL_ON = ("failure", "always")
_ADDRESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._%+=-]*(?:@[A-Za-z0-9][A-Za-z0-9.-]*)?", re.ASCII)

Path = tuple[str, ...]  # the keys that lead to a value
Count = int | str  # a number of snapshots, or UNLIMITED


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something that is not right: where, and what, in words for one line."""

    path: Path
    message: str


@dataclass(frozen=True, slots=True)
class Configured:
    """One backup as it is configured; what is not given is None, or as the command line has it.
    Sizes in bytes, patterns as in .gitignore, commands for the shell."""

    name: str
    source: str
    repository: str
    repository_id: str | None = None
    exclude: tuple[str, ...] = ()
    exclude_from: tuple[str, ...] = ()
    exclude_caches: bool = False
    exclude_if_present: tuple[str, ...] = ()
    exclude_larger_than: int | None = None
    one_file_system: bool = False
    source_snapshot: str | None = None
    checksum: bool = False
    always: bool = False
    allow_empty_source: bool = False
    delta_min_size: int | None = None
    large_files: str | None = None
    keep_last: Count | None = None
    keep_hourly: Count | None = None
    keep_daily: Count | None = None
    keep_weekly: Count | None = None
    keep_monthly: Count | None = None
    keep_yearly: Count | None = None
    keep_within: str | None = None
    time_machine: bool = False
    min_free: str | None = None
    schedule: CalendarEvent | None = None
    overdue_after: timedelta | None = None
    verify: timedelta | None = None
    before: str | None = None
    after: str | None = None
    on_failure: str | None = None
    hook_timeout: timedelta = timedelta(hours=1)
    notify: bool = True
    mail_to: tuple[str, ...] = ()
    mail_on: str = "failure"
    # Name and id of each other backup at the same place: their drives take turns there.
    alternates: tuple[tuple[str, str], ...] = ()


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise UsageError("give text in quotes")
    if not value.strip():
        raise UsageError("is empty")
    if "\0" in value:
        raise UsageError("holds a NUL")
    return value


def _folder(value: object) -> str:
    path = _text(value)
    if not (path.startswith(("/", "~/")) or path == "~"):
        raise UsageError("give the whole path, from / or ~/")
    return path


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError("give true or false")
    return value


def _count(value: object) -> Count:
    if value == UNLIMITED:
        return UNLIMITED
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
        raise UsageError(f'give a whole number from 1 to {MOST:,}, or "{UNLIMITED}"')
    return value


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (_text(value),)
    if not isinstance(value, list):
        raise UsageError('give a list of texts, such as [".cache/", "*.tmp"]')
    return tuple(_text(item) for item in value)


def _patterns(value: object) -> tuple[str, ...]:
    found = _texts(value)
    Selection(found)  # tells what does not parse
    return found


def _files(value: object) -> tuple[str, ...]:
    return tuple(map(_folder, _texts(value)))


def _names(value: object) -> tuple[str, ...]:
    for name in (found := _texts(value)):
        if "/" in name or name in (".", ".."):
            raise UsageError(f"{name!r} is no name of a file")
    return found


def _size(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return parse_size(str(value))
    return parse_size(_text(value))


def _parsed(parse: Callable[[str], object]) -> Callable[[object], str]:
    """A reader of text which is kept as it stands, once `parse` has taken it."""

    def read(value: object) -> str:
        text = _text(value)
        parse(text)
        return text

    return read


def _id(value: object) -> str:
    text = _text(value)
    if not ID.fullmatch(text):
        raise UsageError("is not the id of a repository: `.mirrorback/repository.toml` has it")
    return text


def _one_of(*words: str) -> Callable[[object], str]:
    """A reader of one of some words."""

    def read(value: object) -> str:
        text = _text(value)
        if text not in words:
            raise UsageError(f"give {', '.join(words[:-1])} or {words[-1]}")
        return text

    return read


def is_address(text: str) -> bool:
    """Whether mail may go there."""
    return _ADDRESS.fullmatch(text) is not None


def _addresses(value: object) -> tuple[str, ...]:
    for address in (found := _texts(value)):
        if not is_address(address):
            raise UsageError(f"{address!r} is no address: give one like alice@example.org, or root")
    return found


def _source_snapshot(value: object) -> str:
    text = _text(value)
    if text not in SOURCE_SNAPSHOTS:
        raise UsageError("give btrfs")
    return text


def _schedule(value: object) -> CalendarEvent:
    return calendar_event.parse(_text(value))


def _span(value: object) -> timedelta:
    return parse_duration(_text(value))


_READERS: Final[Mapping[str, Callable[[object], Any]]] = {
    "source": _folder,
    "repository": _folder,
    "repository-id": _id,
    "exclude": _patterns,
    "exclude-from": _files,
    "exclude-caches": _flag,
    "exclude-if-present": _names,
    "exclude-larger-than": _size,
    "one-file-system": _flag,
    "source-snapshot": _source_snapshot,
    "checksum": _flag,
    "always": _flag,
    "allow-empty-source": _flag,
    "delta-min-size": _size,
    "large-files": _one_of(*LARGE_FILES),
    "keep-last": _count,
    "keep-hourly": _count,
    "keep-daily": _count,
    "keep-weekly": _count,
    "keep-monthly": _count,
    "keep-yearly": _count,
    "keep-within": _parsed(parse_span),
    "time-machine": _flag,
    "min-free": _parsed(parse_room),
    "schedule": _schedule,
    "overdue-after": _span,
    "verify": _span,
    "before": _text,
    "after": _text,
    "on-failure": _text,
    "hook-timeout": _span,
    "notify": _flag,
    "mail-to": _addresses,
    "mail-on": _one_of(*MAIL_ON),
}
KEYS = tuple(_READERS)
REQUIRED = ("source", "repository")
_OWN = {"name", "alternates"}  # of a backup, besides its keys
assert {key.replace("-", "_") for key in KEYS} | _OWN == {f.name for f in fields(Configured)}


def read(
    document: Mapping[str, Any], now: datetime, expand: Callable[[str], str] = str
) -> tuple[list[Configured], list[Mistake]]:
    """The backups in a configuration, in its order, and the mistakes in it.

    `document` is what a TOML reader made of the file.  A backup with a mistake is not among
    the backups.  `now` is aware: a schedule that never comes after it is a mistake.  `expand`
    puts the home in the place of `~`.
    """
    mistakes = [
        Mistake((key,), f"unknown key {key!r}{_nearest(key, ('backup',))}")
        for key in document
        if key != "backup"
    ]
    tables = document.get("backup", {})
    if not isinstance(tables, Mapping):
        return [], [*mistakes, Mistake(("backup",), "is not a table: write [backup.NAME]")]
    found: list[Configured] = []
    for name, table in tables.items():
        wrong, backup = _backup(name, table)
        mistakes += wrong
        if backup is not None:
            found.append(backup)
    found, wrong = _placed(found, expand)
    wrong += [
        Mistake(("backup", one.name, "schedule"), "schedule: this never comes")
        for one in found
        if one.schedule is not None and one.schedule.after(now) is None
    ]
    bad = {mistake.path[1] for mistake in wrong}
    return [one for one in found if one.name not in bad], mistakes + wrong


def _backup(name: str, table: object) -> tuple[list[Mistake], Configured | None]:
    path = ("backup", name)
    if not isinstance(table, Mapping):
        hint = " (a backup has a name: write [backup.NAME])" if name in KEYS else ""
        return [Mistake(path, f"{name!r} is not a table{hint}")], None
    mistakes = []
    if not NAME.fullmatch(name):
        said = f"{name!r} is no name for a backup: give letters, digits, `_`, `-` and `.`"
        mistakes.append(Mistake(path, said))
    values: dict[str, Any] = {}
    for key, value in table.items():
        try:
            if key not in _READERS:
                raise UsageError(f"unknown key {key!r}{_nearest(key, KEYS)}")
            values[key.replace("-", "_")] = _READERS[key](value)
        except MirrorbackError as error:
            known = key in _READERS
            mistakes.append(Mistake((*path, key), f"{key}: {error}" if known else str(error)))
    for key in REQUIRED:
        if key not in table:
            mistakes.append(Mistake(path, f"{name!r} has no {key}"))
    return mistakes, None if mistakes else Configured(name=name, **values)


def _nearest(key: str, known: Iterable[str]) -> str:
    """` (did you mean ...?)`, where something is like it."""
    close = difflib.get_close_matches(key.replace("_", "-"), list(known), 1, 0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _placed(
    found: Sequence[Configured], expand: Callable[[str], str]
) -> tuple[list[Configured], list[Mistake]]:
    """The backups, with those at the same place told of each other: by their ids they are of
    drives that take turns.  Two in one repository are a mistake: each would take the other's
    files for removed."""
    mistakes = []
    places: dict[str, list[Configured]] = {}
    for backup in found:
        there = places.setdefault(os.path.normpath(expand(backup.repository)), [])
        other = next((one for one in there if not _differ(one, backup)), None)
        if other is None:
            there.append(backup)
            continue
        said = (
            f"repository: {other.name!r} has the same; give each backup a folder of its own, or,"
            " where drives take turns at that place, the repository-id of its own"
        )
        mistakes.append(Mistake(("backup", backup.name, "repository"), said))
    known = {one.name: there for there in places.values() for one in there}
    placed = [replace(one, alternates=_others(one, known.get(one.name, ()))) for one in found]
    return placed, mistakes


def _differ(one: Configured, other: Configured) -> bool:
    """Whether two repositories are known to be two."""
    return None not in (one.repository_id, other.repository_id) and (
        one.repository_id != other.repository_id
    )


def _others(backup: Configured, there: Iterable[Configured]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (one.name, one.repository_id)
        for one in there
        if one.name != backup.name and one.repository_id is not None
    )
