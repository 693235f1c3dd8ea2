"""The file systems that people have on their drives."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filesystems import mounted, require_root
from program import run
from runs import Nights
from trees import Node, Tree, describe, require_same

from mirrorback.errors import NoSpace
from mirrorback.store import system

KINDS = ["ext4", "xfs", "btrfs", "ntfs"]
Mount = Callable[[str], Path]


def furnish(top: Path) -> None:
    """A little of everything that each of them holds."""
    (top / "d" / "e").mkdir(parents=True)
    (top / "f").write_text("one")
    (top / "d" / "g").write_text("two" * 10_000)
    (top / "d" / "e" / "ü [x]").write_bytes(os.urandom(100_000))
    os.link(top / "f", top / "d" / "linked")
    (top / "s").symlink_to("d/g")
    os.setxattr(top / "f", "user.one", b"1")
    (top / "d").chmod(0o750)
    os.utime(top / "f", ns=(7, 1_500_000_000_123_456_700))
    os.utime(top / "d", ns=(7, 1_400_000_000_000_000_000))


def coarse(tree: Tree) -> Tree:
    """A tree with times as NTFS has them, and without what it does not show alike."""

    def rounded(node: Node) -> Node:
        return node._replace(mtime=node.mtime // 100 * 100, xattrs=())

    return {path: rounded(node) for path, node in tree.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_three_nights_and_a_restore(kind: str, mount: Mount, source: Path, tmp_path: Path) -> None:
    nights = Nights(source, mount(kind) / "drive")
    view = coarse if kind == "ntfs" else (lambda tree: tree)
    furnish(source)
    time.sleep(0.03)
    then = {nights.backup().summary.snapshot or "": describe(source)}
    (source / "f").chmod(0o600)
    (source / "d" / "g").write_text("three")
    (source / "d" / "e").rename(source / "moved")
    then[nights.backup().summary.snapshot or ""] = describe(source)
    (source / "moved" / "new").write_text("x")
    (source / "s").unlink()
    then[nights.backup().summary.snapshot or ""] = describe(source)
    for name, wanted in then.items():
        place = nights.current if name == max(then) else nights.repository / name
        require_same(view(wanted), view(describe(place)))
        nights.restore(tmp_path / name, at=name)
        require_same(wanted, describe(tmp_path / name))
    assert nights.problems() == []
    assert nights.backup().summary.unchanged
    nights.delete(min(then))
    assert len(nights.folders()) == 1
    assert nights.problems() == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_folders_keep_their_own_times(kind: str, mount: Mount, source: Path) -> None:
    """Exchanging folders changes their time on some file systems."""
    nights = Nights(source, mount(kind) / "drive")
    (source / "f").write_text("x")
    os.utime(source, ns=(7, 1_400_000_000_000_000_000))
    nights.backup()
    (source / "f").write_text("y")
    os.utime(source, ns=(7, 1_500_000_000_000_000_000))
    nights.backup()
    assert nights.current.stat().st_mtime_ns == 1_500_000_000_000_000_000
    assert nights.folders()[0].stat().st_mtime_ns == 1_400_000_000_000_000_000


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_metadata_of_a_large_file_is_shared_where_the_drive_can(
    kind: str, mount: Mount, source: Path
) -> None:
    nights = Nights(source, mount(kind) / "drive")
    (source / "f").write_bytes(os.urandom(20 << 20))
    nights.backup()
    (source / "f").chmod(0o600)
    os.sync()
    before = os.statvfs(nights.repository).f_bfree
    summary = nights.backup().summary
    os.sync()
    after = os.statvfs(nights.repository).f_bfree
    assert (summary.files_metadata, summary.bytes_copied, summary.bytes_written) == (1, 0, 0)
    assert (before - after) * os.statvfs(nights.repository).f_frsize < 8 << 20


def test_a_drive_that_cannot_exchange_folders(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "exchange", lambda *_names: False)
    (nights.source / "f").write_text("one")
    nights.backup()
    (nights.source / "f").write_text("two")
    nights.backup()
    assert (nights.folders()[0] / "f").read_text() == "one"
    assert (nights.current / "f").read_text() == "two"
    assert nights.problems() == []


def test_more_links_than_the_drive_allows(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A second inode takes over; the catalog and a restore know one."""
    original = os.link
    most = 4

    def link(src: bytes, dst: bytes, **options: int | bool) -> None:
        st = os.stat(src, dir_fd=options.get("src_dir_fd"), follow_symlinks=False)
        if st.st_nlink >= most:
            raise OSError(31, "Too many links")
        original(src, dst, **options)  # type: ignore[arg-type]

    (nights.source / "a").write_text("x" * 100)
    for name in "bcdefghij":
        os.link(nights.source / "a", nights.source / name)
    (nights.source / "alone").write_text("y")
    time.sleep(0.03)
    monkeypatch.setattr(os, "link", link)
    for night in range(8):
        (nights.source / f"new{night}").write_text("x")
        summary = nights.backup().summary
        assert (summary.files_new, summary.errors) == (1 if night else 12, 0)
    together = {path.stat().st_ino for path in nights.current.iterdir() if len(path.name) == 1}
    assert len(together) > 1
    monkeypatch.undo()
    nights.restore(tmp_path / "restored")
    require_same(describe(nights.source), describe(tmp_path / "restored"))
    assert nights.problems() == []
    for folder in nights.folders():
        assert (folder / "alone").read_text() == "y"


def test_ext4_with_few_inodes_says_so_in_time(tmp_path: Path, source: Path) -> None:
    require_root()
    with mounted("ext4", tmp_path / "small", size=20 << 20, make=("-N", "200")) as drive:
        for number in range(300):
            (source / f"{number}").touch()
        with pytest.raises(NoSpace):
            Nights(source, drive / "backup").backup()
        assert not list((drive / "backup").glob("20*"))


def test_a_full_drive_ends_with_twelve_and_keeps_history(tmp_path: Path, source: Path) -> None:
    require_root()
    with mounted("ext4", tmp_path / "small", size=40 << 20) as drive:
        nights = Nights(source, drive / "backup")
        (source / "f").write_bytes(os.urandom(4 << 20))
        nights.backup()
        then = describe(source)
        room = os.statvfs(drive)
        filling = room.f_bavail * room.f_frsize - (6 << 20)
        subprocess.run(["fallocate", "-l", str(filling), drive / "big"], check=True)
        (source / "g").write_bytes(os.urandom(12 << 20))
        done = run("backup", source, nights.repository, code=12)
        assert len(done.err.splitlines()) == 1
        require_same(then, describe(nights.current))
        (drive / "big").unlink()
        run("backup", source, nights.repository)
        assert nights.problems() == []
