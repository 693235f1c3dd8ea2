"""What deletions free, compared with what the file system itself says before and after."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filesystems import mounted, require_root
from runs import LargeNights, Nights, change_pages, noise

from mirrorback.engine.space import Freed, Space

Mount = Callable[[str], Path]
MIB = 1 << 20
METADATA = 3 << 18  # bytes: what a file system takes and frees besides
KINDS = ["ext4", "xfs", "btrfs"]


def used(folder: Path) -> int:
    """Bytes that a file system holds, all of it written."""
    for _ in range(2):  # xfs and btrfs give some back only when they commit again
        subprocess.run(["sync", "-f", folder], check=True)
        time.sleep(0.1)
    st = os.statvfs(folder)
    return (st.f_blocks - st.f_bfree) * st.f_frsize


def ids(nights: Nights) -> list[int]:
    with nights.history() as history:
        return [snapshot.id for snapshot in history.snapshots()]


def names(nights: Nights) -> dict[int, str]:
    with nights.history() as history:
        return {snapshot.id: snapshot.name for snapshot in history.snapshots()}


def freed(nights: Nights, *snapshots: int) -> Freed:
    with nights.history() as history:
        return Space(history).freed(snapshots)


def require_true(nights: Nights, *snapshots: int, tolerance: int = METADATA) -> Freed:
    """Delete snapshots, and see that what is free then is what was foretold."""
    before = used(nights.repository)
    foretold = freed(nights, *snapshots)
    known = names(nights)
    nights.delete(*(known[number] for number in snapshots))
    real = before - used(nights.repository)
    assert abs(real - foretold.bytes) <= tolerance, (real, foretold)
    return foretold


@pytest.fixture(params=KINDS)
def drive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A drive of each kind, of its own."""
    require_root()
    context = mounted(request.param, tmp_path / "drive")
    point = context.__enter__()
    request.addfinalizer(lambda: context.__exit__(None, None, None))
    return point


def many_nights(nights: Nights) -> None:
    """Five nights: new files, files changed and removed, a hole, hard links, many folders."""
    source = nights.source
    for number in range(200):
        folder = source / f"folder-{number % 40}"
        folder.mkdir(exist_ok=True)
        (folder / f"file-{number}").write_bytes(noise(5000 + 37 * number, number))
    (source / "stays").write_bytes(noise(3 * MIB, 1))
    time.sleep(0.03)
    nights.backup()
    for night in range(1, 5):
        (source / "changed").write_bytes(noise(2 * MIB + night, night))
        if night == 2:
            (source / "linked").write_bytes(noise(4 * MIB, 99))
            for number in range(30):
                os.link(source / "linked", source / f"linked-{number}")
            with (source / "hole").open("wb") as file:
                file.write(noise(MIB, 98))
                file.seek(500 * MIB)
                file.write(noise(MIB, 97))
        if night == 3:
            (source / "linked").unlink()
            for number in range(30):
                (source / f"linked-{number}").unlink()
            (source / "hole").unlink()
        time.sleep(0.03)
        nights.backup()


def test_each_snapshot_and_ranges(drive: Path, source: Path) -> None:
    nights = Nights(source, drive / "backup")
    many_nights(nights)
    known = ids(nights)
    middle = require_true(nights, known[2])  # holds what stood one night only
    assert middle.content > 8 * MIB
    assert middle.content < 12 * MIB  # the hole does not count, nor each link
    both = require_true(nights, known[0], known[1])
    assert both.content > 2 * MIB
    require_true(nights, known[3])
    assert nights.problems() == []


def test_one_by_one_is_what_they_free_together(drive: Path, source: Path) -> None:
    nights = Nights(source, drive / "backup")
    many_nights(nights)
    known = ids(nights)[:-1]
    with nights.history() as history:
        space = Space(history)
        each = space.one_by_one([[number] for number in known])
        for count in range(1, len(known) + 1):
            together = space.freed(known[:count])
            assert sum(one.bytes for one in each[:count]) == together.bytes
        assert space.frees([]) == 0
        assert space.frees([10_000]) == 0


@pytest.mark.parametrize("order", [(0,), (1,), (2,), (1, 2), (0, 1, 2), (0, 3), (4,)])
def test_reverse_deltas(order: tuple[int, ...], tmp_path: Path, source: Path) -> None:
    """At the end one just goes; in the middle those before it grow."""
    require_root()
    with mounted("ext4", tmp_path / "drive") as drive:
        nights = LargeNights(source, drive / "backup")
        image = source / "image"
        image.write_bytes(noise(16 * MIB, 1))
        nights.backup()
        for night in range(5):
            change_pages(image, night, 300)
            time.sleep(0.03)
            nights.backup()
        known = ids(nights)
        foretold = require_true(nights, *(known[at] for at in order), tolerance=256 << 10)
        oldest_only = order == tuple(range(len(order)))
        assert (foretold.growth == 0) == oldest_only
        assert nights.problems() == []


