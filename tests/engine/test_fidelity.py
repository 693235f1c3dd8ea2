"""Everything a file system can hold comes to the mirror, and back."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import subprocess
import time
from pathlib import Path

import pytest
from filesystems import require_root
from runs import Nights
from trees import describe, require_same

from mirrorback.store import system

LONG = b"d" * 240
IMMUTABLE, APPEND_ONLY, NODUMP = 0x10, 0x20, 0x40
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw+ep


@pytest.fixture
def fine(ext4: Path) -> Nights:
    """A source and a repository on a file system that holds everything."""
    require_root()
    (ext4 / "source").mkdir()
    return Nights(ext4 / "source", ext4 / "drive")


def both_ways(nights: Nights) -> Path:
    """Back up, compare mirror and restore with the source; the restored folder."""
    wanted = describe(nights.source)
    summary = nights.backup().summary
    assert (summary.errors, summary.not_kept) == (0, {})
    require_same(wanted, describe(nights.current))
    target = nights.repository.parent / "restored"
    nights.restore(target)
    require_same(wanted, describe(target))
    assert nights.problems() == []
    return target


def test_names(fine: Nights) -> None:
    for name in [
        b"latin1-\xe9\xff",
        b"new\nline",
        b"\x1b[31mred\x07",
        b"[bold]markup",
        b"-rf",
        b" ",
        b"\\back",
        b"x" * 255,
        b"nfc-\xc3\xa9",
        b"nfc-e\xcc\x81",
        b"Case",
        b"case",
        b"2024-01-01-000000",
        b".mirrorback",
        b"catalog.db",
        b"x.rdiff.zst",
    ]:
        with open(os.path.join(os.fsencode(fine.source), name), "wb") as file:
            file.write(name)
    both_ways(fine)


def test_kinds_and_modes(fine: Nights) -> None:
    top = os.fsencode(fine.source)
    os.mkfifo(top + b"/fifo", 0o622)
    for number, device in enumerate([os.makedev(1, 3), os.makedev(511, 1048575), 0]):
        os.mknod(top + b"/char%d" % number, 0o640 | stat.S_IFCHR, device)
    os.mknod(top + b"/block", 0o640 | stat.S_IFBLK, os.makedev(7, 200))
    os.mknod(top + b"/socket", 0o700 | stat.S_IFSOCK)
    for aim in [b"dangling", b"/etc/passwd", b".", b"\xff\n", b"a/" * 2047 + b"b"]:
        os.symlink(aim, top + b"/link%d" % len(aim))
    for mode in (0, 0o200, 0o111, 0o4755, 0o2755, 0o6711, 0o7777):
        for kind in ("f", "d"):
            path = fine.source / f"{kind}{mode:o}"
            path.mkdir() if kind == "d" else path.write_text("x")
            os.chown(path, 1234, 4_294_967_294)
            path.chmod(mode)
    both_ways(fine)


def test_hard_links_of_every_kind(fine: Nights) -> None:
    top = fine.source
    (top / "d").mkdir()
    (top / "f").write_text("x")
    (top / "s").symlink_to("nowhere")
    os.mkfifo(top / "p")
    os.mknod(top / "c", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    for name in "fspc":
        os.link(top / name, top / "d" / f"{name}1", follow_symlinks=False)
        os.link(top / name, top / f"{name}2", follow_symlinks=False)
    both_ways(fine)


def test_times(fine: Nights) -> None:
    for number, ns in enumerate(
        [
            0,
            1,
            -1,
            -2_000_000_000_123_456_789,
            4_000_000_000_999_999_999,
            10_000_000_000_000_000_001,
        ]
    ):
        path = fine.source / str(number)
        path.write_text("x")
        os.utime(path, ns=(ns, ns))
        (fine.source / f"s{number}").symlink_to("x")
        os.utime(fine.source / f"s{number}", ns=(ns, ns), follow_symlinks=False)
    os.utime(fine.source, ns=(-5, -5))
    both_ways(fine)


def test_attributes_lists_and_capabilities(fine: Nights) -> None:
    path, folder = fine.source / "f", fine.source / "d"
    path.write_text("x")
    folder.mkdir()
    for name, value in [
        (b"user.empty", b""),
        (b"user.na\xffme", b"odd"),
        (b"user.binary", b"\x00\xff\n"),
        (b"user.large", b"v" * 60_000),
        (b"trusted.one", b"1"),
        (b"security.capability", CAPABILITY),
    ]:
        os.setxattr(path, name, value)
    (fine.source / "s").symlink_to("f")
    os.setxattr(fine.source / "s", b"trusted.link", b"1", follow_symlinks=False)
    subprocess.run(["setfacl", "-m", "u:1234:rwx,g:4321:r", path, folder], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:1234:rwx", folder], check=True)
    (folder / "inherits").write_text("x")
    (folder / "not").write_text("x")
    subprocess.run(["setfacl", "-b", folder / "not"], check=True)
    target = both_ways(fine)
    assert os.getxattr(target / "f", "security.capability") == CAPABILITY


def test_a_file_made_late_in_a_folder_inherits_nothing(fine: Nights) -> None:
    """The mirror lost it: it is taken from the source again when all else is linked."""
    folder = fine.source / "d"
    folder.mkdir()
    for name in ("lost", "stays"):
        (folder / name).write_text(name)
    subprocess.run(["setfacl", "-d", "-m", "u:1234:rwx", folder], check=True)
    os.chown(folder, -1, 4321)
    folder.chmod(0o2750)
    fine.backup()
    (fine.current / "d" / "lost").unlink()
    (fine.source / "new").write_text("x")
    fine.backup()
    assert fine.heard.warnings
    require_same(describe(fine.source), describe(fine.current))
    st = (fine.current / "d" / "lost").stat()
    assert st.st_gid == (folder / "lost").stat().st_gid
    assert os.listxattr(fine.current / "d" / "lost") == []


def set_flags(path: Path, flags: int) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        system.set_inode_flags(fd, flags)
    finally:
        os.close(fd)


def flags_of(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY)
    try:
        return system.inode_flags(fd)
    finally:
        os.close(fd)


def test_inode_flags_come_back_with_restore(fine: Nights) -> None:
    wanted = {"i": IMMUTABLE, "a": APPEND_ONLY, "d": NODUMP, "folder": IMMUTABLE}
    try:
        for name, flags in wanted.items():
            path = fine.source / name
            path.mkdir() if name == "folder" else path.write_text("x")
            set_flags(path, flags)
        target = both_ways(fine)
        assert {name: flags_of(target / name) for name in wanted} == wanted
        for name in wanted:
            assert flags_of(fine.current / name) & (IMMUTABLE | APPEND_ONLY) == 0
        fine.backup(always=True)  # nothing on the drive stands in the next run's way
        fine.delete(fine.folders()[0].name)
    finally:
        for top in (fine.source, fine.repository.parent / "restored"):
            for name in wanted:
                if (top / name).exists():
                    set_flags(top / name, 0)


def deepest(top: Path, levels: int, *, make: bool) -> int:
    """A descriptor of the folder so many levels below `top`."""
    fd = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        if make:
            os.mkdir(LONG, dir_fd=fd)
        below = os.open(LONG, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    return fd


def read_below(top: Path, levels: int, name: bytes) -> bytes:
    fd = deepest(top, levels, make=False)
    try:
        file = os.open(name, os.O_RDONLY, dir_fd=fd)
        with open(file, "rb") as content:
            return content.read()
    finally:
        os.close(fd)


def test_paths_longer_than_the_system_takes(fine: Nights) -> None:
    levels = 25  # 6,000 bytes; a path may have 4,096
    fd = deepest(fine.source, levels, make=True)
    for name, content in ((b"f", b"one"), (b"g", b"two")):
        file = os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=fd)
        os.write(file, content)
        os.close(file)
    fine.backup()
    assert read_below(fine.current, levels, b"f") == b"one"
    os.rename(b"f", b"h", src_dir_fd=fd, dst_dir_fd=fd)
    os.close(fd)
    assert fine.backup().summary.files_moved == 1
    assert read_below(fine.folders()[0], levels, b"f") == b"one"
    assert read_below(fine.current, levels, b"h") == b"one"
    fine.restore(fine.repository.parent / "restored")
    assert read_below(fine.repository.parent / "restored", levels, b"h") == b"one"
    assert fine.problems() == []
    fine.delete(fine.folders()[0].name)
    assert fine.folders() == []


def test_holes(fine: Nights) -> None:
    with (fine.source / "sparse").open("wb") as file:
        for at in (0, 5 << 20, 19 << 20):
            file.seek(at)
            file.write(os.urandom(65536))
        file.truncate(40 << 20)
    with (fine.source / "end").open("wb") as file:
        file.write(b"x")
        file.truncate(10 << 20)
    target = both_ways(fine)
    for name in ("sparse", "end"):
        wanted = (fine.source / name).stat().st_blocks
        assert (fine.current / name).stat().st_blocks == wanted
        assert (target / name).stat().st_blocks == wanted


def test_a_hole_of_a_tebibyte_takes_seconds(fine: Nights) -> None:
    path = fine.source / "huge"
    with path.open("wb") as file:
        file.seek(1 << 39)
        file.write(b"in the middle")
        file.truncate(1 << 40)
    began = time.monotonic()
    fine.backup()
    fine.restore(fine.repository.parent / "restored")
    assert fine.problems() == []
    assert time.monotonic() - began < 60  # reading it would take more than ten minutes
    for top in (fine.current, fine.repository.parent / "restored"):
        copy = top / "huge"
        assert copy.stat().st_size == 1 << 40
        assert copy.stat().st_blocks == path.stat().st_blocks
        with copy.open("rb") as file:
            file.seek(1 << 39)
            assert file.read(13) == b"in the middle"


def test_a_folder_of_many_entries_and_levels(fine: Nights) -> None:
    for number in range(3000):
        (fine.source / f"{number}").touch()
    folder = fine.source
    for _ in range(300):
        folder = folder / "s"
    folder.mkdir(parents=True)
    (folder / "f").write_text("x")
    both_ways(fine)


def test_the_cursor_of_libc_is_there() -> None:
    """The calls that Python does not have are found on this system."""
    assert ctypes.CDLL(None).renameat2
    assert ctypes.CDLL(None).statx
