"""What a mounted repository shows, without mounting it."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from filesystems import require_root
from program import python
from runs import Nights
from trees import Tree, describe, require_same
from views import describe_view

from mirrorback.engine import view as view_module
from mirrorback.engine.history import History
from mirrorback.engine.open_version import open_version
from mirrorback.engine.view import View
from mirrorback.errors import Damaged
from mirrorback.model import Kind
from mirrorback.store import past

SECOND_NIGHT = b"2026-11-02-020000"
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw+ep
KILLED_WRITER = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = DELETE")
db.execute("PRAGMA cache_size = 1")
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE snapshot SET name = 'overwritten', files = 0")
for number in range(300):
    db.execute("INSERT INTO property (key, value) VALUES (?, randomblob(3000))", (f"junk{number}",))
os._exit(9)
"""


class Clock:
    """Seconds, as a test wants them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def viewed(nights: Nights, clock: Clock | None = None) -> Iterator[View]:
    with nights.history() as history:
        yield View(history, clock or Clock())


def shown(view: View) -> set[bytes]:
    return {name for name, _kind, _inode in view.names(b"")}


def read(view: View, path: bytes) -> bytes:
    with closing(view.open(view.look(path))) as version:
        return version.pread(0, 1 << 20)


def change_everything(source: Path, night: int) -> None:
    """A night's changes: contents, names, modes, links, attributes, kinds."""
    top = os.fsencode(source)
    if night == 0:
        for name in (b"latin1-\xe9\xff", b"new\nline", b"-rf", b"x" * 255, b"2024-01-01-000000"):
            with open(os.path.join(top, name), "wb") as file:
                file.write(name * 100)
        (source / "d" / "deep" / "er").mkdir(parents=True)
        (source / "d" / "f").write_text("linked")
        os.link(source / "d" / "f", source / "d" / "deep" / "g")
        (source / "empty").touch()
        (source / "sealed").write_text("x")
        (source / "sealed").chmod(0)
        os.symlink(b"\xff/nowhere\n", top + b"/link")
        os.mkfifo(source / "fifo", 0o622)
        os.utime(source / "empty", ns=(-5, -1_000_000_007))
    elif night == 1:
        (source / "d").rename(source / "moved")
        os.link(source / "moved" / "f", source / "third")
        (source / "empty").chmod(0o4711)
        (source / "fifo").unlink()
        (source / "fifo").mkdir()
        os.setxattr(source / "empty", "user.\udcff", b"")
        os.setxattr(source / "moved", "user.a", b"\0" * 1000)
    elif night == 2:
        (source / "third").unlink()
        (source / "moved" / "deep" / "g").write_text("both names change")
        (source / "d").write_text("a file where a folder was")
        (source / "sealed").unlink()
        os.symlink("moved", source / "sealed")
    else:
        os.removexattr(source / "moved", "user.a")
        (source / "moved" / "deep" / "g").unlink()
        (source / "moved" / "deep" / "g").write_text("apart again")


def many_nights(nights: Nights) -> dict[bytes, Tree]:
    """Backups, and what the source was at each."""
    wanted: list[Tree] = []
    for night in range(4):
        change_everything(nights.source, night)
        wanted.append(describe(nights.source))
        nights.backup()
    names = [os.fsencode(path.name) for path in nights.folders()]
    return dict(zip([*names, b"current"], wanted, strict=True))


def test_every_snapshot_is_what_the_source_was(nights: Nights) -> None:
    wanted = many_nights(nights)
    with viewed(nights) as view:
        assert shown(view) == set(wanted)
        for name, tree in wanted.items():
            require_same(tree, describe_view(view, name))


