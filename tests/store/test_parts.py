"""The lock, small durable files, removal, the cursor, the threads, attributes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from program import python

from mirrorback.errors import Damaged, Locked
from mirrorback.store import durable, remove, system, tree, workers, xattrs
from mirrorback.store.lock import Lock, held


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """The open temporary folder."""
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


# --- the lock ---------------------------------------------------------------------


def test_one_holds_the_lock(folder: int) -> None:
    assert not held(folder)
    lock = Lock.take(folder)
    assert held(folder)
    with pytest.raises(Locked):
        Lock.take(folder)
    lock.release()
    assert not held(folder)
    Lock.take(folder).release()


def test_a_lock_dies_with_its_process(folder: int, tmp_path: Path) -> None:
    code = (
        "import os, sys; from mirrorback.store.lock import Lock;"
        "lock = Lock.take(os.open(sys.argv[1], os.O_RDONLY)); os._exit(0)"
    )
    python(code, str(tmp_path))
    assert not held(folder)


# --- small files ---------------------------------------------------------------------


def test_replace_is_all_or_nothing(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    durable.replace(folder, b"f", b"one")
    assert durable.read(folder, b"f") == b"one"

    def fsync(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output"):
        durable.replace(folder, b"f", b"two")
    assert durable.read(folder, b"f") == b"one"


def test_a_symlink_is_no_small_file(folder: int, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "f").symlink_to(tmp_path / "secret")
    with pytest.raises((OSError, Damaged)):
        durable.read(folder, b"f")


def test_a_failed_sync_is_told_where_it_is_waited_for(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(system, "sync_filesystem", fail)
    with pytest.raises(OSError, match="Input/output"), durable.syncing(folder) as synced:
        synced()


# --- removal ------------------------------------------------------------------------


def test_a_tree_goes_however_deep_and_shut(folder: int, tmp_path: Path) -> None:
    top = tmp_path / "t"
    fd = os.open(tmp_path, os.O_RDONLY)
    os.mkdir("t", dir_fd=fd)
    os.close(fd)
    at = os.open(top, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=at)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=at))
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    (top / "shut").mkdir(mode=0)
    remove.remove_tree(folder, b"t")
    assert not top.exists()
    remove.remove_tree(folder, b"t")  # gone already


def test_removal_goes_through_no_symlink(folder: int, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_text("x")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "s").symlink_to(tmp_path / "outside")
    remove.remove_tree(folder, b"t")
    (tmp_path / "l").symlink_to(tmp_path / "outside")
    remove.remove_tree(folder, b"l")
    assert (tmp_path / "outside" / "f").exists()


# --- the cursor -----------------------------------------------------------------------


def test_the_cursor_follows_no_symlink(folder: int, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "s").symlink_to("a")
    cursor = tree.Cursor(folder)
    assert cursor.open(b"a/b") >= 0
    assert os.fstat(cursor.open(b"")).st_ino == tmp_path.stat().st_ino
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        cursor.open(b"s/b")
    cursor.close()


def test_the_cursor_keeps_few_descriptors(folder: int, tmp_path: Path) -> None:
    path = b"/".join([b"d"] * 300)
    os.makedirs(os.path.join(os.fsencode(tmp_path), path))
    before = len(os.listdir("/proc/self/fd"))
    cursor = tree.Cursor(folder)
    cursor.open(path)
    assert len(os.listdir("/proc/self/fd")) - before <= tree.KEPT_OPEN + 1
    assert os.fstat(cursor.open(b"d/d")).st_ino == (tmp_path / "d" / "d").stat().st_ino
    cursor.close()
    assert len(os.listdir("/proc/self/fd")) == before


# --- threads ---------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_every_task_is_done_once(threads: int) -> None:
    done: list[int] = []

    def process(task: int, tools: None, push: Callable[..., None]) -> None:
        done.append(task)
        if task < 1000:
            push(task * 2 + 1, task * 2 + 2)

    workers.work_through(
        [0], process, threads=threads, tools=lambda: None, put_away=lambda tools: None
    )
    assert sorted(done) == list(range(2001))


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_failure_stops_all_and_is_raised(threads: int) -> None:
    stopped = threading.Event()

    def process(task: int, tools: None, push: Callable[..., None]) -> None:
        if task == 5:
            raise KeyError(task)
        push(task + 1)

    with pytest.raises(KeyError):
        workers.work_through(
            [0],
            process,
            threads=threads,
            tools=lambda: None,
            put_away=lambda tools: None,
            stop=stopped.set,
        )
    assert stopped.is_set()


# --- attributes --------------------------------------------------------------------------


def test_attributes_of_any_name(ext4: Path) -> None:
    path = ext4 / "f"
    path.write_text("x")
    wanted = ((b"user.a", b""), (b"user.\xff", b"\x00\xff"), (b"user.z", b"v" * 20_000))
    fd = os.open(path, os.O_RDWR)
    try:
        os.setxattr(fd, b"user.stray", b"x")
        assert xattrs.write(fd, wanted) == []
        assert xattrs.read(fd) == tuple(sorted(wanted))
        assert xattrs.write(fd, ()) == []
        assert xattrs.read(fd) == ()
    finally:
        os.close(fd)


def test_attributes_of_a_symlink_itself(ext4: Path) -> None:
    (ext4 / "s").symlink_to("nowhere")
    fd = os.open(ext4, os.O_RDONLY)
    try:
        with system.held_itself(fd, b"s") as (place, _st):
            assert xattrs.write_at(place, ((b"trusted.a", b"1"),)) == []
        assert xattrs.read_at(fd, b"s") == ((b"trusted.a", b"1"),)
    finally:
        os.close(fd)


def test_what_a_file_system_refuses_is_told(ext4: Path) -> None:
    (ext4 / "s").symlink_to("nowhere")
    fd = os.open(ext4, os.O_RDONLY)
    try:
        with system.held_itself(fd, b"s") as (place, _st):
            assert xattrs.write_at(place, ((b"user.a", b"1"),)) == [b"user.a"]
    finally:
        os.close(fd)


# --- the helper ---------------------------------------------------------------------------


def test_a_helper_ends_with_its_input(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    fds = [os.open(tmp_path, os.O_RDONLY), os.open(tmp_path / "a", os.O_RDONLY)]
    process = subprocess.Popen(
        [sys.executable, "-m", "mirrorback.store.helper", "0", *map(str, fds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=fds,
    )
    assert process.communicate(timeout=30)[0] == b""
    assert process.returncode == 0
    for fd in fds:
        os.close(fd)
