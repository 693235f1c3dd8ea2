"""What libfuse is answered, without libfuse."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from runs import Nights

from mirrorback.engine.fuse import SETTLED_S, Operations
from mirrorback.engine.view import FRESH_S, View
from mirrorback.errors import DriveError


class Asked:
    """Operations on a view, with a clock and an ear."""

    def __init__(self, nights: Nights) -> None:
        self.now = 0.0
        self.told: list[str] = []
        self.ready = 0
        self.history = nights.history()
        self.view = View(self.history, lambda: self.now)
        self.operations = Operations(self.view, self._ready, self.told.append, b"/nowhere")

    def _ready(self) -> None:
        self.ready += 1

    def open(self, path: str) -> SimpleNamespace:
        """An open file, with what the kernel is told of it."""
        info = SimpleNamespace(fh=0, keep_cache=False, direct_io=False)
        assert self.operations.open(path, info) == 0
        return info

    def read(self, path: str, info: SimpleNamespace) -> bytes:
        return self.operations.read(path, 1000, 0, info)


@pytest.fixture
def asked(nights: Nights) -> Iterator[Asked]:
    (nights.source / "d").mkdir()
    (nights.source / "f").write_text("one")
    (nights.source / "d" / "g").write_text("same")
    os.link(nights.source / "f", nights.source / "d" / "h")
    os.symlink(b"to\xff", os.fsencode(nights.source) + b"/l\xff")
    os.setxattr(nights.source / "f", b"user.\xff", b"v\0")
    (nights.source / "f").chmod(0o4750)
    os.utime(nights.source / "f", ns=(5, -1))
    nights.backup()
    found = Asked(nights)
    with found.history:
        yield found


def failing(number: int, question: object, *arguments: object) -> None:
    with pytest.raises(OSError) as raised:
        question(*arguments)  # type: ignore[operator]
    assert raised.value.errno == number


def test_attributes(asked: Asked) -> None:
    found = asked.operations.getattr("/current/f")
    assert found["st_mode"] == stat.S_IFREG | 0o4750
    assert (found["st_size"], found["st_nlink"], found["st_mtime"]) == (3, 2, -1)
    assert (found["st_uid"], found["st_gid"]) == (os.geteuid(), os.getegid())
    assert found["st_ino"] == asked.operations.getattr("/current/d/h")["st_ino"]
    link = asked.operations.getattr("/current/l\udcff")
    assert (link["st_mode"], link["st_size"]) == (stat.S_IFLNK | 0o777, 3)
    top = asked.operations.getattr("/")
    assert (top["st_mode"], top["st_nlink"]) == (stat.S_IFDIR | 0o555, 3)
    failing(errno.ENOENT, asked.operations.getattr, "/current/none")
    assert asked.told == []


def test_listings(asked: Asked) -> None:
    listed = {name: attributes for name, attributes, _offset in asked.operations.readdir("/", 0)}
    assert list(listed) == [".", "..", "current"]
    listed = {n: a for n, a, _offset in asked.operations.readdir("/current", 0)}
    assert set(listed) == {".", "..", "d", "f", "l\udcff"}
    for name in ("d", "f", "l\udcff"):
        seen = asked.operations.getattr(f"/current/{name}")
        assert listed[name]["st_ino"] == seen["st_ino"]
        assert listed[name]["st_mode"] == stat.S_IFMT(seen["st_mode"])
    assert listed["."]["st_ino"] == asked.operations.getattr("/current")["st_ino"]
    assert listed[".."]["st_ino"] == asked.operations.getattr("/")["st_ino"]
    failing(errno.ENOTDIR, asked.operations.readdir, "/current/f", 0)
    failing(errno.ENOENT, asked.operations.readdir, "/none", 0)


def test_symlinks_and_extended_attributes(asked: Asked) -> None:
    assert asked.operations.readlink("/current/l\udcff") == "to\udcff"
    failing(errno.EINVAL, asked.operations.readlink, "/current/f")
    assert asked.operations.listxattr("/current/f") == ["user.\udcff"]
    assert asked.operations.getxattr("/current/f", "user.\udcff") == b"v\0"
    failing(errno.ENODATA, asked.operations.getxattr, "/current/f", "user.none")


def test_files_are_read_and_closed(asked: Asked) -> None:
    before = len(os.listdir("/proc/self/fd"))
    info = asked.open("/current/f")
    assert asked.read("/current/f", info) == b"one"
    assert asked.operations.getattr("/current/f", info)["st_size"] == 3
    asked.operations.release("/current/f", info)
    # What stays open is the snapshot's folder, and for some seconds what holds it.
    asked.operations.uses.close()
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    failing(errno.EISDIR, asked.open, "/current/d")
    failing(errno.ENOENT, asked.open, "/current/none")


def test_pages_are_kept_while_they_are_right(asked: Asked, nights: Nights) -> None:
    first = asked.open("/current/f")
    assert (first.keep_cache, first.direct_io) == (False, False)
    again = asked.open("/current/f")
    assert (again.keep_cache, again.direct_io) == (True, False)
    asked.operations.release("/current/f", again)
    (nights.source / "d" / "h").write_text("another")
    nights.backup()
    asked.now += FRESH_S
    # The kernel may still believe the old size, and has the old pages.
    new = asked.open("/current/f")
    assert new.direct_io
    assert asked.read("/current/f", new) == b"another"
    assert asked.read("/current/f", first) == b"one"
    assert asked.operations.getattr("/current/f", first)["st_size"] == 3
    asked.now += SETTLED_S + 0.1
    # A handle of the old file still fills the cache.
    assert asked.open("/current/f").direct_io
    asked.operations.release("/current/f", first)
    fresh = asked.open("/current/f")
    assert (fresh.keep_cache, fresh.direct_io) == (False, False)
    assert asked.read("/current/f", fresh) == b"another"
    kept = asked.open("/current/f")
    assert (kept.keep_cache, kept.direct_io) == (True, False)
    # What no backup touched is as good as before.
    asked.operations.release("/current/d/g", asked.open("/current/d/g"))
    assert asked.open("/current/d/g").keep_cache


def test_trouble_is_an_error_number_and_told_in_words(
    asked: Asked, nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nights.current / "d" / "g").unlink()
    failing(errno.EIO, asked.open, "/current/d/g")
    assert asked.told == ["d/g is missing from the folder of 2026-11-02-020000"]

    def broken(*_: object) -> None:
        raise DriveError("the drive failed")

    monkeypatch.setattr(asked.view, "look", broken)
    failing(errno.EIO, asked.operations.getattr, "/current")

    def wrong(*_: object) -> None:
        raise ZeroDivisionError("x")

    monkeypatch.setattr(asked.view, "look", wrong)
    failing(errno.EIO, asked.operations.getattr, "/current")
    assert asked.told[1:] == ["the drive failed", "internal error: ZeroDivisionError: x"]


def test_it_is_ready_when_libfuse_begins(asked: Asked) -> None:
    assert not asked.operations.begun
    asked.operations.init_with_config(None, None)
    assert asked.operations.begun and asked.ready == 1


def test_the_kernel_applies_lists_where_others_may_enter(asked: Asked) -> None:
    for enforce, wanted in ((False, 2), (True, 2 | 1 << 19)):
        operations = Operations(asked.view, asked._ready, print, b"/", enforce_acls=enforce)
        connection = SimpleNamespace(want=2, capable=0xFFFFFFFF)
        operations.init_with_config(connection, SimpleNamespace())
        assert connection.want == wanted


def test_room(asked: Asked, tmp_path: Path) -> None:
    assert asked.operations.statfs("/")["f_blocks"] == os.statvfs(tmp_path).f_blocks
