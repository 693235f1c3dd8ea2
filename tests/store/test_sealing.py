"""The seal of a catalog, the checks of its rows, and what rows say of each other."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrorback.errors import Damaged
from mirrorback.store import audit, schema, sealing, soundness
from mirrorback.store.catalog import Catalog
from mirrorback.store.sealing import Seal

KILLED = """
import os, sys
from mirrorback.store.catalog import Catalog
catalog = Catalog.open(os.fsencode(sys.argv[1]), write=True)
with catalog.transaction() as db:
    db.execute("PRAGMA cache_size = 1")
    for number in range(200):
        db.execute("INSERT INTO property (key, value) VALUES (?, randomblob(3000))", (str(number),))
    os._exit(0)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A catalog with a few rows, closed."""
    made = Catalog.create(bytes(tmp_path / "catalog.db"))
    with made.transaction() as db:
        db.execute("INSERT INTO owner (id, uid, gid, user) VALUES (1, 0, 0, 'root')")
        for number in (1, 2):
            values = (number, f"2026-11-0{number}-020000", number)
            db.execute(
                "INSERT INTO snapshot (id, name, time, offset, state, root, incomplete, files,"
                " bytes) VALUES (?, ?, ?, 0, 0, 0, 0, 1, 1)",
                values,
            )
        db.execute("INSERT INTO directory (id, parent, name) VALUES (2, 1, x'64')")
        db.execute("INSERT INTO attributes VALUES (?, ?)", (bytes(16), b""))
        db.execute("DELETE FROM attributes")
        insert(db, "object", id=1, kind=1, owner=1)
        insert(db, "object", id=2, kind=1, owner=1, drive=schema.DELTA)
        insert(db, "delta", object=2, base=1, stored=9)
        insert(db, "entry", id=1, dir=2, name=b"f", kind=1, first=2, last=None, object=1)
        insert(db, "entry", id=2, dir=2, name=b"f", kind=1, first=1, last=1, object=2)
    made.close()
    return tmp_path / "catalog.db"


def insert(db: object, table: str, **values: object) -> None:
    """A row with its check, zeros in what is not given."""
    columns = schema.CHECKED[table]
    nothing = {"target", "attributes", "btime", "digest", "from_dir", "from_name"}
    row = [values.get(c, None if c in nothing else 0) for c in columns]
    marks = ", ".join(f"?{n + 1}" for n in range(len(row)))
    db.execute(f"INSERT INTO {table} VALUES ({marks}, row_check({marks}))", row)  # type: ignore[attr-defined]


@contextlib.contextmanager
def opened(path: Path, *, write: bool = False) -> Iterator[Catalog]:
    with contextlib.closing(Catalog.open(bytes(path), write=write)) as catalog:
        yield catalog


def seal(path: Path) -> Seal:
    with opened(path) as catalog:
        return catalog.seal()


def faults(path: Path) -> list[str]:
    with opened(path) as catalog:
        assert soundness.structure_fault(catalog.db) is None
        return list(audit.faults(catalog))


def flip(path: Path, bit: int) -> None:
    with path.open("r+b", buffering=0) as file:
        byte = os.pread(file.fileno(), 1, bit // 8)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 1 << bit % 8]), bit // 8)


def test_who_writes_leaves_a_seal_that_holds(path: Path) -> None:
    assert seal(path) is Seal.HOLDS
    assert faults(path) == []
    with opened(path, write=True) as catalog:
        assert catalog.seal() is Seal.HOLDS
        with catalog.transaction() as db:
            db.execute("UPDATE snapshot SET pinned = 'why' WHERE id = 1")
        assert catalog.seal() is Seal.ABSENT
    assert seal(path) is Seal.HOLDS


def test_a_process_that_was_forked_seals_too(path: Path) -> None:
    """Threads do not come along: whoever relied on those of the parent would wait for ever."""
    path.unlink()
    made = Catalog.create(bytes(path))
    with made.transaction() as db:
        db.execute("INSERT INTO property (key, value) VALUES ('big', randomblob(3000000))")
    made.close()
    assert seal(path) is Seal.HOLDS
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(20)
            with opened(path, write=True) as catalog, catalog.transaction() as db:
                db.execute("DELETE FROM property")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert seal(path) is Seal.HOLDS


def test_who_only_reads_leaves_it_alone(path: Path) -> None:
    before = path.with_name("catalog.blake3").stat()
    for write in (False, True):
        with opened(path, write=write) as catalog:
            assert catalog.snapshots()
    assert path.with_name("catalog.blake3").stat() == before


def test_every_bit_of_the_seal_counts(path: Path) -> None:
    file = path.with_name("catalog.blake3")
    for bit in range(file.stat().st_size * 8):
        flip(file, bit)
        with pytest.raises(Damaged):
            seal(path)
        flip(file, bit)
    assert seal(path) is Seal.HOLDS


def test_bits_of_the_file_break_it_and_nobody_writes_then(path: Path) -> None:
    whole = path.read_bytes()
    unused = len(whole) * 8 - 100 * 8 * 60
    for bit in (72 * 8 + 3, unused, whole.index(b"2026-11-01") * 8 + 1):
        flip(path, bit)
        with contextlib.suppress(Damaged):
            assert seal(path) is Seal.BROKEN
        with pytest.raises(Damaged, match="rebuild"), opened(path, write=True):
            pass
        flip(path, bit)
    assert path.read_bytes() == whole
    assert seal(path) is Seal.HOLDS


@pytest.mark.parametrize("text", [b"", b"coun", b"\0" * 200, b"x = 1\n", b"\xff"])
def test_a_torn_seal_is_told_and_made_anew(path: Path, text: bytes) -> None:
    path.with_name("catalog.blake3").write_bytes(text)
    with pytest.raises(Damaged, match=r"catalog\.blake3"):
        seal(path)
    with opened(path, write=True) as catalog, catalog.transaction() as db:
        db.execute("UPDATE snapshot SET files = 7")
    assert seal(path) is Seal.HOLDS


def test_an_old_seal_says_nothing_of_a_newer_catalog(path: Path) -> None:
    file = path.with_name("catalog.blake3")
    old = file.read_bytes()
    with opened(path, write=True) as catalog, catalog.transaction() as db:
        db.execute("UPDATE snapshot SET files = 7")
    file.write_bytes(old)
    assert seal(path) is Seal.ABSENT
    with opened(path) as catalog, catalog.held():
        assert not catalog.file.header_fault()
    for bit in (24 * 8, 27 * 8 + 5, 92 * 8 + 1, 95 * 8):
        flip(path, bit)
        with opened(path) as catalog, catalog.held():
            assert catalog.file.header_fault()
        flip(path, bit)


def test_killed_in_a_transaction_there_is_none(path: Path) -> None:
    """Its pages are on the drive already, and rolled back by who comes next."""
    with opened(path, write=True) as catalog:  # free pages, which are not rolled back
        with catalog.transaction() as db:
            db.execute("INSERT INTO property (key, value) VALUES ('big', randomblob(300000))")
        with catalog.transaction() as db:
            db.execute("DELETE FROM property")
    assert seal(path) is Seal.HOLDS
    subprocess.run([sys.executable, "-c", KILLED, path], check=True)
    assert path.with_name("catalog.db-journal").stat().st_size
    assert seal(path) is Seal.ABSENT
    assert faults(path) == []
    with opened(path, write=True) as catalog, catalog.transaction():
        pass
    assert seal(path) is Seal.HOLDS


def test_nobody_seals_what_another_is_writing(path: Path) -> None:
    with opened(path, write=True) as one, opened(path, write=True) as other:
        with one.transaction() as db:
            db.execute("UPDATE snapshot SET files = 1")
        with other.transaction() as db:
            db.execute("UPDATE snapshot SET files = 2")
            one.close()
            assert not path.with_name("catalog.blake3").exists()
    assert seal(path) is Seal.HOLDS


def test_a_drive_without_room_for_a_seal_is_no_trouble(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(sealing.durable, "replace", full)
        with opened(path, write=True) as catalog, catalog.transaction() as db:
            db.execute("UPDATE snapshot SET files = 7")
    assert seal(path) is Seal.ABSENT
    with opened(path) as catalog:
        assert catalog.snapshots()[0].files == 7


@pytest.mark.parametrize("table", schema.CHECKED)
def test_a_damaged_row_is_told_and_stays_told(path: Path, table: str) -> None:
    """A change beside the damage does not make it good."""
    if table == "property":
        add = "INSERT INTO property (key, value) VALUES ('checked', 1)"
    elif table in ("replacing", "verified"):
        column = "form" if table == "replacing" else "time"
        add = f"INSERT INTO {table} (object, {column}) VALUES (1, 1)"
    else:
        add = "SELECT 1"
    spoilt, changed = {
        "property": ("value", "value"),
        "snapshot": ("time", "pinned"),
        "directory": ("name", "fingerprint"),
        "owner": ("user", "grp"),
        "object": ("size", "drive"),
        "entry": ("name", "last"),
        "delta": ("stored", "base"),
        "replacing": ("form", "patched"),
        "verified": ("time", "problem"),
    }[table]
    with opened(path, write=True) as catalog, catalog.transaction() as db:
        db.execute(add)
    assert faults(path) == []
    with opened(path, write=True) as catalog:
        db = catalog.db
        kept = table in schema.KEPT_BY_TRIGGER
        if kept:
            db.execute(f"DROP TRIGGER temp.{table}_changed")
        db.execute(f"UPDATE {table} SET {spoilt} = x'6f646400'")
        if kept:
            names = schema.triggers().split("CREATE TEMP TRIGGER ")
            (again,) = (name for name in names if name.startswith(f"{table}_changed "))
            db.executescript("CREATE TEMP TRIGGER " + again)
        if changed != spoilt:
            how = (
                ""
                if kept
                else ", digest_of_row = "
                + schema.check_after(schema.CHECKED[table], **{changed: "5"})
            )
            db.execute(f"UPDATE {table} SET {changed} = 5{how}")
    (told,) = faults(path)
    assert f"table {table} are damaged" in told


def test_a_text_that_is_none_is_damage(path: Path) -> None:
    with path.open("r+b") as file:
        data = file.read()
        file.seek(data.index(b"root", 8192))
        file.write(b"\xffoot")
    path.with_name("catalog.blake3").unlink()
    (told,) = faults(path)
    assert "owner" in told
    with opened(path) as catalog, pytest.raises(Damaged), translated_owners():
        catalog.owners()


@contextlib.contextmanager
def translated_owners() -> Iterator[None]:
    from mirrorback.store.catalog import translated

    with translated():
        yield


def test_sound_pages_are_told_from_others(path: Path) -> None:
    """A walk through others may come to no end."""
    with path.open("r+b") as file:
        data = file.read()
        root = 8192 * (data.index(b"2026-11-01-020000") // 8192)
        file.seek(root + 3)  # number of cells of the page
        file.write(b"\xff\xff")
    with opened(path) as catalog:
        fault = soundness.structure_fault(catalog.db)
        assert fault is not None
        assert not fault.readable
    path.write_bytes(data.replace(b"2026-11-01-020000", b"2026-11-01-020009", 1))
    with opened(path) as catalog:
        fault = soundness.structure_fault(catalog.db)
        assert fault is not None
        assert fault.readable


def test_a_schema_that_is_not_ours_is_refused(path: Path) -> None:
    with opened(path, write=True) as catalog:
        catalog.db.execute("CREATE TABLE more (x)")
    for write in (False, True):
        with pytest.raises(Damaged), opened(path, write=write):
            pass


CONTRADICTIONS = {
    "show an object that is not there": "DELETE FROM object WHERE id = 1",
    "or is something else": "UPDATE object SET kind = 3 WHERE id = 1",
    "a directory that is not there": "DELETE FROM directory WHERE id = 2",
    "a name that cannot be": "UPDATE entry SET name = x'2e2e' WHERE id = 1",
    "name that cannot be": "UPDATE entry SET name = 'text' WHERE id = 1",
    "by snapshots that cannot be": "UPDATE entry SET first = 3 WHERE id = 1",
    "snapshots that cannot be": "UPDATE entry SET first = 2, last = 1 WHERE id = 2",
    "the name of another": "UPDATE entry SET last = NULL WHERE id = 2",
    "have no place": "UPDATE directory SET parent = 2 WHERE id = 2",
    "directories have no place": "UPDATE directory SET parent = 7 WHERE id = 2",
    "missing that must be there": "DELETE FROM directory WHERE id = 1",
    "an owner that is not there": "DELETE FROM owner",
    "attributes that are not there": "UPDATE object SET attributes = x'00' WHERE id = 1",
    "deltas over nothing": "DELETE FROM delta",
    "reverse deltas belong to nothing": "UPDATE object SET drive = 0",
    "over itself": "UPDATE delta SET base = 2",
    "unfinished changes": "INSERT INTO replacing (object, form) VALUES (9, 3)",
    "no state that is known": "UPDATE snapshot SET state = 3 WHERE id = 1",
}


@pytest.mark.parametrize("words", CONTRADICTIONS)
def test_rows_that_disagree_are_told(path: Path, words: str) -> None:
    with opened(path, write=True) as catalog, catalog.transaction() as db:
        db.execute(CONTRADICTIONS[words])
        for table in ("object", "entry", "delta"):
            db.execute(f"UPDATE {table} SET digest_of_row = {schema.check(schema.CHECKED[table])}")
    assert any(words in fault for fault in faults(path))


def test_chains_of_deltas_that_end_are_no_cycle() -> None:
    assert not audit._has_cycle({1: 2, 2: 3, 5: 2, 4: 5})
    assert audit._has_cycle({1: 2, 2: 3, 3: 2})
    assert audit._has_cycle({1: 1})
