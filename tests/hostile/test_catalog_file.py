"""The catalog's file, and what SQLite opens beside it, made by an attacker."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest
from hostility import ALL, RESTORING, Attack, plant

from mirrorback.store import schema

JOURNAL = bytes.fromhex("d9d505f920a163d7")
SECTOR = 512
LOCK_PAGE = (1 << 30) // schema.PAGE_SIZE + 1
# One that reads, one that restores, one that writes, one that makes it anew.
SOME = ("ls REPO -R --json", "restore REPO --to BACK", "pin REPO OLD", "rebuild REPO --force")


def journal_above(catalog: Path, above: Path) -> bytes:
    """A journal of a commit that was cut, and that names another file as the one above it
    (https://sqlite.org/fileformat2.html, 3)."""
    pages = catalog.stat().st_size // schema.PAGE_SIZE
    head = JOURNAL + struct.pack(">5I", 0, 7, pages, SECTOR, schema.PAGE_SIZE)
    name = bytes(above)
    end = struct.pack(">II", len(name), sum(name)) + JOURNAL
    return head.ljust(SECTOR, b"\0") + struct.pack(">I", LOCK_PAGE) + name + end


def test_a_sound_one_is_no_attack(attack: Attack) -> None:
    ends = {command: attack.end(command) for command in ALL}
    assert [end for end in ends.values() if end.fault()] == []
    assert {ends[command].code for command in RESTORING} == {0}
    assert b"another text" in (attack.back / "d/a").read_bytes()


@pytest.mark.parametrize("name", ["secret", "database"])
@pytest.mark.parametrize("command", SOME)
def test_a_journal_deletes_no_file_that_it_names(attack: Attack, name: str, command: str) -> None:
    journal = journal_above(attack.catalog, attack.outside / name)
    attack.catalog.with_name("catalog.db-journal").write_bytes(journal)
    attack.require_harmless(command)
    assert (attack.outside / name).exists()


@pytest.mark.parametrize("command", SOME)
def test_a_link_to_someone_elses_database(attack: Attack, command: str) -> None:
    for hard in (False, True):
        attack.catalog.unlink()
        if hard:
            attack.catalog.hardlink_to(attack.outside / "database")
        else:
            attack.catalog.symlink_to(attack.outside / "database")
        attack.require_harmless(command)


@pytest.mark.parametrize("beside", ["", "-journal", "-wal", "-shm"])
def test_a_pipe_is_not_waited_for(attack: Attack, beside: str) -> None:
    plant(attack.catalog.with_name("catalog.db" + beside), "fifo", attack.outside)
    attack.require_harmless(*SOME)


VIEWS = {
    "without end": "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT i",
    "large": "WITH n(i) AS (VALUES (1)) SELECT zeroblob(1 << 29)",
}


@pytest.mark.parametrize("what", VIEWS)
@pytest.mark.parametrize("table", ["snapshot", "directory", "entry", "attributes"])
def test_a_view_in_the_place_of_a_table(attack: Attack, table: str, what: str) -> None:
    with attack.database() as db:
        db.execute(f"DROP TABLE {table}")
        names = schema.CHECKED.get(table, ("digest", "value"))
        columns = ", ".join(f"i AS {name}" for name in [*names[1:], "digest_of_row"])
        db.execute(f"CREATE VIEW {table} AS {VIEWS[what]} AS {names[0]}, {columns} FROM n")
    attack.require_harmless(*SOME)


def test_triggers_and_more_tables(attack: Attack) -> None:
    with attack.database() as db:
        db.execute("CREATE TABLE more (x DEFAULT (zeroblob(1 << 29)))")
        db.execute(
            "CREATE TRIGGER evil AFTER UPDATE ON snapshot BEGIN INSERT INTO more (rowid)"
            " WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT i FROM n;"
            " END"
        )
    attack.require_harmless(*SOME)


@pytest.mark.parametrize("column", ["target", "name"])
def test_values_of_many_megabytes(attack: Attack, column: str) -> None:
    if column == "target":
        change = (
            "UPDATE object SET target = zeroblob(150000000)"
            " WHERE id = (SELECT object FROM entry WHERE name = x'61');"
            "UPDATE object SET digest = target WHERE target IS NOT NULL"
        )
    else:
        change = "UPDATE entry SET name = zeroblob(290000000) WHERE dir = 2 AND name = x'61'"
    # Elsewhere: what this process has read of catalogs has limited its memory for good.
    subprocess.run(["sqlite3", attack.catalog, change], check=True)
    attack.seal()
    attack.require_harmless("restore REPO --to BACK")


def share_pages(catalog: Path, root: int) -> None:
    """Have a table's tree show its only page again and again: three pages at each of twelve levels
    are one (https://sqlite.org/fileformat2.html, 1.6)."""
    size = schema.PAGE_SIZE
    data = bytearray(catalog.read_bytes())
    place = (root - 1) * size
    leaf = data[place : place + size]
    assert leaf[0] == 13, "not one page"
    data += leaf
    for _level in range(12):
        below = len(data) // size
        cells = struct.pack(">IB", below, 1) * 8
        page = struct.pack(">BHHHBI", 5, 0, 8, size - len(cells), 0, below)
        page += b"".join(struct.pack(">H", size - len(cells) + 5 * n) for n in range(8))
        data += page.ljust(size - len(cells), b"\0") + cells
    data[place : place + size] = data[-size:]
    struct.pack_into(">I", data, 28, len(data) // size)
    catalog.write_bytes(data)


@pytest.mark.parametrize("table", ["snapshot", "directory", "object", "entry"])
def test_pages_that_are_shared_have_no_end_that_is_waited_for(attack: Attack, table: str) -> None:
    with attack.database() as db:
        if table in ("object", "entry"):  # all that there is stands on one page
            db.execute(f"DELETE FROM {table} WHERE id > 5")
        root = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    share_pages(attack.catalog, root[0])
    attack.seal()
    attack.require_harmless(*SOME, "verify REPO", "stats REPO", "snapshots REPO", "find REPO *")


def test_a_catalog_of_another_format(attack: Attack) -> None:
    with attack.database() as db:
        db.execute("PRAGMA user_version = 2000000000")
    attack.require_harmless(*SOME)
    os.truncate(attack.catalog, 100)
    attack.require_harmless(*SOME)
