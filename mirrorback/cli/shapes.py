"""What --json prints: the shapes that scripts rely on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any

from mirrorback.cli.escape import text_of
from mirrorback.cli.words import iso, span
from mirrorback.model import Change, Entry, Finding, Problem, Repair, Snapshot, Summary, Version

if TYPE_CHECKING:
    from mirrorback.engine.night.configuration import Configured
    from mirrorback.engine.night.logs import RunLog
    from mirrorback.engine.night.standing import Status
    from mirrorback.engine.stats import Added, Forecast, Heavy, Share, Together, Totals

Shape = dict[str, Any]


def snapshot(found: Snapshot, location: bytes) -> Shape:
    """A snapshot; `location` is its folder."""
    return {
        "name": found.name,
        "time": iso(found.time, found.offset),
        "path": text_of(location),
        "current": found.current,
        "incomplete": found.incomplete,
        "pinned": found.pinned,
        "files": found.files,
        "bytes": found.bytes,
    }


def entry(found: Entry, zone: tzinfo) -> Shape:
    """An entry of `ls`."""
    return {
        "path": text_of(found.path),
        "type": found.metadata.kind.label,
        "size": found.metadata.size,
        "mtime": iso(found.metadata.mtime, zone),
        "mode": f"{found.metadata.mode:04o}",
        "stored": found.stored,
    }


def version(found: Version, zone: tzinfo) -> Shape:
    """A version as `versions` shows it."""
    shape = match(found, zone) | {
        "mode": f"{found.metadata.mode:04o}",
        "stored": found.stored,
        "location": text_of(found.location),
        "digest": None if found.digest is None else str(found.digest),
    }
    if found.moved_from is not None:
        shape["moved_from"] = text_of(found.moved_from)
    return shape


def match(found: Version, zone: tzinfo) -> Shape:
    """A version as `find` shows it."""
    return {
        "path": text_of(found.path),
        "first_snapshot": found.first.name,
        "last_snapshot": found.last.name,
        "type": found.metadata.kind.label,
        "size": found.metadata.size,
        "mtime": iso(found.metadata.mtime, zone),
    }


def change(found: Change) -> Shape:
    """A row of a difference."""
    return {
        "path": text_of(found.path),
        "change": found.change.value,
        "from": None if found.from_path is None else text_of(found.from_path),
    }


def problem(found: Problem) -> Shape:
    """Something `verify` found."""
    return {
        "path": text_of(found.path),
        "snapshots": list(found.snapshots),
        "problem": found.problem,
        "location": text_of(found.location),
        "repairable": found.repairable,
    }


def repair(found: Repair) -> Shape:
    """What `repair` made of something that `verify` had found."""
    apart = found.set_apart
    return {
        "path": text_of(found.path),
        "snapshots": list(found.snapshots),
        "problem": found.problem,
        "location": text_of(found.location),
        "repaired": found.repaired,
        "from": found.origin,
        "set_apart": None if apart is None else text_of(apart),
    }


def finding(found: Finding) -> Shape:
    """Something `doctor` looked at."""
    return {
        "subject": found.subject,
        "level": found.level.value,
        "found": found.found,
        "follows": found.follows,
    }


def configured(found: Configured) -> Shape:
    """A backup as `config show` tells it: all keys, as they are written."""
    shape: Shape = {}
    for field in dataclasses.fields(found):
        value = getattr(found, field.name)
        if field.name == "alternates":
            continue  # no key: it is told by the other entries
        if isinstance(value, timedelta):
            value = span(value)
        elif isinstance(value, tuple):
            value = list(value)
        elif field.name == "schedule" and value is not None:
            value = value.text()
        shape[field.name.replace("_", "-")] = value
    return shape


def status(found: Status) -> Shape:
    """How a configured backup stands."""
    return {
        "name": found.name,
        "last_success": _moment(found.last_success),
        "last_check": _moment(found.last_check),
        "last_result": found.last_result,
        "next_run": _moment(found.next_run),
        "overdue": found.overdue,
        "pinned": [pin.name for pin in found.pinned],
    }


def run_log(found: RunLog) -> Shape:
    """The log of a run, without its lines."""
    return {
        "name": found.name,
        "run": found.run,
        "time": _moment(found.time),
        "result": found.result,
        "message": found.message,
    }


def _moment(found: datetime | None) -> str | None:
    return None if found is None else found.isoformat()


def share(found: Share) -> Shape:
    """A snapshot as `stats` shows it."""
    return {
        "name": found.snapshot.name,
        "time": iso(found.snapshot.time, found.snapshot.offset),
        "current": found.snapshot.current,
        "pinned": found.snapshot.pinned,
        "files": found.snapshot.files,
        "bytes": found.snapshot.bytes,
        "exclusive": found.exclusive,
        "frees": found.frees,
        "estimated": found.exclusive_estimated or found.frees_estimated,
    }


def together(found: Together) -> Shape:
    """What deleting some snapshots together frees."""
    return {
        "snapshots": [snapshot.name for snapshot in found.snapshots],
        "frees": found.frees,
        "estimated": found.estimated,
    }


def totals(found: Totals, leads: Forecast | None, now: int, zone: tzinfo) -> Shape:
    """All snapshots together; `now` is in nanoseconds since 1970."""
    full = None if leads is None or leads.full_in is None else iso(now + leads.full_in, zone)
    return {
        "snapshots": found.snapshots,
        "versions": found.versions,
        "logical_bytes": found.logical,
        "drive_bytes": found.drive,
        "ratio": None if found.ratio is None else round(found.ratio, 3),
        "files_bytes": found.files,
        "folders_bytes": found.folders,
        "catalog_bytes": found.catalog,
        "other_bytes": {text_of(name): size for name, size in found.rest.items()},
        "free_bytes": found.free,
        "estimated": found.estimated,
        "bytes_per_day": None if leads is None else leads.per_day,
        "full_at": full,
    }


def growth(found: Sequence[Added]) -> list[Shape]:
    """What each snapshot has added, and what there was with it."""
    shapes, total = [], 0
    for one in found:
        total += one.added
        when = iso(one.time, one.offset)
        shapes.append({"name": one.name, "time": when, "added": one.added, "total": total})
    return shapes


def heavy(found: Heavy) -> Shape:
    """A path with what its versions take."""
    return {"path": text_of(found.path), "versions": found.versions, "bytes": found.bytes}


def ready(point: bytes) -> Shape:
    """The line of `mount --json` that says that the folder can be used."""
    return {"message_type": "ready", "mountpoint": text_of(point)}


def message(kind: str, text: str, path: bytes | None) -> Shape:
    """A line of `backup --json`: an `error` or a `warning`."""
    return {
        "message_type": kind,
        "message": text,
        "path": None if path is None else text_of(path),
    }


def summary(found: Summary) -> Shape:
    """The last line of `backup --json`."""
    return {
        "message_type": "summary",
        "snapshot": found.snapshot,
        "unchanged": found.unchanged,
        "files_new": found.files_new,
        "files_changed": found.files_changed,
        "files_metadata": found.files_metadata,
        "files_moved": found.files_moved,
        "files_removed": found.files_removed,
        "files_unmodified": found.files_unmodified,
        "files_stale": found.files_stale,
        "dirs": found.dirs,
        "bytes_copied": found.bytes_copied,
        "bytes_written": found.bytes_written,
        "errors": found.errors,
        "duration_s": found.duration_s,
        "not_kept": found.not_kept,
        "snapshots_removed": found.snapshots_removed,
        "bytes_freed": found.bytes_freed,
    }
