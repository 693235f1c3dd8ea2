"""Rows of several directories by one query."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.store import live, schema
from mirrorback.store.catalog import Catalog
from mirrorback.store.together import SLOTS, by_directory

SELECT = "SELECT dir, name FROM main.entry WHERE last IS NULL AND"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Directory n holds n % 7 names of the mirror, a folder among them, and one of the past."""
    made = Catalog.create(bytes(tmp_path_factory.mktemp("c") / "catalog.db"))
    with made.transaction() as db:
        for directory in range(10, 50):
            for number in range(directory % 7):
                insert_entry(db, directory, b"\xff%d" % number, 1 + (number == 0))
            insert_entry(db, directory, b"gone", 1, last=4)
    return made


def insert_entry(
    db: sqlite3.Connection,
    directory: int,
    name: bytes,
    kind: int,
    *,
    last: int | None = None,
    stale: bool = False,
) -> None:
    row = {"dir": directory, "name": name, "kind": kind, "last": last, "id": None,
           "object": 1, "stale": int(stale)}  # fmt: skip
    values = [row.get(column, 0) for column in (*schema.ENTRY, "digest_of_row")]
    db.execute(f"INSERT INTO entry VALUES ({', '.join('?' * len(values))})", values)


ids = st.lists(st.integers(1, 60), min_size=1, max_size=SLOTS, unique=True)


def named(directory: int) -> list[bytes]:
    count = directory % 7 if 10 <= directory < 50 else 0
    return [b"\xff%d" % number for number in range(count)]


def require_as_many_as_fit(found: list[int], asked: list[int], most: int) -> None:
    """The first by number, so many as have `most` rows, and one where that has more."""
    assert found == sorted(asked)[: len(found)] and found
    held = sum(len(named(number)) for number in found)
    assert held <= most or sum(bool(named(number)) for number in found) == 1
    if len(found) < len(asked):
        following = sorted(asked)[len(found)]
        assert held + len(named(following)) > most


@given(ids, st.integers(0, 30))
def test_rows_of_as_many_as_fit(catalog: Catalog, asked: list[int], most: int) -> None:
    found = by_directory(catalog, SELECT, asked, most)
    for number, rows in found.items():
        assert sorted(row[0] for row in rows) == named(number)
    assert list(found) == sorted(asked)[: len(found)] and found
    assert sum(map(len, found.values())) <= most or len(found) == 1


@given(ids, st.integers(0, 30))
def test_names_of_as_many_as_fit(catalog: Catalog, asked: list[int], most: int) -> None:
    found = live.names(catalog, asked, most)
    require_as_many_as_fit(list(found), asked, most)
    for number, names in found.items():
        wanted = named(number)
        assert names.folders == wanted[:1] and names.total == len(wanted)
        assert names.others == b"/".join(wanted[1:])


def test_files_that_are_the_same_and_the_rest(tmp_path: Path) -> None:
    """Both ways together show the survey every entry once."""
    made = Catalog.create(bytes(tmp_path / "catalog.db"))
    with made.transaction() as db:
        db.execute("INSERT INTO owner (id, uid, gid) VALUES (1, 0, 0)")
        columns = {"id": 1, "kind": 1, "mode": 0o644, "owner": 1, "mtime": 10, "size": 5,
                   "ino": 1, "ctime": 20, "nlink": 1}  # fmt: skip
        values = [columns.get(column, 0) for column in (*schema.OBJECT, "digest_of_row")]
        db.execute(f"INSERT INTO object VALUES ({', '.join('?' * len(values))})", values)
        for number in range(30):
            insert_entry(db, 7, b"n%d" % number, 1, stale=number == 3)
        insert_entry(db, 8, b"\xff", 1, stale=False)
    rows = [(f"n{n}", 1, 0o100644, 5, 10, 20, 0, 0, 1, 0) for n in range(30)]
    for differing in (range(5), range(20)):
        seen = [
            (*row[:4], 11, *row[5:]) if number in differing else row
            for number, row in enumerate(rows)
        ]
        same = live.same_files(made, 7, seen)
        assert same == {row for n, row in enumerate(rows) if n not in differing and n != 3}
        rest = live.rows_besides(made, 7, same)
        assert sorted(rest) == sorted(b"n%d" % n for n in {*differing, 3})
    odd = [("\udcff", 1, 0o100644, 5, 10, 20, 0, 0, 1, 0)]
    assert live.same_files(made, 8, odd) == set()
    assert list(live.rows_besides(made, 8, set())) == [b"\xff"]


def test_names_without_some() -> None:
    names = live.Names(5, [b"a", b"b"], b"c/d/e")
    assert names.without({b"a", b"d", b"x"}) == live.Names(3, [b"b"], b"c/e")
    assert live.NO_NAMES.without({b"a"}) == live.NO_NAMES


def test_what_is_held_ends_as_it_went(tmp_path: Path) -> None:
    """A failure that its caller is handling meanwhile is none of its own."""
    catalog = Catalog.create(bytes(tmp_path / "catalog.db"))
    try:
        raise ValueError
    except ValueError:
        with catalog.held():
            insert_entry(catalog.db, 10, b"kept", 1)
    with pytest.raises(KeyError), catalog.held():
        insert_entry(catalog.db, 10, b"lost", 1)
        raise KeyError
    assert not catalog.db.in_transaction
    assert catalog.db.execute("SELECT name FROM entry").fetchall() == [(b"kept",)]


def test_no_file_is_taken_for_the_same_where_names_are_not_utf_8(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live.sys, "getfilesystemencoding", lambda: "iso8859-1")
    assert live.same_files(catalog, 12, [("a", 1, 0, 0, 0, 0, 0, 0, 1, 0)]) == frozenset()
