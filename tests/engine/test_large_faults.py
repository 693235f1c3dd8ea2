"""Large files: faults that a review found."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filesystems import mounted, require_root
from runs import IMAGE as SIZE
from runs import PAGE, Heard, LargeNights, change_pages

from mirrorback.engine import contents, faults, open_large, read_back, room
from mirrorback.engine.backup import backup
from mirrorback.engine.backup_options import BackupOptions
from mirrorback.engine.delete import delete
from mirrorback.engine.open_version import open_version
from mirrorback.errors import MirrorbackError, NoSpace
from mirrorback.store import supersede


def test_at_the_limit_of_links(
    large: LargeNights, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The object has all links that the drive allows, and then the file changes."""
    link = os.link
    limit = 4

    def few(src: Any, dst: Any, *, src_dir_fd: int, dst_dir_fd: int, **rest: Any) -> None:
        if os.stat(src, dir_fd=src_dir_fd, follow_symlinks=False).st_nlink >= limit:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        link(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, **rest)

    monkeypatch.setattr(os, "link", few)
    for _ in range(limit):
        large.backup(always=True)
    assert image.name and (large.current / "d" / "image").stat().st_nlink == limit
    change_pages(image, 1)
    large.backup()
    assert large.problems() == []


def test_a_bad_sector_of_the_mirror_does_not_end_all_backups(
    large: LargeNights, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large.backup()
    change_pages(image, 1)
    mirrored = (large.current / "d" / "image").stat()
    pread = os.pread

    def bad(fd: int, size: int, offset: int) -> bytes:
        st = os.fstat(fd)
        if (st.st_dev, st.st_ino) == (mirrored.st_dev, mirrored.st_ino):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", bad)
    large.backup()
    monkeypatch.undo()
    assert (large.current / "d" / "image").read_bytes() == image.read_bytes()


def test_a_view_that_was_opened_before_the_threshold_fell(large: LargeNights, image: Path) -> None:
    large.backup(delta_min_size=SIZE * 2)
    old = image.read_bytes()
    with large.history() as history:  # as `mount` keeps it open
        snapshot = history.resolve(None)
        row = history.entry(b"d/image", snapshot)
        with contextlib.closing(open_version(history, row, snapshot)) as version:
            change_pages(image, 1)
            large.backup()
            assert version.pread(0, SIZE) == old


def test_a_chain_that_is_made_shorter_while_it_is_opened(
    large: LargeNights, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = []
    for night in range(4):
        change_pages(image, night)
        contents.append(image.read_bytes())
        large.backup()
    names = [folder.name for folder in large.folders()]
    opened = open_large.LargeVersion._open
    done = []

    def after_delete(self: Any, *rest: Any) -> Any:
        if not done:
            done.append(1)
            large.delete(names[1])
        return opened(self, *rest)

    monkeypatch.setattr(open_large.LargeVersion, "_open", after_delete)
    with large.history() as history:
        snapshot = history.resolve(names[0])
        row = history.entry(b"d/image", snapshot)
        with contextlib.closing(open_version(history, row, snapshot)) as version:
            assert version.pread(0, SIZE) == contents[0]


def test_a_good_copy_is_not_given_up_for_a_delta_over_a_bad_one(
    large: LargeNights, image: Path, tmp_path: Path
) -> None:
    """The mirror's file is an inode of its own (a repository copied without hard links), of
    the same size and time, but rotten; the dated folder's is good."""
    large.backup()
    large.backup(always=True)
    old = image.read_bytes()
    mirrored = large.current / "d" / "image"
    st = mirrored.stat()
    folder_time = mirrored.parent.stat()
    shutil.copy2(mirrored, tmp_path / "copy")
    with (tmp_path / "copy").open("r+b") as file:
        file.seek(PAGE * 3)
        file.write(b"\0" * 16)
    os.utime(tmp_path / "copy", ns=(st.st_atime_ns, st.st_mtime_ns))
    os.replace(tmp_path / "copy", mirrored)
    os.utime(mirrored.parent, ns=(folder_time.st_atime_ns, folder_time.st_mtime_ns))
    change_pages(image, 5)
    large.backup()
    large.restore(tmp_path / "out", at=large.folders()[0].name)
    assert (tmp_path / "out" / "d" / "image").read_bytes() == old


def test_two_snapshots_in_one_command(large: LargeNights, image: Path) -> None:
    """What goes as well need not be readable."""
    for night in range(4):
        change_pages(image, night)
        large.backup()
    folders = large.folders()
    rotten = folders[1] / "d" / "image.rdiff.zst"
    data = bytearray(rotten.read_bytes())
    data[60] ^= 0xFF
    rotten.write_bytes(data)
    large.delete(folders[1].name, folders[0].name)
    assert large.problems() == []


def test_a_damaged_version_does_not_keep_its_snapshot_for_ever(
    large: LargeNights, image: Path
) -> None:
    """Version 1 is lost already; snapshot 2 can go all the same."""
    for night in range(4):
        change_pages(image, night)
        large.backup()
    folders = large.folders()
    (folders[0] / "d" / "image.rdiff.zst").unlink()
    large.delete(folders[1].name)
    assert folders[1].name not in [folder.name for folder in large.folders()]


def test_a_folder_of_the_deltas_name(large: LargeNights, image: Path) -> None:
    """Someone has made one in a dated folder."""
    large.backup()
    (large.source / "other").write_bytes(b"1")
    large.backup()
    (large.folders()[0] / "d" / "image.rdiff.zst").mkdir()
    change_pages(image, 1)
    large.backup()
    change_pages(image, 2)
    large.backup()


@pytest.mark.parametrize("harm", ["symlink", "file", "gone"])
def test_a_dated_folder_that_someone_has_changed(
    large: LargeNights, image: Path, tmp_path: Path, harm: str
) -> None:
    large.backup()
    (large.source / "other").write_bytes(b"1")
    large.backup()
    there = large.folders()[0] / "d"
    shutil.move(there, tmp_path / "elsewhere")
    if harm == "symlink":
        there.symlink_to(tmp_path / "elsewhere")
    elif harm == "file":
        there.write_bytes(b"")
    change_pages(image, 1)
    large.backup()
    change_pages(image, 2)
    large.backup()
    assert (large.current / "d" / "image").read_bytes() == image.read_bytes()


@pytest.mark.parametrize("harm", ["symlink", "file", "directory"])
def test_a_dated_folder_that_is_something_else(
    large: LargeNights, image: Path, tmp_path: Path, harm: str
) -> None:
    large.backup()
    (large.source / "other").write_bytes(b"1")
    large.backup()
    there = large.folders()[0]
    shutil.move(there, tmp_path / "elsewhere")
    if harm == "symlink":
        there.symlink_to(tmp_path / "elsewhere")
    elif harm == "file":
        there.write_bytes(b"")
    else:
        there.mkdir()
    change_pages(image, 1)
    large.backup()
    change_pages(image, 2)
    large.backup()
    assert (large.current / "d" / "image").read_bytes() == image.read_bytes()


def test_a_name_that_the_drive_has_no_room_for(
    large: LargeNights, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """eCryptfs takes 143 bytes."""
    link = os.link

    def short(src: Any, dst: Any, **rest: Any) -> None:
        if len(dst) > 143:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        link(src, dst, **rest)

    monkeypatch.setattr(os, "link", short)
    path = source / ("n" * 138)
    path.write_bytes(random.Random(1).randbytes(SIZE))
    large.backup()
    change_pages(path, 1)
    large.backup()
    assert large.problems() == []


def unpatched(large: LargeNights, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nights, of which the second is cut after its commit, before the mirror is patched."""
    large.backup()
    change_pages(image, 1)

    def cut(*_all: Any) -> None:
        raise InterruptedError(errno.EINTR, "cut here")

    with monkeypatch.context() as patched:
        patched.setattr(supersede, "patch", cut)
        with pytest.raises(MirrorbackError):
            large.backup()


def test_restored_while_the_mirror_is_patched(
    large: LargeNights, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is read before it has its changes, its digest is looked at after it has them."""
    unpatched(large, image, monkeypatch)
    require = contents._require
    done = []

    def later(path: bytes, row: Any, digest: Any) -> None:
        if not done:
            done.append(1)
            large.backup()  # nothing is new: it ends what the one before has begun
        require(path, row, digest)

    monkeypatch.setattr(contents, "_require", later)
    large.restore(tmp_path / "out")
    assert (tmp_path / "out" / "d" / "image").read_bytes() == image.read_bytes()


def test_verified_while_the_mirror_is_patched(
    large: LargeNights, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpatched(large, image, monkeypatch)
    read = read_back.ReadBack._read_file
    done = []

    def slowly(self: Any, *rest: Any) -> Any:
        found = read(self, *rest)
        if not done:
            done.append(1)
            large.backup()
        return found

    monkeypatch.setattr(read_back.ReadBack, "_read_file", slowly)
    assert large.problems() == []


@pytest.mark.parametrize("harm", ["symlink", "directory", "fifo"])
def test_verify_goes_on_after_a_delta_that_is_something_else(
    large: LargeNights, image: Path, harm: str
) -> None:
    for night in range(4):
        change_pages(image, night)
        large.backup()
    bad = large.folders()[1] / "d" / "image.rdiff.zst"
    bad.unlink()
    if harm == "symlink":
        bad.symlink_to("/etc/passwd")
    elif harm == "fifo":
        os.mkfifo(bad)
    else:
        bad.mkdir()
    first, second = sorted(large.problems(), key=lambda problem: problem.snapshots)
    assert first.problem == faults.DEPENDS and second.location == os.fsencode(bad)


def test_verify_goes_on_after_a_bad_sector_under_a_delta(
    large: LargeNights, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large.backup()
    change_pages(image, 1)
    large.backup()
    mirrored = (large.current / "d" / "image").stat()
    pread = os.pread

    def bad(fd: int, size: int, offset: int) -> bytes:
        st = os.fstat(fd)
        if (st.st_dev, st.st_ino) == (mirrored.st_dev, mirrored.st_ino):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", bad)
    assert len(large.problems()) == 2


def test_the_drive_that_has_no_reflinks_is_told_at_once(large: LargeNights, image: Path) -> None:
    large.backup()
    with contextlib.suppress(MirrorbackError):
        large.backup(large_files="reflink", always=True)
    change_pages(image, 1)
    backup(str(large.source), str(large.repository), BackupOptions(), large.now, Heard())


@pytest.fixture
def tight(source: Path, tmp_path: Path) -> Iterator[LargeNights]:
    require_root()
    with mounted("ext4", tmp_path, size=200 << 20, make=("-m", "0")) as drive:
        yield LargeNights(source, drive / "repo")


def fill(nights: LargeNights, left: int) -> Path:
    """Leave so many bytes of the drive free."""
    path = nights.repository.parent / "filler"
    st = os.statvfs(path.parent)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, st.f_bavail * st.f_frsize - left)
    return path


def test_growth_that_no_longer_fits_when_the_mirror_is_patched(tight: LargeNights) -> None:
    """What is refused is refused before the commit, and snapshots can be deleted."""
    log = tight.source / "log"
    log.write_bytes(random.Random(1).randbytes(60 << 20))
    tight.backup()
    (tight.source / "other").write_bytes(b"1")
    tight.backup()
    with log.open("ab") as file:
        file.write(b"a line of a log, much like all the others\n" * ((14 << 20) // 42))
    fill(tight, 10 << 20)
    with pytest.raises(NoSpace):
        tight.backup()
    tight.delete(tight.folders()[0].name)
    assert len(tight.folders()) == 0  # and the night that did not fit has never been


def test_deleting_the_last_that_shows_a_file_hands_it_on(tight: LargeNights) -> None:
    log = tight.source / "log"
    log.write_bytes(random.Random(1).randbytes(60 << 20))
    (tight.source / "stays").write_bytes(b"1")
    tight.backup()
    change_pages(log, 1)
    tight.backup()
    log.unlink()
    tight.backup()
    filler = fill(tight, 20 << 20)
    name = tight.folders()[-1].name
    fates = delete(str(tight.repository), [name], dry_run=True, now=tight.now, events=Heard())
    assert fates[0].frees < 1 << 20, "the version before becomes whole: nothing is freed"
    with pytest.raises(NoSpace):
        tight.delete(name)
    filler.unlink()
    tight.delete(name)
    assert tight.problems() == []


def test_snapshots_can_be_removed_when_there_is_no_room_to_finish(
    tight: LargeNights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else has filled the drive between the commit and the changes."""
    log, gone = tight.source / "log", tight.source / "gone"
    log.write_bytes(random.Random(1).randbytes(60 << 20))
    gone.write_bytes(random.Random(2).randbytes(30 << 20))
    tight.backup()
    gone.unlink()
    tight.backup()
    with log.open("ab") as file:
        file.write(b"a line of a log, much like all the others\n" * ((14 << 20) // 42))
    fill(tight, 10 << 20)
    monkeypatch.setattr(room, "require_for_changes", lambda repo, tally: None)
    for _ in range(2):
        with pytest.raises(NoSpace):
            tight.backup()
    assert tight.problems() == []
    first = tight.folders()[0]
    tight.delete(first.name)
    assert not first.exists()
    assert (tight.current / "log").read_bytes() == log.read_bytes()
    assert tight.problems() == [] and tight.backup().summary.unchanged


def test_a_drive_without_holes_needs_no_room_for_a_whole_file(
    large: LargeNights, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NTFS and HFS+ may give a file that is made longer all its blocks."""
    large.backup()
    change_pages(image, 1)
    with image.open("ab") as file:
        file.write(b"more")
    redo = bytes(large.repository / ".mirrorback" / "redo") + b"/"
    ftruncate = os.ftruncate

    def without_holes(fd: int, length: int) -> None:
        if length > SIZE // 2 and os.readlink(b"/proc/self/fd/%d" % fd).startswith(redo):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        ftruncate(fd, length)

    monkeypatch.setattr(os, "ftruncate", without_holes)
    assert large.backup().summary.errors == 0
    assert list(large.folders()[0].glob("**/*.rdiff.zst"))
    assert large.problems() == []
