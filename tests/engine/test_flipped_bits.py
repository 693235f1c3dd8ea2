"""Any single flipped bit is found, whichever file it is in; and what a killed run leaves is
no damage."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from filesystems import require_root
from program import complaint, run
from runs import LARGE, LargeNights, change_pages

from mirrorback.errors import Damaged, MirrorbackError
from mirrorback.store import schema
from mirrorback.store.catalog import Catalog
from mirrorback.store.repository import Repository
from mirrorback.store.sealing import Seal


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> LargeNights:
    """A repository with all there is: deltas, a signature, attributes, moves, links, and a
    snapshot that was deleted.  Each test leaves it as it was."""
    top = tmp_path_factory.mktemp("lived")
    nights = LargeNights(top / "source", top / "drive")
    folder = nights.source / "d"
    (folder / "sub").mkdir(parents=True)
    image = folder / "image"
    image.write_bytes(random.Random(1).randbytes(LARGE))
    for name in "abc":
        (folder / name).write_text(name * 20)
    with contextlib.suppress(OSError):
        os.setxattr(folder / "a", "user.mood", b"good")
    (folder / "link").hardlink_to(folder / "b")
    (folder / "symlink").symlink_to("a")
    nights.backup()
    change_pages(image, 3, 2)
    (folder / "sub").rename(nights.source / "moved")
    (folder / "c").rename(folder / "c2")
    nights.backup()
    change_pages(image, 4, 2)
    (folder / "a").write_text("another text")
    nights.backup()
    (folder / "new").write_text("new")
    nights.backup()
    nights.delete(nights.folders()[0].name)
    nights.backup()
    return nights


@pytest.fixture
def kept(lived: LargeNights, tmp_path: Path) -> Iterator[LargeNights]:
    """The same to be changed by the test, in a copy."""
    subprocess.run(["cp", "-a", lived.repository, tmp_path / "drive"], check=True)
    nights = LargeNights(lived.source, tmp_path / "drive")
    nights.now = lived.now
    yield nights


def inner(nights: LargeNights) -> Path:
    return nights.repository / ".mirrorback"


def outcome(nights: LargeNights) -> str | None:
    """What `verify` says: the first problem, or why it refuses; None where all is well.
    Anything but an error of ours fails the test."""
    try:
        problems = nights.problems()
    except MirrorbackError as error:
        assert error.exit_code in (1, 4)
        assert "\n" not in str(error)
        return str(error)
    return problems[0].problem if problems else None


@contextlib.contextmanager
def flipped(path: Path, bit: int) -> Iterator[None]:
    """A bit that rots, for a moment: no time stamp tells."""
    st = path.stat()
    fd = os.open(path, os.O_RDWR)
    try:
        byte = os.pread(fd, 1, bit // 8)
        os.pwrite(fd, bytes([byte[0] ^ 1 << bit % 8]), bit // 8)
        os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
        yield
        os.pwrite(fd, byte, bit // 8)
        os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
    finally:
        os.close(fd)


def bits(path: Path, count: int) -> range:
    """So many bits of a file, or all, at a stride that meets each place in a byte."""
    return range(0, path.stat().st_size * 8, (path.stat().st_size * 8 // count) | 1)


def missed(nights: LargeNights, path: Path, count: int) -> list[int]:
    """The bits of which `verify` does not find the flip."""
    silent = []
    for bit in bits(path, count):
        with flipped(path, bit):
            if outcome(nights) is None:
                silent.append(bit)
    return silent


def test_of_the_catalog(lived: LargeNights) -> None:
    assert outcome(lived) is None
    path = inner(lived) / "catalog.db"
    assert missed(lived, path, 600) == []
    for bit in range(0, 100 * 8, 3):  # its header
        with flipped(path, bit):
            assert outcome(lived) is not None, bit
    assert outcome(lived) is None


def contents(path: Path) -> list[object]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as db:
        db.text_factory = bytes
        found: list[object] = db.execute("SELECT sql FROM sqlite_schema").fetchall()
        for table in (*schema.CHECKED, "attributes"):
            if table != "verified":  # which verify writes to
                found += db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
        return found


def test_without_a_seal_each_bit_of_a_row_is_found(kept: LargeNights) -> None:
    """What is not found then lies where nothing is."""
    path, seal = inner(kept) / "catalog.db", inner(kept) / "catalog.blake3"
    assert outcome(kept) is None
    whole = path.read_bytes()
    rows = contents(path)
    used = [at for at, byte in enumerate(whole) if byte]
    found = 0
    for number, at in enumerate(used[:: len(used) // 500]):
        seal.unlink(missing_ok=True)
        flip = bytearray(whole)
        flip[at] ^= 1 << number % 8
        path.write_bytes(flip)
        if outcome(kept) is None:
            path.write_bytes(flip)
            assert contents(path) == rows, (at, number % 8)
        else:
            found += 1
        path.write_bytes(whole)
    assert found > 300


@pytest.mark.parametrize(
    ("name", "count"), [("catalog.blake3", 150), ("mirror.toml", 150), ("repository.toml", 10**6)]
)
def test_of_settings_and_seal(lived: LargeNights, name: str, count: int) -> None:
    path = inner(lived) / name
    whole = path.read_bytes()
    silent = []
    for bit in bits(path, count):
        with flipped(path, bit):
            if outcome(lived) is None:
                silent.append(bit)
        path.write_bytes(whole)  # verify itself makes a damaged seal anew
    assert silent == []
    assert outcome(lived) is None


def test_of_signatures(kept: LargeNights) -> None:
    (path,) = (inner(kept) / "signatures").iterdir()
    assert missed(kept, path, 150) == []
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    found = {problem.path: problem for problem in kept.problems()}
    problem = found[b".mirrorback/signatures/" + os.fsencode(path.name)]
    assert problem.repairable
    assert problem.location == os.fsencode(path)


def test_of_deltas_and_whole_files(lived: LargeNights) -> None:
    seen = set()
    for path in sorted(lived.repository.glob("2*/d/*")) + sorted(lived.current.glob("d/*")):
        if path.is_symlink() or not path.is_file() or path.stat().st_ino in seen:
            continue
        seen.add(path.stat().st_ino)
        assert missed(lived, path, 60) == [], path
    assert list(lived.repository.glob("2*/d/image.rdiff.zst"))
    assert outcome(lived) is None


def test_a_flipped_bit_in_a_signature_never_misleads_a_backup(kept: LargeNights) -> None:
    """A wrong digest would let a changed block be taken for the mirror's."""
    image = kept.source / "d" / "image"
    before = image.read_bytes()
    (path,) = (inner(kept) / "signatures").iterdir()
    for at in (0, 40, 70, path.stat().st_size - 1):
        (path,) = (inner(kept) / "signatures").iterdir()
        data = bytearray(path.read_bytes())
        data[at] ^= 16
        path.write_bytes(data)
        try:
            change_pages(image, at, 3)
            kept.backup()
            assert (kept.current / "d" / "image").read_bytes() == image.read_bytes()
            assert outcome(kept) is None
        finally:
            image.write_bytes(before)