def test_links_are_counted_as_the_source_had_them(nights: Nights) -> None:
    counts: list[dict[bytes, int]] = []
    for night in range(4):
        change_everything(nights.source, night)
        top = os.fsencode(nights.source)
        counts.append(
            {
                path: os.lstat(os.path.join(top, path)).st_nlink
                for path, node in describe(nights.source).items()
                # A btrfs says 1 of every folder.
                if node.format != stat.S_IFDIR
            }
        )
        nights.backup()
    names = [os.fsencode(path.name) for path in nights.folders()]
    with viewed(nights) as view:
        for name, wanted in zip([*names, b"current"], counts, strict=True):
            found = {path: view.look(name + b"/" + path).links for path in wanted}
            assert found == wanted
        assert view.look(b"current").links == 2 + 2  # moved, fifo
        assert view.look(b"current/moved").links == 2 + 1
        assert view.look(b"current/moved/deep/er").links == 2
        assert view.look(b"").links == 2 + 4


def test_what_did_not_change_shares_an_inode_between_snapshots(nights: Nights) -> None:
    many_nights(nights)
    with viewed(nights) as view:
        one, two, three = sorted(shown(view) - {b"current"})
        same = view.look(one + b"/-rf").inode
        assert {view.look(s + b"/-rf").inode for s in (two, three, b"current")} == {same}
        assert view.look(one + b"/d/f").inode == view.look(two + b"/third").inode
        assert view.look(one + b"/empty").inode != view.look(two + b"/empty").inode
        # Programs that compare folders take one inode number for the same content.
        assert view.look(two + b"/moved").inode != view.look(three + b"/moved").inode


def test_all_that_needs_root(ext4: Path) -> None:
    nights = Nights(ext4 / "source", ext4 / "drive")
    nights.source.mkdir()
    top = os.fsencode(nights.source)
    for number, device in enumerate([os.makedev(1, 3), os.makedev(511, 1048575), 0]):
        os.mknod(top + b"/char%d" % number, 0o640 | stat.S_IFCHR, device)
    os.mknod(top + b"/block", 0o640 | stat.S_IFBLK, os.makedev(7, 200))
    os.mknod(top + b"/socket", 0o700 | stat.S_IFSOCK)
    (nights.source / "owned").write_text("x")
    os.chown(nights.source / "owned", 12345, 2**32 - 2)
    os.setxattr(nights.source / "owned", "security.capability", CAPABILITY)
    os.setxattr(nights.source / "owned", "trusted.t", b"\xff" * 3000)
    wanted = describe(nights.source)
    nights.backup()
    with viewed(nights) as view:
        require_same(wanted, describe_view(view, b"current"))


def test_metadata_is_the_catalogs_and_not_the_drives(nights: Nights) -> None:
    (nights.source / "f").write_text("x")
    os.mkfifo(nights.source / "fifo")
    os.symlink("somewhere", nights.source / "link")
    wanted = describe(nights.source)
    nights.backup()
    # As on a drive that holds nothing of it.
    (nights.current / "f").chmod(0o777)
    os.utime(nights.current / "f", ns=(0, 0))
    (nights.current / "fifo").unlink()
    (nights.current / "link").unlink()
    with viewed(nights) as view:
        require_same(wanted, describe_view(view, b"current"))


def test_what_is_not_there(nights: Nights) -> None:
    many_nights(nights)
    with viewed(nights) as view:
        for path in (
            b"none",
            b"README.txt",
            b".mirrorback",
            b"current/none",
            b"current/none/none",
            b"current/d/f",  # of an earlier snapshot
            b"current//",
            b"current/..",
            SECOND_NIGHT + b"/moved",
            b"2026-11-09-020000",
        ):
            with pytest.raises(FileNotFoundError):
                view.look(path)
        with pytest.raises(NotADirectoryError):
            list(view.names(b"current/d"))
        with pytest.raises(FileNotFoundError):
            list(view.names(b"current/none"))
        with pytest.raises(IsADirectoryError):
            view.open(view.look(b"current"))
        with pytest.raises(IsADirectoryError):
            view.open(view.look(b""))
        with pytest.raises(OSError) as raised:
            view.open(view.look(b"current/link"))
        assert raised.value.errno == errno.EINVAL


