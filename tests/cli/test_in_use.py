"""What is being read is not removed: restores, mounts and cat against delete, as processes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounts import mounted, require_fuse, server, unmount, wait_for
from program import complaint, run, start
from runs import LargeNights, Nights, change_pages
from trees import describe, require_same

from mirrorback.engine.delete import delete
from mirrorback.engine.uses import LINGER_S
from mirrorback.errors import NotInHistory
from mirrorback.store.catalog import Catalog
from mirrorback.store.repository import Repository

NAMES = [f"2026-11-0{day}-020000" for day in (2, 3, 4, 5)]
FILES = 400


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    require_fuse()
    yield tmp_path / "point"


@pytest.fixture
def three(nights: Nights) -> Nights:
    """Three nights; in the first two there are many files, some of them in one alone."""
    folder = nights.source / "d"
    folder.mkdir()
    for night in range(2):
        for number in range(FILES):
            if number % 2 == 0 or night == 0:
                data = f"{night * (number % 2)} {number}".encode() * 3000
                (folder / f"f{number}").write_bytes(data)
        time.sleep(0.03)
        nights.backup()
        (folder / "f1").write_text(f"night {night}")
    nights.backup()
    return nights


def stopped_restore(nights: Nights, at: str, to: Path, least: int) -> subprocess.Popen[bytes]:
    """A restore of a snapshot, stopped in its middle with so many files written."""
    process = start("restore", nights.repository, "--at", at, "--to", to)
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        process.send_signal(signal.SIGSTOP)
        if sum(len(files) for _top, _folders, files in os.walk(to)) >= least:
            return process
        process.send_signal(signal.SIGCONT)
        time.sleep(0.002)
    process.kill()
    pytest.fail("the restore was not caught in its middle")


def finish(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, (out, err)


def left(nights: Nights, name: str, *more: str) -> None:
    """A delete that leaves a snapshot, and says why."""
    done = run("delete", nights.repository, name, *more, "--json", code=11)
    [fate] = [fate for fate in done.json if fate["keep"]]
    assert fate["name"] == name and fate["frees"] == 0
    assert "is being read" in fate["reasons"][0] and "again" in fate["reasons"][0]
    assert len(done.err.splitlines()) == 1 and name in done.err
    assert name in [s["name"] for s in run("snapshots", nights.repository, "--json").json]


def test_a_restore_is_not_broken_by_delete(three: Nights, tmp_path: Path) -> None:
    then = describe(three.repository / NAMES[0])
    process = stopped_restore(three, NAMES[0], tmp_path / "out", 20)
    left(three, NAMES[0])
    require_same(then, describe(three.repository / NAMES[0]))
    finish(process)
    require_same(then, describe(tmp_path / "out"))
    run("delete", three.repository, NAMES[0])
    assert not (three.repository / NAMES[0]).exists()
    assert run("verify", three.repository, "--json").json == []


def test_of_several_the_others_go(three: Nights, tmp_path: Path) -> None:
    process = stopped_restore(three, NAMES[0], tmp_path / "out", 20)
    left(three, NAMES[0], NAMES[1])
    assert not (three.repository / NAMES[1]).exists()
    finish(process)


def test_a_dry_run_says_so_too(three: Nights, tmp_path: Path) -> None:
    process = stopped_restore(three, NAMES[0], tmp_path / "out", 20)
    done = run("delete", "-n", three.repository, *NAMES[:2], "--json", code=11)
    assert [fate["keep"] for fate in done.json] == [True, False]
    assert "keep" in run("delete", "-n", three.repository, *NAMES[:2], code=11).out
    finish(process)


def test_it_waits_a_little(three: Nights, tmp_path: Path) -> None:
    process = stopped_restore(three, NAMES[0], tmp_path / "out", 20)
    removal = start("delete", three.repository, NAMES[0])
    time.sleep(0.7)
    assert removal.poll() is None
    finish(process)
    _out, err = removal.communicate(timeout=60)
    assert removal.returncode == 0, err
    assert not (three.repository / NAMES[0]).exists()


def test_a_killed_reader_holds_nothing(three: Nights, tmp_path: Path) -> None:
    process = stopped_restore(three, NAMES[0], tmp_path / "out", 20)
    process.kill()
    process.communicate()
    run("delete", three.repository, NAMES[0])


def test_two_readers(three: Nights, tmp_path: Path) -> None:
    one = stopped_restore(three, NAMES[0], tmp_path / "one", 20)
    two = stopped_restore(three, NAMES[0], tmp_path / "two", 20)
    finish(one)
    left(three, NAMES[0])
    finish(two)
    run("delete", three.repository, NAMES[0])


def test_cat_holds_its_snapshot(nights: Nights) -> None:
    data = os.urandom(1 << 22)
    (nights.source / "big").write_bytes(data)
    (nights.source / "small").write_text("x")
    nights.backup()
    (nights.source / "big").unlink()
    nights.backup()
    process = start("cat", nights.repository, "big", "--at", NAMES[0])
    assert process.stdout is not None
    begin = process.stdout.read(1000)
    left(nights, NAMES[0])
    assert begin + process.stdout.read() == data
    assert process.wait(60) == 0
    process.communicate()
    run("delete", nights.repository, NAMES[0])


def test_the_mirror_that_becomes_a_dated_folder_while_it_is_read(
    three: Nights, tmp_path: Path
) -> None:
    then = describe(three.current)
    process = stopped_restore(three, "latest", tmp_path / "out", 20)
    (three.source / "d" / "f0").write_text("new")
    (three.source / "d" / "f2").unlink()
    three.backup()
    left(three, NAMES[2])
    finish(process)
    require_same(then, describe(tmp_path / "out"))
    run("delete", three.repository, NAMES[2])
    assert run("verify", three.repository, "--json").json == []


def test_a_snapshot_that_went_before_it_could_be_read(three: Nights, tmp_path: Path) -> None:
    """The name was resolved; then it was removed."""
    with three.history() as history:
        snapshot = history.resolve(NAMES[0])
        three.delete(NAMES[0])
        with pytest.raises(Exception, match="has just been removed"), history.held(snapshot):
            pytest.fail("it is held")
    complaint("restore", three.repository, "--at", NAMES[0] + "x", "--to", tmp_path / "o", code=2)


def test_a_removal_between_opening_and_locking(
    three: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Repository.open_folder

    def then_removed(repo: Repository, catalog: Catalog, number: int) -> int:
        fd = opened(repo, catalog, number)
        run("delete", three.repository, NAMES[0])
        return fd

    with three.history() as history:
        snapshot = history.resolve(NAMES[0])
        monkeypatch.setattr(Repository, "open_folder", then_removed)
        with pytest.raises(NotInHistory, match="just been removed"), history.held(snapshot):
            pytest.fail("it is held")


def test_a_removal_that_was_begun_cannot_be_read(three: Nights, tmp_path: Path) -> None:
    """Committed, and killed before anything was removed."""
    from mirrorback.store import record

    path = os.fsencode(three.repository / ".mirrorback" / "catalog.db")
    catalog = Catalog.open(path, write=True)
    number = catalog.snapshots()[0].id
    record.deleting(catalog, number, ())
    catalog.close()
    complaint("restore", three.repository, "--at", NAMES[0], "--to", tmp_path / "out", code=2)
    assert not (tmp_path / "out").exists()
    run("delete", three.repository, NAMES[1])
    assert not (three.repository / NAMES[0]).exists()


def test_readers_and_removals_at_random(nights: Nights, tmp_path: Path) -> None:
    """Whoever gets hold of a snapshot can read all of it, to the end."""
    (nights.source / "d").mkdir()
    for night in range(8):
        for number in range(40):
            (nights.source / "d" / f"f{number}").write_text(f"{night} {number}")
        time.sleep(0.02)
        nights.backup()
    names = [folder.name for folder in nights.folders()]
    broken: list[object] = []
    held = []

    def read(reader: int) -> None:
        for index, name in enumerate(names):
            with nights.history() as history:
                try:
                    snapshot = history.resolve(name)
                except Exception:
                    continue
                if snapshot.name != name:
                    continue
                try:
                    with history.held(snapshot) as top:
                        for number in range(40):
                            fd = os.open(f"d/f{number}", os.O_RDONLY, dir_fd=top)
                            if os.read(fd, 100) != b"%d %d" % (index, number):
                                broken.append((reader, name, number))
                            os.close(fd)
                            time.sleep(0.0002)
                        held.append(name)
                except OSError as error:
                    broken.append((reader, name, error))
                except Exception as error:
                    if "removed" not in str(error):
                        broken.append((reader, name, error))

    readers = [threading.Thread(target=read, args=(number,)) for number in range(3)]
    for reader in readers:
        reader.start()
    while any(reader.is_alive() for reader in readers) and nights.folders():
        nights.delete(*[folder.name for folder in nights.folders()][-2:])
    for reader in readers:
        reader.join()
    assert broken == []
    assert held


def test_a_drive_without_such_locks(three: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then all goes on without them."""

    def flock(fd: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    with three.history() as history, monkeypatch.context() as patch:
        snapshot = history.resolve(NAMES[0])
        with history.held(snapshot):
            patch.setattr("mirrorback.store.in_use.fcntl.flock", flock)
            from mirrorback.store import in_use

            with in_use.alone(history.repo, NAMES[0]):
                pass
        with history.held(history.resolve(NAMES[1])) as fd:
            assert os.listdir(fd)


def test_a_lock_that_someone_has_forgotten(three: Nights) -> None:
    """A lock of another program keeps a snapshot, not the command."""
    fd = os.open(three.repository / NAMES[0], os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        left(three, NAMES[0])
    finally:
        os.close(fd)


# --- large files ---------------------------------------------------------------------------


def test_what_depends_on_a_snapshot_that_goes_is_restored_all_the_same(
    large: LargeNights, image: Path, tmp_path: Path
) -> None:
    """An old version is read through deltas of newer snapshots, which are removed meanwhile;
    and a backup gives the mirror's file away."""
    others = large.source / "many"
    others.mkdir()
    for number in range(300):
        (others / f"{number}").write_bytes(os.urandom(20_000))
    for night in range(4):
        change_pages(image, night)
        (large.source / f"n{night}").write_text("x")
        if night == 0:
            content = image.read_bytes()
        large.backup()
    process = stopped_restore(large, NAMES[0], tmp_path / "out", 30)
    large.delete(NAMES[1])
    change_pages(image, 9)
    large.backup()
    large.delete(NAMES[2])
    finish(process)
    assert (tmp_path / "out" / "d" / "image").read_bytes() == content
    assert large.problems() == []


@pytest.mark.parametrize("what", ["removal", "backup"])
def test_a_large_file_that_is_being_read(
    large: LargeNights, image: Path, tmp_path: Path, what: str
) -> None:
    for night in range(3):
        change_pages(image, night)
        if night == (0 if what == "removal" else 2):
            content = image.read_bytes()
        large.backup()
    at = NAMES[0] if what == "removal" else "latest"
    process = start("cat", large.repository, "d/image", "--at", at)
    assert process.stdout is not None
    begin = process.stdout.read(1000)  # more than a pipe holds is still to come
    if what == "removal":
        large.delete(NAMES[1])
    else:
        change_pages(image, 77, 30)
        large.backup()
    assert begin + process.stdout.read() == content
    assert process.wait(60) == 0
    process.communicate()


# --- mounts ---------------------------------------------------------------------------------


def test_an_open_file_in_a_mount(three: Nights, point: Path) -> None:
    content = (three.repository / NAMES[0] / "d" / "f3").read_bytes()
    with mounted(three.repository, point):
        with (point / NAMES[0] / "d" / "f3").open("rb") as file:
            assert file.read(100) == content[:100]
            left(three, NAMES[0])
            assert file.read() == content[100:]
        run("delete", three.repository, NAMES[0])  # which waits for the mount to let go
        wait_for(lambda: NAMES[0] not in os.listdir(point))
        assert not (point / NAMES[0] / "d" / "f3").exists()
        assert len(os.listdir(point / NAMES[1] / "d")) == FILES


def test_an_open_folder_in_a_mount(three: Nights, point: Path) -> None:
    with mounted(three.repository, point):
        fd = os.open(point / NAMES[0] / "d", os.O_RDONLY | os.O_DIRECTORY)
        try:
            time.sleep(LINGER_S + 1)
            left(three, NAMES[0])
            assert len(os.listdir(fd)) == FILES
        finally:
            os.close(fd)
        run("delete", three.repository, NAMES[0])


def test_a_mount_that_merely_stands_there_holds_nothing(three: Nights, point: Path) -> None:
    with mounted(three.repository, point):
        assert sorted(os.listdir(point)) == [*NAMES[:2], "current"]
        for name in os.listdir(point):
            (point / name).stat()
        began = time.monotonic()
        run("delete", three.repository, NAMES[0])
        assert time.monotonic() - began < LINGER_S
        assert (point / NAMES[1] / "d" / "f0").exists()
        time.sleep(LINGER_S + 1)
        fd = os.open(three.repository / NAMES[1], os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)


def test_a_walk_through_a_mount_is_not_broken(three: Nights, point: Path, tmp_path: Path) -> None:
    """Between two files nothing is open for a moment, and what is copied to is slow."""
    then = describe(three.repository / NAMES[0])
    with mounted(three.repository, point):
        removals = []
        stop = threading.Event()

        def remove() -> None:
            while not stop.is_set():
                removals.append(delete_now(three, NAMES[0]))

        remover = threading.Thread(target=remove)
        (tmp_path / "out").mkdir()
        folder = point / NAMES[0] / "d"
        names = os.listdir(folder)
        remover.start()
        try:
            for name in names:
                (tmp_path / "out" / name).write_bytes((folder / name).read_bytes())
                if name.endswith("7"):
                    time.sleep(0.05)
        finally:
            stop.set()
            remover.join()
        assert removals and not any(removals)
    assert len(names) == FILES
    for name in names:
        kept = (three.repository / NAMES[0] / "d" / name).read_bytes()
        assert (tmp_path / "out" / name).read_bytes() == kept
    require_same(then, describe(three.repository / NAMES[0]))


def delete_now(nights: Nights, name: str) -> bool:
    """Whether a removal that does not wait removes it."""
    from mirrorback.store import in_use
    from mirrorback.store.in_use import InUse

    time.sleep(0.005)
    with nights.history() as history:
        try:
            with in_use.alone(history.repo, name):
                return True
        except InUse:
            return False


def test_a_killed_mount_holds_nothing(three: Nights, point: Path) -> None:
    with mounted(three.repository, point):
        file = (point / NAMES[0] / "d" / "f3").open("rb")
        os.kill(server(point), signal.SIGKILL)
        wait_for(lambda: run_quietly(three) == 0)
        with contextlib.suppress(OSError):
            file.close()
        unmount(point)


def run_quietly(nights: Nights) -> int:
    process = start("delete", nights.repository, NAMES[0])
    process.communicate(timeout=60)
    return process.returncode


def test_the_mirror_open_in_a_mount_keeps_no_backup_waiting(three: Nights, point: Path) -> None:
    with mounted(three.repository, point), (point / "current" / "d" / "f3").open("rb"):
        (three.source / "new").write_text("x")
        done = run("backup", three.source, three.repository, "--json")
        assert done.summary["files_new"] == 1
        left(three, NAMES[2])
    run("delete", three.repository, NAMES[2])


def test_a_snapshot_that_is_held_by_nobody_shows_its_end(three: Nights, point: Path) -> None:
    """As on a drive that knows no locks: what was open answers with an error, no more."""
    with mounted(three.repository, point):
        fd = os.open(point / NAMES[0] / "d", os.O_RDONLY | os.O_DIRECTORY)
        try:
            code = (
                "import sys, fcntl, mirrorback.store.in_use as m\n"
                "m._locked = lambda fd, how: True\n"
                "from mirrorback.cli.app import main\n"
                "sys.argv[0] = 'mirrorback'\nmain()"
            )
            from program import python

            python(code, "delete", str(three.repository), NAMES[0])
            wait_for(lambda: NAMES[0] not in os.listdir(point))
            with pytest.raises(FileNotFoundError):
                os.stat("f1", dir_fd=fd)
        finally:
            os.close(fd)
        assert os.listdir(point / "current") == ["d"]


def test_the_engine_tells_what_was_left(three: Nights, tmp_path: Path) -> None:
    with three.history() as history, history.held(history.resolve(NAMES[0])):
        fates = delete(
            str(three.repository), NAMES[:2], dry_run=False, now=three.now, events=three.heard
        )
    assert [fate.keep for fate in fates] == [True, False]
    assert len(three.heard.warnings) == 1
    assert json.dumps(fates[0].reasons)
