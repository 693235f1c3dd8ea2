"""The shapes of --json: their keys are a contract with scripts."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.cli import shapes
from mirrorback.cli.words import iso
from mirrorback.model import (
    Change,
    ChangeKind,
    Digest,
    Entry,
    Finding,
    Kind,
    Level,
    Metadata,
    Owner,
    Problem,
    Repair,
    Snapshot,
    Summary,
    Version,
)

BERLIN = ZoneInfo("Europe/Berlin")
SECOND = 1_000_000_000
NIGHT = 1_795_395_600 * SECOND  # 2026-11-23T01:00:00Z
OLD = Snapshot(1, "2026-11-22-020000", NIGHT - 86_400 * SECOND, 3600, current=False)
NEW = Snapshot(2, "2026-11-23-020000", NIGHT, 3600, current=True, files=3, bytes=12)
FILE = Metadata(Kind.FILE, 0o644, Owner(0, 0), NIGHT + 120, size=12)
FOLDER = Metadata(Kind.DIRECTORY, 0o1777, Owner(0, 0), NIGHT)
DIGEST = Digest(bytes(range(32)))


def test_snapshot() -> None:
    assert shapes.snapshot(NEW, b"/drive/Backup/current") == {
        "name": "2026-11-23-020000",
        "time": "2026-11-23T02:00:00+01:00",
        "path": "/drive/Backup/current",
        "current": True,
        "incomplete": False,
        "pinned": None,
        "files": 3,
        "bytes": 12,
    }


def test_entry() -> None:
    assert shapes.entry(Entry(b"a/b", FILE, DIGEST, 7), BERLIN) == {
        "path": "a/b",
        "type": "file",
        "size": 12,
        "mtime": "2026-11-23T02:00:00.00000012+01:00",
        "mode": "0644",
        "stored": "whole",
    }


def test_version() -> None:
    version = Version(b"a/b", OLD, NEW, FILE, DIGEST, b"/drive/Backup/current/a/b")
    assert shapes.version(version, BERLIN) == {
        "path": "a/b",
        "first_snapshot": "2026-11-22-020000",
        "last_snapshot": "2026-11-23-020000",
        "type": "file",
        "size": 12,
        "mtime": "2026-11-23T02:00:00.00000012+01:00",
        "mode": "0644",
        "stored": "whole",
        "location": "/drive/Backup/current/a/b",
        "digest": f"blake3:{bytes(range(32)).hex()}",
    }


def test_version_of_a_folder_that_moved() -> None:
    version = Version(b"a", NEW, NEW, FOLDER, None, b"/drive/current/a", moved_from=b"old\xff")
    shape = shapes.version(version, BERLIN)
    assert shape["digest"] is None
    assert shape["mode"] == "1777"
    assert shape["type"] == "directory"
    assert shape["moved_from"] == "old\udcff"


def test_match() -> None:
    version = Version(b"a/b", OLD, NEW, FILE, DIGEST, b"/drive/Backup/current/a/b")
    assert list(shapes.match(version, BERLIN)) == [
        "path",
        "first_snapshot",
        "last_snapshot",
        "type",
        "size",
        "mtime",
    ]


@pytest.mark.parametrize("kind", ChangeKind)
def test_change(kind: ChangeKind) -> None:
    assert shapes.change(Change(b"x", kind)) == {"path": "x", "change": kind, "from": None}


def test_change_of_a_path_that_moved() -> None:
    change = Change(b"x\xff", ChangeKind.MOVED, b"y")
    assert shapes.change(change) == {"path": "x\udcff", "change": "moved", "from": "y"}


def test_problem() -> None:
    problem = Problem(b"p", ("2026-11-22-020000",), "missing", b"/drive/p", False)
    assert shapes.problem(problem) == {
        "path": "p",
        "snapshots": ["2026-11-22-020000"],
        "problem": "missing",
        "location": "/drive/p",
        "repairable": False,
    }


def test_finding() -> None:
    finding = Finding("holes", Level.NOTE, "no", "sparse files take their full size")
    assert shapes.finding(finding) == {
        "subject": "holes",
        "level": "note",
        "found": "no",
        "follows": "sparse files take their full size",
    }


def test_summary() -> None:
    assert shapes.summary(Summary(snapshot=NEW.name, files_new=1, duration_s=0.8)) == {
        "message_type": "summary",
        "snapshot": "2026-11-23-020000",
        "unchanged": False,
        "files_new": 1,
        "files_changed": 0,
        "files_metadata": 0,
        "files_moved": 0,
        "files_removed": 0,
        "files_unmodified": 0,
        "files_stale": 0,
        "dirs": 0,
        "bytes_copied": 0,
        "bytes_written": 0,
        "errors": 0,
        "duration_s": 0.8,
        "not_kept": {},
        "snapshots_removed": [],
        "bytes_freed": 0,
    }


@given(st.binary(max_size=20))
def test_any_path_survives_json(path: bytes) -> None:
    text = json.dumps(shapes.message("error", "no", path), ensure_ascii=True)
    assert text.isascii()
    assert json.loads(text)["path"].encode("utf-8", "surrogateescape") == path


@pytest.mark.parametrize(
    ("ns", "where", "text"),
    [
        (0, 0, "1970-01-01T00:00:00+00:00"),
        (1, 0, "1970-01-01T00:00:00.000000001+00:00"),
        (-1, 0, "1969-12-31T23:59:59.999999999+00:00"),
        (NIGHT + 500_000_000, 3600, "2026-11-23T02:00:00.5+01:00"),
        (NIGHT, -12_600, "2026-11-22T21:30:00-03:30"),
        (NIGHT, BERLIN, "2026-11-23T02:00:00+01:00"),
        (NIGHT - 180 * 86_400 * SECOND, BERLIN, "2026-05-27T03:00:00+02:00"),
        # Local mean time was 53 min 28 s ahead; ISO 8601 has minutes only.
        (-3_000_000_000 * SECOND, BERLIN, "1874-12-07T19:33:00+00:53"),
        (253_402_300_800 * SECOND, BERLIN, "+010000-01-01T00:00:00+00:00"),
        (-62_135_596_801 * SECOND, 0, "+000000-12-31T23:59:59+00:00"),
        (-62_167_219_201 * SECOND, 0, "-000001-12-31T23:59:59+00:00"),
    ],
)
def test_iso(ns: int, where: int | ZoneInfo, text: str) -> None:
    assert iso(ns, where) == text


@given(
    st.integers(-62_000_000_000 * SECOND, 250_000_000_000 * SECOND),
    st.integers(-14 * 60, 14 * 60),
)
def test_iso_names_the_instant_exactly(ns: int, minutes: int) -> None:
    text = iso(ns, minutes * 60)
    whole, rest = divmod(ns, SECOND)
    zone = timezone(timedelta(minutes=minutes))
    epoch = datetime(1970, 1, 1, tzinfo=zone) + timedelta(minutes=minutes)
    expected = (epoch + timedelta(seconds=whole)).isoformat()
    assert text[:19] + text[-6:] == expected
    fraction = text[19:-6]
    assert not fraction.endswith(("0", "."))
    assert int((fraction[1:] or "0").ljust(9, "0")) == rest


def test_repair() -> None:
    found = Repair(b"a\xff", ("x",), "missing", b"/r/x/a", True, "source", b"/r/.mirrorback/d")
    assert shapes.repair(found) == {
        "path": "a\udcff",
        "snapshots": ["x"],
        "problem": "missing",
        "location": "/r/x/a",
        "repaired": True,
        "from": "source",
        "set_apart": "/r/.mirrorback/d",
    }