def test_a_repository_without_snapshots(nights: Nights) -> None:
    nights.backup(dry_run=False)
    with closing(sqlite3.connect(nights.repository / ".mirrorback/catalog.db")) as db:
        db.execute("DELETE FROM snapshot")
        db.execute("DELETE FROM entry")
        db.commit()
    with viewed(nights) as view:
        assert shown(view) == set()
        assert view.look(b"").links == 2
        with pytest.raises(FileNotFoundError):
            view.look(b"current")


# --- what goes on meanwhile ---------------------------------------------------------------


def test_a_new_snapshot_shows_without_a_new_view(nights: Nights) -> None:
    clock = Clock()
    (nights.source / "f").write_text("old")
    nights.backup()
    with viewed(nights, clock) as view:
        assert read(view, b"current/f") == b"old"
        assert view.settled(1)
        (nights.source / "f").write_text("new!")
        nights.backup()
        clock.now += 0.6
        assert shown(view) == {b"current", SECOND_NIGHT}
        assert read(view, b"current/f") == b"new!"
        assert read(view, SECOND_NIGHT + b"/f") == b"old"
        assert not view.settled(1)
        clock.now += 1.1
        assert view.settled(1)


def test_a_removed_snapshot_is_hidden_and_what_is_open_reads_on(nights: Nights) -> None:
    clock = Clock()
    for text in ("one", "two"):
        (nights.source / "f").write_text(text)
        nights.backup()
    with viewed(nights, clock) as view:
        node = view.look(SECOND_NIGHT + b"/f")
        with closing(view.open(node)) as version:
            nights.delete(SECOND_NIGHT.decode())
            with pytest.raises(FileNotFoundError):
                view.open(node)  # at once, though the list is thought to be fresh
            clock.now += 0.6
            assert shown(view) == {b"current"}
            with pytest.raises(FileNotFoundError):
                view.look(SECOND_NIGHT + b"/f")
            assert version.pread(0, 100) == b"one"
        assert read(view, b"current/f") == b"two"


def test_a_snapshot_that_was_looked_at_before_renames_is_still_that_one(nights: Nights) -> None:
    """The folder that was `current` has another name when its file is opened."""
    for opened_before in (False, True):
        (nights.source / "f").write_text("old")
        nights.backup()
        with viewed(nights) as view:
            node = view.look(b"current/f")
            if opened_before:
                view.open(node).close()
            (nights.source / "f").write_text("NEW")
            nights.backup()
            with closing(view.open(node)) as version:
                assert version.pread(0, 10) == b"old"


def test_folders_are_right_while_backups_rename_them(nights: Nights) -> None:
    (nights.source / "f").write_text("0000")
    nights.backup()
    wanted = {1: b"0000"}
    wrong: list[object] = []
    done = threading.Event()
    opened = 0

    def look() -> None:
        nonlocal opened
        with nights.history() as history:
            while not done.is_set():
                for number, text in list(wanted.items())[-2:]:
                    try:
                        fd = history.repo.open_folder(history.catalog, number)
                        found = os.open("f", os.O_RDONLY, dir_fd=fd)
                        if (data := os.pread(found, 9, 0)) != text:
                            wrong.append((number, text, data))
                        os.close(found)
                        os.close(fd)
                        opened += 1
                    except BaseException as error:
                        wrong.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for number in range(2, 14):
            (nights.source / "f").write_text(f"{number:04}")
            nights.backup()
            wanted[number] = b"%04d" % number
    finally:
        done.set()
        thread.join()
    assert wrong == []
    assert opened > 20


@contextmanager
def locked(nights: Nights) -> Iterator[sqlite3.Connection]:
    """The catalog as another process has it that writes a large commit."""
    with closing(
        sqlite3.connect(nights.repository / ".mirrorback/catalog.db", isolation_level=None)
    ) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield db


