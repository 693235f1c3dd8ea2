"""Systems on which nothing is held by a path that leads to it alone, such as macOS: what can be
tried of that here."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from mirrorback.model import Kind, Metadata, Owner
from mirrorback.store import node, system, tree

REAL_OPEN = os.open


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No O_PATH, and a symlink where a folder should be is one loop too many."""
    here = os.O_PATH

    def opened(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        assert not flags & here or flags & os.O_NOFOLLOW
        try:
            return REAL_OPEN(path, flags, mode, dir_fd=dir_fd)
        except NotADirectoryError:
            if flags & os.O_NOFOLLOW and stat.S_ISLNK(os.lstat(path, dir_fd=dir_fd).st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
            raise

    monkeypatch.setattr(system, "LINUX", False)
    monkeypatch.setattr(tree, "_PASSING", tree.DIRECTORY_FLAGS)
    monkeypatch.setattr(os, "open", opened)
    monkeypatch.delattr(os, "O_PATH")
    # As there, a symlink is opened itself.
    monkeypatch.setattr(os, "O_SYMLINK", here | os.O_NOFOLLOW, raising=False)


def dressed(folder: Path, name: str, **known: Any) -> list[str]:
    fd = REAL_OPEN(folder, tree.DIRECTORY_FLAGS)
    try:
        return node.Dresser(owner=False).dress_named(fd, os.fsencode(name), **known)
    finally:
        os.close(fd)


def metadata(kind: Kind) -> Metadata:
    return Metadata(kind=kind, mode=0o640, owner=Owner(0, 0), mtime=10**18 + 7)


def test_a_pipe_is_dressed(tmp_path: Path, elsewhere: None, monkeypatch: Any) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    monkeypatch.setattr(os, "O_SYMLINK", os.O_NOFOLLOW)
    assert dressed(tmp_path, "pipe", metadata=metadata(Kind.FIFO)) == []
    st = (tmp_path / "pipe").stat()
    assert (stat.S_IMODE(st.st_mode), st.st_mtime_ns) == (0o640, 10**18 + 7)


def test_a_symlink_is_held_itself(tmp_path: Path, elsewhere: None) -> None:
    (tmp_path / "there").touch()
    (tmp_path / "link").symlink_to("there")
    folder = REAL_OPEN(tmp_path, tree.DIRECTORY_FLAGS)
    with system.held_itself(folder, b"link") as (place, st):
        assert isinstance(place, int)
        assert stat.S_ISLNK(os.fstat(place).st_mode)
        assert st.st_ino == (tmp_path / "link").lstat().st_ino
    os.close(folder)


def test_the_way_to_a_target_leads_over_a_symlink(tmp_path: Path, elsewhere: None) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    (tmp_path / "file").touch()
    fd = tree.open_own(bytes(tmp_path / "link" / "new"), 0o700)
    assert os.path.samestat(os.fstat(fd), (tmp_path / "there/new").stat())
    os.close(fd)
    with pytest.raises(NotADirectoryError):
        tree.open_own(bytes(tmp_path / "file"), 0o700)