def test_the_same_pages_night_after_night(tmp_path: Path, source: Path) -> None:
    """Composed, their deltas are as one of them: the sum would be far off."""
    require_root()
    with mounted("ext4", tmp_path / "drive") as drive:
        nights = LargeNights(source, drive / "backup")
        image = source / "image"
        image.write_bytes(noise(16 * MIB, 1))
        nights.backup()
        for night in range(5):
            with image.open("r+b") as file:
                file.write(noise(MIB, 100 + night))
            time.sleep(0.03)
            nights.backup()
        known = ids(nights)
        foretold = require_true(nights, *known[1:4], tolerance=128 << 10)
        assert foretold.bytes > 2 * MIB
        assert foretold.estimated


def test_a_delta_becomes_whole_where_its_base_goes(tmp_path: Path, source: Path) -> None:
    """The version that stays is a delta over one that was kept whole."""
    require_root()
    with mounted("ext4", tmp_path / "drive") as drive:
        nights = LargeNights(source, drive / "backup")
        image = source / "image"
        image.write_bytes(noise(16 * MIB, 1))
        nights.backup()
        change_pages(image, 1, 100)
        time.sleep(0.03)
        nights.backup()
        image.write_bytes(noise(16 * MIB, 2))  # nothing of it is left
        time.sleep(0.03)
        nights.backup()
        known = ids(nights)
        foretold = require_true(nights, known[1], tolerance=256 << 10)
        assert foretold.growth > 15 * MIB
        assert foretold.bytes < MIB


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
@pytest.mark.parametrize("order", [(1,), (3,), (0, 1), (1, 2, 3), (0, 2), (0, 1, 2, 3, 4)])
def test_versions_that_share_blocks(
    kind: str, order: tuple[int, ...], tmp_path: Path, source: Path
) -> None:
    require_root()
    with mounted(kind, tmp_path / "drive") as drive:
        nights = LargeNights(source, drive / "backup")
        nights.form = "reflink"
        image = source / "image"
        image.write_bytes(noise(32 * MIB, 1))
        nights.backup()
        for night in range(5):
            with image.open("r+b") as file:
                file.seek((3 * night + 1) * MIB)
                file.write(noise(4 * MIB, 100 + night))
            if night == 2:
                image.chmod(0o600)
            time.sleep(0.03)
            nights.backup()
        known = ids(nights)
        foretold = require_true(nights, *(known[at] for at in order), tolerance=MIB)
        assert foretold.bytes < 22 * MIB


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_what_several_share_goes_with_the_last_of_them(
    kind: str, tmp_path: Path, source: Path
) -> None:
    require_root()
    with mounted(kind, tmp_path / "drive") as drive:
        nights = LargeNights(source, drive / "backup")
        nights.form = "reflink"
        image = source / "image"
        image.write_bytes(noise(16 * MIB, 1))
        (source / "stays").write_text("x")
        nights.backup()
        for night in range(3):
            with image.open("r+b") as file:
                file.write(noise(MIB, 100 + night))
            time.sleep(0.03)
            nights.backup()
        image.unlink()
        nights.backup()
        known = ids(nights)[:-1]
        for order in (known, [known[3], known[0], known[2], known[1]]):
            with nights.history() as history:
                space = Space(history)
                each = [one.bytes for one in space.one_by_one([[number] for number in order])]
                together = [space.freed(order[:count]).bytes for count in range(1, 5)]
            assert [sum(each[:count]) for count in range(1, 5)] == together
            assert max(each[:3]) < 2 * MIB and each[3] > 14 * MIB


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_metadata_of_many_files(kind: str, tmp_path: Path, source: Path) -> None:
    """Small files whose mode changed share all their bytes."""
    require_root()
    with mounted(kind, tmp_path / "drive") as drive:
        nights = Nights(source, drive / "backup")
        for number in range(50):
            (source / f"{number}").write_bytes(noise(300_000, number))
        nights.backup()
        for mode in (0o600, 0o640, 0o604):
            for path in source.iterdir():
                path.chmod(mode)
            time.sleep(0.03)
            nights.backup()
        known = ids(nights)
        assert freed(nights, known[1]).bytes < MIB
        assert freed(nights, known[1], known[2]).bytes < MIB
        for path in source.iterdir():
            path.write_bytes(noise(1000, 1))
        time.sleep(0.03)
        nights.backup()
        foretold = require_true(nights, *known, tolerance=2 * MIB)
        assert foretold.bytes > 13 * MIB


def test_names_that_nobody_knows_of_keep_a_file(nights: Nights, tmp_path: Path) -> None:
    (nights.source / "f").write_bytes(noise(MIB, 1))
    nights.backup()
    (nights.source / "f").unlink()
    (nights.source / "g").write_text("x")
    nights.backup()
    first = ids(nights)[0]
    assert freed(nights, first).content >= MIB
    os.link(nights.folders()[0] / "f", tmp_path / "mine")
    assert freed(nights, first).content == 0