def test_a_locked_catalog_is_waited_for_or_not_needed(nights: Nights) -> None:
    clock = Clock()
    (nights.source / "d").mkdir()
    (nights.source / "d" / "f").write_text("x")
    (nights.source / "e").mkdir()
    nights.backup()
    with viewed(nights, clock) as view:
        assert read(view, b"current/d/f") == b"x"
        late: list[list[object]] = []
        with locked(nights) as db:
            clock.now += 10
            began = time.monotonic()
            assert shown(view) == {b"current"}
            assert read(view, b"current/d/f") == b"x"
            assert time.monotonic() - began < 5
            thread = threading.Thread(target=lambda: late.append(list(view.names(b"current/e"))))
            thread.start()
            thread.join(0.3)
            assert thread.is_alive()
            # Meanwhile others are answered.
            clock.now += 10
            assert read(view, b"current/d/f") == b"x"
            db.execute("ROLLBACK")
            thread.join(30)
        assert late == [[]]


def test_a_file_is_opened_when_the_catalog_is_free_again(one: Nights) -> None:
    with viewed(one) as view:
        node = view.look(b"current/d/f")
        late: list[bytes] = []
        with locked(one) as db:
            thread = threading.Thread(target=lambda: late.append(read(view, b"current/d/f")))
            thread.start()
            thread.join(0.2)
            assert thread.is_alive()
            db.execute("ROLLBACK")
            thread.join(30)
            assert late == [b"0123456789"]
            # Now that its folder is known, nothing is asked.
            db.execute("BEGIN EXCLUSIVE")
            with closing(view.open(node)) as version:
                assert version.size == 10


def test_nothing_is_held_between_questions(nights: Nights) -> None:
    (nights.source / "f").write_text("x")
    nights.backup()
    with viewed(nights) as view:
        names = iter(view.names(b"current"))
        next(names)
        view.look(b"current/f")
        version = view.open(view.look(b"current/f"))
        with locked(nights) as db:
            db.execute("UPDATE property SET value = value")
            db.execute("COMMIT")
        version.close()


def test_a_commit_that_was_killed_is_rolled_back(nights: Nights) -> None:
    clock = Clock()
    (nights.source / "f").write_text("x")
    (nights.source / "d").mkdir()
    nights.backup()
    with viewed(nights, clock) as view:
        view.look(b"current")
        catalog = nights.repository / ".mirrorback/catalog.db"
        with pytest.raises(Exception, match="exit status 9"):
            python(KILLED_WRITER, str(catalog))
        assert catalog.with_name("catalog.db-journal").stat().st_size
        clock.now += 10
        assert shown(view) == {b"current"}
        assert list(view.names(b"current/d")) == []
        assert read(view, b"current/f") == b"x"
        assert not catalog.with_name("catalog.db-journal").exists()


# --- many at once, and much ------------------------------------------------------------------


