"""Rows of several directories by one query."""

from __future__ import annotations

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
    columns = ", ".join((*schema.ENTRY, "digest_of_row"))
    with made.transaction() as db:
        for directory in range(10, 50):
            for number in range(directory % 7):
                insert(db, columns, directory, b"\xff%d" % number, 1 + (number == 0), None)
            insert(db, columns, directory, b"gone", 1, 4)
    return made


def insert(db, columns: str, directory: int, name: bytes, kind: int, last: int | None) -> None:  # type: ignore[no-untyped-def]
    row = {"dir": directory, "name": name, "kind": kind, "last": last, "id": None}
    values = [row.get(column, 0) for column in columns.split(", ")]
    db.execute(f"INSERT INTO entry ({columns}) VALUES ({', '.join('?' * len(values))})", values)


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


def test_names_without_some() -> None:
    names = live.Names(5, [b"a", b"b"], b"c/d/e")
    assert names.without({b"a", b"d", b"x"}) == live.Names(3, [b"b"], b"c/e")
    assert live.NO_NAMES.without({b"a"}) == live.NO_NAMES