def test_changes_that_wait_are_checked(kept: LargeNights, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was killed after the commit has left them in `redo`."""
    from mirrorback.store import publish

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    image = kept.source / "d" / "image"
    before = image.read_bytes()
    try:
        change_pages(image, 9, 3)
        with monkeypatch.context() as patched:
            patched.setattr(publish, "_supersede", killed)
            with pytest.raises(KeyboardInterrupt):
                kept.backup()
        waiting = sorted((inner(kept) / "redo").iterdir())
        assert [path.suffix for path in waiting] in ([".redo", ".undo"], [".undo", ".redo"])
        paths = {os.fsencode(path) for path in waiting}
        assert not paths & {problem.location for problem in kept.problems()}
        for path in waiting:
            for bit in bits(path, 40):
                with flipped(path, bit):
                    assert os.fsencode(path) in {p.location for p in kept.problems()}
        kept.backup()
        assert outcome(kept) is None
    finally:
        image.write_bytes(before)


# --- who writes, and what is left behind ------------------------------------------------


def seal(nights: LargeNights) -> Seal:
    with contextlib.closing(Catalog.open(bytes(inner(nights) / "catalog.db"))) as catalog:
        return catalog.seal()


def test_each_command_that_writes_seals(kept: LargeNights) -> None:
    assert seal(kept) is Seal.HOLDS
    kept.backup()
    assert seal(kept) is Seal.HOLDS
    kept.backup(always=True)
    assert seal(kept) is Seal.HOLDS
    kept.delete(kept.folders()[-1].name)
    assert seal(kept) is Seal.HOLDS
    assert outcome(kept) is None  # and remembers that
    assert seal(kept) is Seal.HOLDS


def test_a_damaged_catalog_is_not_written_to(kept: LargeNights) -> None:
    path = inner(kept) / "catalog.db"
    whole = path.read_bytes()
    with flipped(path, 72 * 8 + 1):  # reserved for the future: nobody reads it
        damaged = path.read_bytes()
        for command in (["backup", kept.source, kept.repository], ["delete", kept.repository]):
            names = [kept.folders()[0].name] if command[0] == "delete" else []
            assert "rebuild" in complaint(*command, *names, code=4)
        (found,) = run("verify", kept.repository, "--json", code=4).json
        assert found["path"] == ".mirrorback/catalog.db"
        assert found["repairable"] is False
        told = {f["subject"]: f for f in run("doctor", kept.repository, "--json", code=1).json}
        assert told["catalog"]["level"] == "bad"
        assert run("ls", kept.repository).out  # reading goes on
        assert path.read_bytes() == damaged
    assert path.read_bytes() == whole
    assert run("verify", kept.repository, "--json").json == []


@pytest.mark.parametrize("text", [b"", b"\0" * 237, b"# BLAKE3 of cat"])
def test_a_torn_seal_is_told_and_renewed(kept: LargeNights, text: bytes) -> None:
    path = inner(kept) / "catalog.blake3"
    path.write_bytes(text)
    (found,) = run("verify", kept.repository, "--json", code=4).json
    assert found["path"] == ".mirrorback/catalog.blake3"
    assert found["repairable"] is True
    path.write_bytes(text)
    kept.backup()
    assert outcome(kept) is None


def test_an_old_seal_or_none_is_no_damage(kept: LargeNights) -> None:
    path = inner(kept) / "catalog.blake3"
    old = path.read_bytes()
    kept.backup(always=True)
    for left in (old, None):
        path.unlink()
        if left is not None:
            path.write_bytes(left)
        told = {f["subject"]: f for f in run("doctor", kept.repository, "--json").json}
        assert told["seal of the catalog"]["level"] == "note"
        assert told["catalog"]["level"] == "good"
        assert outcome(kept) is None
        kept.backup()
        assert seal(kept) is Seal.HOLDS


def test_a_copy_is_as_good(kept: LargeNights, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", kept.repository, copy], check=True)
    assert run("verify", copy, "--json").json == []
    with contextlib.closing(Catalog.open(bytes(copy / ".mirrorback/catalog.db"))) as catalog:
        assert catalog.seal() is Seal.HOLDS


def test_a_drive_that_is_read_only(kept: LargeNights) -> None:
    require_root()
    subprocess.run(["mount", "--bind", kept.repository, kept.repository], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", kept.repository], check=True)
        assert run("verify", kept.repository, "--json").json == []
        assert run("ls", kept.repository).out
    finally:
        subprocess.run(["umount", kept.repository], check=True)


def test_settings_refuse_at_every_bit(kept: LargeNights) -> None:
    path = inner(kept) / "repository.toml"
    for bit in range(path.stat().st_size * 8):
        with flipped(path, bit), pytest.raises(Damaged):
            Repository.open(os.fsencode(kept.repository))