def test_several_threads(nights: Nights) -> None:
    wanted = many_nights(nights)
    failed: list[BaseException] = []

    def compare(view: View, name: bytes, tree: Tree) -> None:
        try:
            for _ in range(3):
                require_same(tree, describe_view(view, name))
        except BaseException as error:
            failed.append(error)

    with viewed(nights) as view:
        threads = [
            threading.Thread(target=compare, args=(view, name, tree))
            for name, tree in wanted.items()
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []


def test_a_folder_is_asked_for_once_and_few_are_kept(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("a", "b", "c"):
        (nights.source / folder).mkdir()
        for number in range(50):
            (nights.source / folder / str(number)).touch()
    nights.backup()
    asked: list[int] = []
    entries = past.entries

    def counted(catalog: object, directory: int, snapshot: int) -> object:
        asked.append(directory)
        return entries(catalog, directory, snapshot)  # type: ignore[arg-type]

    monkeypatch.setattr(view_module.past, "entries", counted)
    monkeypatch.setattr(view_module, "ROWS_KEPT", 120)
    with viewed(nights) as view:
        for folder in (b"a", b"b", b"a"):
            for name, _kind, _inode in view.names(b"current/" + folder):
                view.look(b"current/" + folder + b"/" + name)
        assert len(asked) == len(set(asked)) == 3  # the root, a, b
        list(view.names(b"current/c"))
        before = len(asked)
        list(view.names(b"current/a"))  # used last before c
        assert len(asked) == before
        list(view.names(b"current/b"))
        assert len(asked) == before + 1


# --- what is on the drive ---------------------------------------------------------------------


@pytest.fixture
def one(nights: Nights) -> Nights:
    (nights.source / "d").mkdir()
    (nights.source / "d" / "f").write_text("0123456789")
    nights.backup()
    return nights


def test_any_range_can_be_read(one: Nights) -> None:
    with viewed(one) as view, closing(view.open(view.look(b"current/d/f"))) as version:
        assert version.size == 10
        assert version.pread(3, 4) == b"3456"
        assert version.pread(8, 100) == b"89"
        assert version.pread(10, 1) == version.pread(99, 1) == version.pread(0, 0) == b""


def test_a_symlink_on_the_drive_leads_nowhere(one: Nights, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "f").write_text("9876543210")
    (one.current / "d" / "f").unlink()
    os.symlink(tmp_path / "elsewhere" / "f", one.current / "d" / "f")
    with viewed(one) as view:
        with pytest.raises(Exception, match="cannot be read"):
            view.open(view.look(b"current/d/f"))
        (one.current / "d" / "f").unlink()
        (one.current / "d").rmdir()
        os.symlink(tmp_path / "elsewhere", one.current / "d")
        with pytest.raises(Damaged):
            view.open(view.look(b"current/d/f"))


def test_what_is_not_what_was_backed_up_is_not_shown(one: Nights) -> None:
    file = one.current / "d" / "f"
    with viewed(one) as view:
        node = view.look(b"current/d/f")
        file.write_text("longer than it was")
        with pytest.raises(Damaged, match="not what was backed up"):
            view.open(node)
        file.unlink()
        os.mkfifo(file)
        with pytest.raises(Damaged, match="not what was backed up"):
            view.open(node)
        file.unlink()
        with pytest.raises(Damaged, match="missing"):
            view.open(node)


def test_a_file_that_becomes_shorter_while_it_is_read(one: Nights) -> None:
    with viewed(one) as view, closing(view.open(view.look(b"current/d/f"))) as version:
        os.truncate(one.current / "d" / "f", 5)
        assert version.pread(0, 5) == b"01234"
        with pytest.raises(Damaged, match="shorter"):
            version.pread(0, 10)


def test_names_in_the_catalog_are_not_trusted(one: Nights) -> None:
    with closing(sqlite3.connect(one.repository / ".mirrorback/catalog.db")) as db:
        db.execute("UPDATE entry SET name = ? WHERE name = ?", (b"../../../f", b"f"))
        db.commit()
    with viewed(one) as view:
        with pytest.raises(Damaged):
            list(view.names(b"current/d"))
        with one.history() as history:
            (row,) = past.entries(history.catalog, 2, 1)
            assert row.metadata.kind is Kind.FILE
            with pytest.raises(Damaged):
                open_version(history, row, history.snapshots()[0])


def test_descriptors_are_given_back(one: Nights) -> None:
    require_root()

    def open_now() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = open_now()
    with viewed(one) as view:
        for _ in range(50):
            read(view, b"current/d/f")
            with pytest.raises(FileNotFoundError):
                view.look(b"current/none")
        (one.current / "d" / "f").unlink()
        for _ in range(50):
            with pytest.raises(Damaged):
                read(view, b"current/d/f")
        assert open_now() < before + 20
    assert open_now() == before


def test_folders_kept_open_are_few(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirrorback.engine.history.TOPS_KEPT", 3)
    for number in range(6):
        (nights.source / "f").write_text(f"{number:09}")
        nights.backup()
    with nights.history() as history:
        assert isinstance(history, History)
        view = View(history, Clock())
        for _ in range(2):
            found = sorted(read(view, name + b"/f") for name in shown(view))
            assert found == [b"%09d" % number for number in range(6)]
        assert len(history._tops) == 3
