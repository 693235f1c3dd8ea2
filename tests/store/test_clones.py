"""Files that share their bytes: the systems' ways that no file system of Linux has."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrorback.store import clones, system


def test_zfs_clones_by_copying_in_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its block cloning is on; as told by the file system's number, here any's."""
    switch = tmp_path / "switch"
    old, new = os.open(tmp_path / "old", os.O_RDWR | os.O_CREAT), None
    try:
        os.write(old, bytes(range(256)) * 10_000)
        magic = ctypes.c_long * 32
        here = magic()
        assert system._libc().fstatfs(old, ctypes.byref(here)) == 0
        monkeypatch.setattr(clones, "_FICLONE", 0)
        monkeypatch.setattr(clones, "_ZFS_CLONES", os.fspath(switch))
        new = os.open(tmp_path / "new", os.O_RDWR | os.O_CREAT)
        file = clones.NewFile(new, 0, b"new")
        assert not clones.clone_file(old, file)
        monkeypatch.setattr(clones, "_ZFS_MAGIC", here[0])
        assert not clones.clone_file(old, file)
        switch.write_text("0\n")
        assert not clones.clone_file(old, file)
        switch.write_text("1\n")
        assert clones.clone_file(old, file)
        assert (tmp_path / "new").read_bytes() == (tmp_path / "old").read_bytes()
    finally:
        for fd in (old, new):
            if fd is not None:
                os.close(fd)


class MacLibrary:
    """What fclonefileat(2) says of itself in macOS' manual: a new file with the bytes, the
    mode and the attributes of another, which must not be there yet."""

    def __init__(self, failure: int = 0) -> None:
        self.failure = failure
        self.fclonefileat = self

    def __call__(self, fd: int, folder: int, name: bytes, flags: int) -> int:
        assert flags == 3
        if self.failure:
            ctypes.set_errno(self.failure)
            return -1
        st = os.fstat(fd)
        new = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600, dir_fd=folder)
        os.write(new, os.pread(fd, st.st_size, 0))
        for attribute in os.listxattr(fd):
            os.setxattr(new, attribute, os.getxattr(fd, attribute))
        os.fchmod(new, stat.S_IMODE(st.st_mode))
        os.close(new)
        return 0


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> MacLibrary:
    library = MacLibrary()
    monkeypatch.setattr(clones.system, "CLONES_BY_NAME", True)
    monkeypatch.setattr(clones.system, "_libc", lambda: library)
    return library


@pytest.fixture
def new_file(tmp_path: Path) -> Iterator[clones.NewFile]:
    folder = os.open(tmp_path, os.O_RDONLY)
    fd = os.open("new", os.O_RDWR | os.O_CREAT | os.O_EXCL, dir_fd=folder)
    yield clones.NewFile(fd, folder, b"new")
    os.close(fd)
    os.close(folder)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[int]:
    """A file with content, an attribute and a mode that forbids to write it."""
    path = tmp_path / "old"
    path.write_bytes(b"content")
    os.setxattr(path, "user.from", b"old")
    path.chmod(0o440)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_a_clone_by_name_is_what_the_descriptor_shows(
    mac: MacLibrary, new_file: clones.NewFile, read_only: int, tmp_path: Path
) -> None:
    assert clones.clone_file(read_only, new_file)
    at = os.stat(tmp_path / "new")
    assert os.fstat(new_file.fd).st_ino == at.st_ino
    assert stat.S_IMODE(at.st_mode) == 0o600
    assert not os.listxattr(new_file.fd)
    assert not os.get_inheritable(new_file.fd)
    os.pwrite(new_file.fd, b"C", 0)
    assert (tmp_path / "new").read_bytes() == b"Content"
    assert (tmp_path / "old").read_bytes() == b"content"
    # Again, as where the source has changed while it was read.
    os.ftruncate(new_file.fd, 0)
    assert clones.clone_file(read_only, new_file)
    assert (tmp_path / "new").read_bytes() == b"content"
    assert sorted(os.listdir(tmp_path)) == ["new", "old"]


@pytest.mark.parametrize("failure", [errno.ENOTSUP, errno.EXDEV, errno.EEXIST])
def test_where_nothing_can_be_cloned_by_name_the_new_file_stays(
    failure: int, mac: MacLibrary, new_file: clones.NewFile, read_only: int, tmp_path: Path
) -> None:
    mac.failure = failure
    assert not clones.clone_file(read_only, new_file)
    assert os.fstat(new_file.fd).st_ino == os.stat(tmp_path / "new").st_ino
    assert sorted(os.listdir(tmp_path)) == ["new", "old"]


def test_a_full_drive_ends_a_clone_by_name(
    mac: MacLibrary, new_file: clones.NewFile, read_only: int
) -> None:
    mac.failure = errno.ENOSPC
    with pytest.raises(OSError, match="No space"):
        clones.clone_file(read_only, new_file)


def test_a_clone_by_name_that_fails_leaves_nothing(
    mac: MacLibrary,
    new_file: clones.NewFile,
    read_only: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(clones.xattrs, "write", fail)
    with pytest.raises(OSError, match="error"):
        clones.clone_file(read_only, new_file)
    assert sorted(os.listdir(tmp_path)) == ["new", "old"]