def test_a_drive_to_which_no_hard_links_were_copied(nights: Nights, tmp_path: Path) -> None:
    (nights.source / "f").write_bytes(noise(MIB, 1))
    for night in range(3):
        (nights.source / "g").write_text(f"{night}")
        time.sleep(0.03)
        nights.backup()
    (nights.source / "f").unlink()
    nights.backup()
    subprocess.run(["cp", "-r", nights.repository, tmp_path / "copy"], check=True)
    copied = Nights(nights.source, tmp_path / "copy")
    known = ids(copied)[:3]
    assert MIB <= freed(nights, *known).content < 2 * MIB
    assert 3 * MIB <= freed(copied, *known).content < 4 * MIB


def test_more_links_than_the_drive_allows(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file on several inodes: those that go count, and no others."""
    original = os.link

    def link(src: bytes, dst: bytes, **options: int | bool) -> None:
        st = os.stat(src, dir_fd=options.get("src_dir_fd"), follow_symlinks=False)
        if st.st_nlink >= 4:
            raise OSError(31, "Too many links")
        original(src, dst, **options)  # type: ignore[arg-type]

    (nights.source / "f").write_bytes(noise(MIB, 1))
    time.sleep(0.03)
    monkeypatch.setattr(os, "link", link)
    for night in range(10):
        (nights.source / f"new{night}").write_text("x")
        nights.backup()
    monkeypatch.undo()
    inodes = [(folder / "f").stat().st_ino for folder in (*nights.folders(), nights.current)]
    known = ids(nights)
    one_inode = [known[at] for at, inode in enumerate(inodes) if inode == inodes[0]]
    assert 1 < len(one_inode) < len(known)
    assert MIB <= freed(nights, *one_inode).content < 2 * MIB
    assert freed(nights, *one_inode[1:]).content < MIB
    (nights.source / "f").unlink()
    nights.backup()
    count = len(set(inodes))
    assert count * MIB <= freed(nights, *known).content < (count + 1) * MIB


def test_a_folder_that_someone_removed(nights: Nights) -> None:
    (nights.source / "d").mkdir()
    (nights.source / "f").write_bytes(noise(MIB, 1))
    nights.backup()
    (nights.source / "f").write_bytes(noise(MIB, 2))  # no folder has changed
    nights.backup()
    folder = nights.folders()[0]
    taken = sum(path.stat().st_blocks * 512 for path in (folder, folder / "d"))
    assert freed(nights, ids(nights)[0]).folders == taken
    subprocess.run(["rm", "-rf", nights.folders()[0]], check=True)
    assert freed(nights, ids(nights)[0]) == Freed(0)


def test_files_that_someone_took_out_or_put_in(nights: Nights) -> None:
    (nights.source / "d").mkdir()
    (nights.source / "d" / "f").write_bytes(noise(MIB, 1))
    (nights.source / "g").write_bytes(noise(MIB, 1))
    nights.backup()
    for name in ("d/f", "g"):
        (nights.source / name).write_bytes(noise(MIB, 2))
    nights.backup()
    folder = nights.folders()[0]
    (folder / "d" / "f").unlink()
    (folder / "d").rmdir()
    (folder / "d").symlink_to("/")
    assert MIB <= freed(nights, ids(nights)[0]).content < 2 * MIB


def test_what_only_the_mirror_holds(nights: Nights) -> None:
    (nights.source / "f").write_bytes(noise(MIB, 1))
    nights.backup()
    with nights.history() as history:
        assert Space(history).exclusive(history.snapshots()[-1].id) >= MIB
    (nights.source / "g").write_bytes(noise(2 * MIB, 2))
    nights.backup()
    with nights.history() as history:
        first, mirror = history.snapshots()
        assert Space(history).exclusive(first.id) == 0
        assert 2 * MIB <= Space(history).exclusive(mirror.id) < 3 * MIB


def test_deletion_tells_what_it_frees(nights: Nights) -> None:
    for night in range(3):
        (nights.source / "f").write_bytes(noise(MIB, night))
        nights.backup()
    found = names(nights)
    known = sorted(found)
    with nights.history() as history:
        each = Space(history).one_by_one([[number] for number in known[:2]])
    assert [one.bytes for one in each] == [freed(nights, number).bytes for number in known[:2]]
    for one in each:
        assert one.bytes >= MIB
        assert one.folders in (0, 4096)


def test_compressed_files(tmp_path: Path, source: Path) -> None:
    """Of what is compressed no inode tells how little it takes."""
    require_root()
    with mounted("btrfs", tmp_path / "drive", options="compress-force=zstd") as drive:
        nights = Nights(source, drive / "backup")
        for night in range(3):
            (source / "f").write_bytes(noise(4096, night) * 4096)
            time.sleep(0.03)
            nights.backup()
        known = ids(nights)
        before = used(nights.repository)
        foretold = freed(nights, *known[:2])
        assert foretold.bytes < 4 * MIB
        nights.delete(names(nights)[known[0]], names(nights)[known[1]])
        assert abs(before - used(nights.repository) - foretold.bytes) <= METADATA
