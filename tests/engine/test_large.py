"""Large files: in place, by reflink, as deltas; and history all the same."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filesystems import mounted, require_root
from runs import IMAGE as SIZE
from runs import LARGE, PAGE, LargeNights, Nights, change_pages
from trees import Tree, describe, require_same, require_shown

from mirrorback.engine import revision
from mirrorback.engine.history import History
from mirrorback.engine.open_version import OpenVersion, open_version
from mirrorback.errors import Damaged, DriveError, UsageError
from mirrorback.store import patch, supersede, system
from mirrorback.store.delta_reader import DeltaReader


def require_history(nights: Nights, then: list[Tree], scratch: Path) -> None:
    """Folders, restores and `verify` agree with what the source was."""
    folders = [*nights.folders(), nights.current]
    for folder, wanted in zip(folders, then, strict=True):
        require_shown(wanted, describe(folder))
        name = folder.name if folder != nights.current else None
        nights.restore(scratch / folder.name, at=name)
        require_same(wanted, describe(scratch / folder.name))
        subprocess.run(["rm", "-rf", scratch / folder.name], check=True)
    assert nights.problems() == []
    inner = nights.repository / ".mirrorback"
    assert list((inner / "redo").iterdir()) == []


def inode(path: Path) -> int:
    return path.stat().st_ino


def by_hand(delta: Path, newer: Path, out: Path) -> bytes:
    """What stock tools make of a delta."""
    script = 'zstd -dcq "$1" | rdiff patch "$2" - "$3"'
    subprocess.run(["sh", "-c", script, "sh", delta, newer, out], check=True)
    return out.read_bytes()


def test_changed_in_place(large: LargeNights, image: Path, tmp_path: Path) -> None:
    then, before = [], []
    large.backup()
    mirrored = inode(large.current / "d" / "image")
    for night in range(5):
        then.append(describe(large.source))
        before.append(image.read_bytes())
        change_pages(image, night)
        result = large.backup()
        assert result.summary.files_changed == 1
        assert result.summary.bytes_written < 12 * 3 * PAGE
        assert inode(large.current / "d" / "image") == mirrored
    then.append(describe(large.source))
    require_history(large, then, tmp_path)
    newer = large.current / "d" / "image"
    for number, folder in reversed(list(enumerate(large.folders()))):
        delta = folder / "d" / "image.rdiff.zst"
        assert delta.stat().st_size < 11 * PAGE
        newer_content = by_hand(delta, newer, tmp_path / f"out{number}")
        assert newer_content == before[number]
        newer = tmp_path / f"out{number}"


@pytest.mark.parametrize("size", [SIZE // 2, SIZE - 1, SIZE + 1, SIZE + SIZE // 8])
def test_grown_or_shrunk(large: LargeNights, image: Path, tmp_path: Path, size: int) -> None:
    large.backup()
    then = [describe(large.source)]
    old = image.read_bytes()
    image.write_bytes((old + random.Random(2).randbytes(SIZE))[:size])
    large.backup()
    then.append(describe(large.source))
    require_history(large, then, tmp_path)


def test_changing_while_it_is_read(
    large: LargeNights, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read three times, then kept as it was last read: the mirror has what its digest says."""
    large.backup()
    old = describe(large.source)
    change_pages(image, 1)
    real, rounds = revision.revise, [0]

    def busy(*rest: Any, **more: Any) -> Any:
        digest = real(*rest, **more)
        rounds[0] += 1
        change_pages(image, 50 + rounds[0], 1)
        if rounds[0] == 2:
            os.truncate(image, SIZE - 100)
        return digest

    monkeypatch.setattr(revision, "revise", busy)
    large.backup()
    assert rounds == [3]
    assert any("changed each time" in text for text, _path in large.heard.warnings)
    assert large.problems() == []
    monkeypatch.undo()
    large.backup()
    require_same(describe(large.source), describe(large.current))
    require_shown(old, describe(large.folders()[0]))
    assert large.problems() == []


def test_metadata_alone_costs_a_few_bytes(large: LargeNights, image: Path, tmp_path: Path) -> None:
    os.setxattr(image, "user.one", b"1")
    large.backup()
    mirrored = inode(large.current / "d" / "image")
    then = [describe(large.source)]
    image.chmod(0o640)
    os.setxattr(image, "user.two", b"2")
    os.removexattr(image, "user.one")
    result = large.backup()
    then.append(describe(large.source))
    assert result.summary.files_metadata == 1 and result.summary.bytes_written < 2000
    assert inode(large.current / "d" / "image") == mirrored
    require_history(large, then, tmp_path)


def test_an_insertion_in_front(large: LargeNights, image: Path, tmp_path: Path) -> None:
    large.backup()
    then = [describe(large.source)]
    old = image.read_bytes()
    image.write_bytes(random.Random(3).randbytes(5000) + old + b"more")
    large.backup()
    then.append(describe(large.source))
    [folder] = large.folders()
    assert (folder / "d" / "image.rdiff.zst").stat().st_size < SIZE // 20
    require_history(large, then, tmp_path)


def test_changed_all_over_stays_whole(large: LargeNights, image: Path, tmp_path: Path) -> None:
    large.backup()
    then = [describe(large.source)]
    image.write_bytes(random.Random(4).randbytes(SIZE))
    large.backup()
    then.append(describe(large.source))
    [folder] = large.folders()
    assert (folder / "d" / "image").exists()
    require_history(large, then, tmp_path)


def test_moved_and_changed_in_one_night(large: LargeNights, image: Path, tmp_path: Path) -> None:
    large.backup()
    mirrored = inode(large.current / "d" / "image")
    then = [describe(large.source)]
    change_pages(image, 5)
    image.rename(large.source / "moved")
    assert large.backup().summary.files_moved == 1
    then.append(describe(large.source))
    assert inode(large.current / "moved") == mirrored
    require_history(large, then, tmp_path)


def test_replaced_by_another_inode(large: LargeNights, image: Path, tmp_path: Path) -> None:
    large.backup()
    then = [describe(large.source)]
    content = bytearray(image.read_bytes())
    content[PAGE : 2 * PAGE] = bytes(PAGE)
    (image.parent / "new").write_bytes(content)
    (image.parent / "new").rename(image)
    assert large.backup().summary.bytes_written < 5 * PAGE
    then.append(describe(large.source))
    require_history(large, then, tmp_path)


def test_a_link_of_someone_keeps_what_it_shows(
    large: LargeNights, image: Path, tmp_path: Path
) -> None:
    large.backup()
    then = [describe(large.source)]
    old = image.read_bytes()
    os.link(large.current / "d" / "image", tmp_path / "mine")
    change_pages(image, 6)
    large.backup()
    then.append(describe(large.source))
    assert (tmp_path / "mine").read_bytes() == old
    require_history(large, then, tmp_path)


def test_an_edited_mirror_is_no_base(large: LargeNights, image: Path, tmp_path: Path) -> None:
    large.backup()
    mirrored = large.current / "d" / "image"
    change_pages(mirrored, 7)
    edited = mirrored.read_bytes()
    change_pages(image, 8)
    large.backup()
    assert any("altered on the drive" in text for text, _path in large.heard.warnings)
    [folder] = large.folders()
    assert (folder / "d" / "image").read_bytes() == edited
    assert mirrored.read_bytes() == image.read_bytes()


def test_a_rotten_block_is_no_base(large: LargeNights, image: Path) -> None:
    """An edit that kept its times is seen where it meets a change."""
    large.backup()
    mirrored = large.current / "d" / "image"
    times = mirrored.stat()
    with mirrored.open("r+b") as file:
        file.seek(100)
        file.write(b"rot")
    os.utime(mirrored, ns=(times.st_atime_ns, times.st_mtime_ns))
    with image.open("r+b") as file:
        file.write(b"changed")
    large.backup()
    assert any("altered on the drive" in text for text, _path in large.heard.warnings)
    assert mirrored.read_bytes() == image.read_bytes()
    [problem] = large.problems()
    assert problem.snapshots == (large.folders()[0].name,)


@pytest.mark.parametrize("harm", ["lost", "cut", "flipped", "of another"])
def test_without_its_signature(large: LargeNights, image: Path, tmp_path: Path, harm: str) -> None:
    large.backup()
    then = [describe(large.source)]
    [signature] = (large.repository / ".mirrorback" / "signatures").iterdir()
    content = bytearray(signature.read_bytes())
    if harm == "lost":
        signature.unlink()
    else:
        if harm == "cut":
            del content[-1]
        elif harm == "flipped":
            content[100] ^= 1
        else:
            content[24] ^= 1
        signature.write_bytes(content)
    change_pages(image, 9)
    assert large.backup().summary.bytes_written < 12 * 3 * PAGE
    then.append(describe(large.source))
    require_history(large, then, tmp_path)


def test_no_room_for_the_suffix(large: LargeNights, source: Path, tmp_path: Path) -> None:
    image = source / ("n" * 250)
    image.write_bytes(random.Random(1).randbytes(SIZE))
    large.backup()
    then = [describe(source)]
    change_pages(image, 10)
    large.backup()
    then.append(describe(source))
    assert (large.folders()[0] / image.name).exists()
    require_history(large, then, tmp_path)


def test_a_file_of_the_deltas_name(large: LargeNights, image: Path, tmp_path: Path) -> None:
    (image.parent / "image.rdiff.zst").write_text("mine")
    large.backup()
    then = [describe(large.source)]
    change_pages(image, 11)
    large.backup()
    then.append(describe(large.source))
    assert (large.folders()[0] / "d" / "image.rdiff.zst").read_text() == "mine"
    require_history(large, then, tmp_path)


def test_below_the_threshold_and_back(large: LargeNights, image: Path, tmp_path: Path) -> None:
    then = []
    contents = [SIZE, LARGE - 1, SIZE, LARGE, LARGE - 1]
    for number, size in enumerate(contents):
        image.write_bytes(random.Random(12).randbytes(size) if number % 2 else os.urandom(size))
        large.backup()
        then.append(describe(large.source))
    image.unlink()
    image.mkdir()
    large.backup()
    then.append(describe(large.source))
    require_history(large, then, tmp_path)


def test_hard_linked_twice(large: LargeNights, image: Path, tmp_path: Path) -> None:
    large.backup()
    then = [describe(large.source)]
    other = large.source / "other"
    os.link(image, other)
    change_pages(image, 13)
    large.backup()
    then.append(describe(large.source))
    change_pages(image, 14)
    large.backup()
    then.append(describe(large.source))
    other.unlink()
    change_pages(image, 15)
    large.backup()
    then.append(describe(large.source))
    require_history(large, then, tmp_path)


def test_removed_keeps_its_last_version_whole(
    large: LargeNights, image: Path, tmp_path: Path
) -> None:
    large.backup()
    then = [describe(large.source)]
    change_pages(image, 16)
    large.backup()
    then.append(describe(large.source))
    image.unlink()
    large.backup()
    then.append(describe(large.source))
    first, second = large.folders()
    assert (first / "d" / "image.rdiff.zst").exists() and (second / "d" / "image").exists()
    require_history(large, then, tmp_path)


def test_holes_stay(large: LargeNights, source: Path, tmp_path: Path) -> None:
    image = source / "sparse"
    with image.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"x" * PAGE)
    large.backup()
    then = [describe(source)]
    with image.open("r+b") as file:
        file.seek(1 << 28)
        file.write(b"y" * PAGE)
        file.seek(1 << 29)
        file.write(bytes(PAGE))
        file.truncate((1 << 30) + 5)
    large.backup()
    then.append(describe(source))
    assert (large.current / "sparse").stat().st_blocks * 512 < 1 << 20
    require_history(large, then, tmp_path)
    large.restore(tmp_path / "back", at=large.folders()[0].name)
    assert (tmp_path / "back" / "sparse").stat().st_blocks * 512 < 1 << 22


@pytest.mark.parametrize("seed", range(3))
def test_deleting_in_any_order(large: LargeNights, image: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    then = []
    for night in range(7):
        change_pages(image, chance.randrange(1000))
        if night == 3:
            image.write_bytes(os.urandom(SIZE))  # the one before stays whole
        large.backup()
        then.append(describe(large.source))
    while folders := large.folders():
        number = chance.randrange(len(folders))
        large.delete(folders[number].name)
        del then[number]
        require_history(large, then, tmp_path)


def test_a_chain_ends_somewhere(
    large: LargeNights, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirrorback.plan.large.LONGEST_CHAIN", 3)
    then = []
    for night in range(9):
        change_pages(image, night)
        large.backup()
        then.append(describe(large.source))
    whole = [(folder / "d" / "image").exists() for folder in large.folders()]
    assert whole == [False] * 3 + [True] + [False] * 3 + [True]
    require_history(large, then, tmp_path)


@pytest.fixture(params=["xfs", "btrfs"])
def sharing(request: pytest.FixtureRequest, source: Path, tmp_path: Path) -> Iterator[LargeNights]:
    require_root()
    with mounted(request.param, tmp_path / "image") as drive:
        nights = LargeNights(source, drive / "repository")
        nights.form = "auto"
        yield nights


def test_reflinks_share_what_is_the_same(sharing: LargeNights, image: Path, tmp_path: Path) -> None:
    image.write_bytes(random.Random(1).randbytes(40 << 20))
    sharing.backup()
    then = [describe(sharing.source)]
    free = os.statvfs(sharing.repository).f_bavail * os.statvfs(sharing.repository).f_frsize
    for night in range(4):
        change_pages(image, night)
        sharing.backup()
        then.append(describe(sharing.source))
    os.sync()
    now = os.statvfs(sharing.repository).f_bavail * os.statvfs(sharing.repository).f_frsize
    assert free - now < 20 << 20
    assert all((folder / "d" / "image").exists() for folder in sharing.folders())
    require_history(sharing, then, tmp_path)
    sharing.delete(sharing.folders()[1].name)
    del then[1]
    require_history(sharing, then, tmp_path)


def room(folder: Path) -> int:
    os.sync()
    st = os.statvfs(folder)
    return st.f_bavail * st.f_frsize


@pytest.mark.parametrize("inserted", [256 * PAGE, 5000])
def test_what_moved_by_whole_blocks_is_shared(
    sharing: LargeNights, image: Path, tmp_path: Path, inserted: int
) -> None:
    old = random.Random(1).randbytes(40 << 20)
    image.write_bytes(old)
    os.setxattr(image, "user.one", b"1")
    image.chmod(0o4711)
    sharing.backup()
    then = [describe(sharing.source)]
    free = room(sharing.repository)
    with image.open("r+b") as file:
        file.write(random.Random(2).randbytes(inserted) + old)
    image.chmod(0o4711)
    sharing.backup()
    then.append(describe(sharing.source))
    used = free - room(sharing.repository)
    assert used < 12 << 20 if inserted % PAGE == 0 else used > 30 << 20
    require_history(sharing, then, tmp_path)
    change_pages(image, 3)
    sharing.backup()
    then.append(describe(sharing.source))
    require_history(sharing, then, tmp_path)


def test_files_that_are_cloned_by_name(
    large: LargeNights, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS: a clone is a new file, with mode and attributes of what it came from."""
    made = []

    def clone_new(fd: int, folder: int, name: bytes) -> bool:
        path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(name))
        script = 'test ! -e "$2" && cp -p --no-preserve=ownership "$1" "$2"'
        subprocess.run(["sh", "-c", script, "sh", f"/proc/{os.getpid()}/fd/{fd}", path], check=True)
        made.append(path)
        return True

    monkeypatch.setattr(system, "CLONES_BY_NAME", True)
    monkeypatch.setattr(system, "clone_new", clone_new)
    image.chmod(0o400)
    large.form = "reflink"
    large.backup()
    then = [describe(large.source)]
    for night in range(3):
        change_pages(image, night)
        large.backup()
        then.append(describe(large.source))
    assert len(made) >= 3
    assert all((folder / "d" / "image").exists() for folder in large.folders())
    require_history(large, then, tmp_path)


def test_reflinks_where_there_are_none(large: LargeNights, image: Path) -> None:
    large.backup()
    change_pages(image, 1)
    with pytest.raises(UsageError, match="no reflinks"):
        large.backup(large_files="reflink")


# --- reading while it changes, and after trouble ------------------------------------------------


def opened(nights: Nights, history: History, at: str | None = None) -> OpenVersion:
    """The image as one snapshot shows it."""
    path, snapshot = history.find_path(b"d/image", at)
    return open_version(history, history.entry(path, snapshot), snapshot)


def test_a_reader_goes_on_while_the_file_changes(large: LargeNights, image: Path) -> None:
    large.backup()
    old = image.read_bytes()
    with large.history() as history, contextlib.closing(opened(large, history)) as version:
        read = version.pread(0, SIZE // 4)
        for night in range(3):
            change_pages(image, night, 100)
            large.backup()
            at = len(read)
            read += version.pread(at, SIZE // 4)
        assert read == old


def test_a_reader_goes_on_when_its_snapshot_goes(large: LargeNights, image: Path) -> None:
    versions = []
    for night in range(4):
        change_pages(image, night)
        large.backup()
        versions.append(image.read_bytes())
    name = large.folders()[1].name
    with large.history() as history, contextlib.closing(opened(large, history, name)) as version:
        large.delete(name)
        change_pages(image, 99)
        large.backup()
        assert version.pread(0, SIZE) == versions[1]


@pytest.mark.parametrize("step", ["give", "patch"])
def test_a_drive_that_went_before_the_end(
    large: LargeNights,
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    """The commit was made, the mirror's file has half of its changes: all is readable."""
    large.backup()
    then = [describe(large.source)]
    change_pages(image, 1)
    large.backup()
    then.append(describe(large.source))
    change_pages(image, 2, 50)
    with image.open("ab") as file:
        file.write(bytes(5) + b"longer")
    then.append(describe(large.source))

    def half(redo: DeltaReader, fd: int) -> None:
        change_pages(image_of(fd), 2, 25)
        os.ftruncate(fd, SIZE + 3)
        raise OSError(errno.EIO, "gone")

    def gone(*_rest: object) -> None:
        raise OSError(errno.EIO, "gone")

    with monkeypatch.context() as patched:
        if step == "give":
            patched.setattr(supersede, "give", gone)
        else:
            patched.setattr(patch, "apply", half)
        with pytest.raises(DriveError):
            large.backup()
    names = [snapshot.name for snapshot in large.history().snapshots()]
    assert large.problems() == []
    for name, wanted in zip(names, then, strict=True):
        large.restore(tmp_path / name, at=name)
        require_same(wanted, describe(tmp_path / name))
        subprocess.run(["rm", "-rf", tmp_path / name], check=True)
    assert large.backup().summary.unchanged
    require_history(large, then, tmp_path)


def image_of(fd: int) -> Path:
    return Path(f"/proc/self/fd/{fd}")


@pytest.mark.parametrize("harm", ["lost", "cut", "flipped", "a link", "of another"])
def test_verify_finds_a_damaged_delta(
    large: LargeNights, image: Path, harm: str, tmp_path: Path
) -> None:
    for night in range(3):
        change_pages(image, night)
        large.backup()
    first, second = [folder / "d" / "image.rdiff.zst" for folder in large.folders()]
    content = bytearray(first.read_bytes())
    if harm == "cut":
        os.truncate(first, len(content) - 1)
    elif harm == "flipped":
        content[len(content) // 3] ^= 4
        first.write_bytes(content)
    else:
        first.unlink()
    if harm == "a link":
        first.symlink_to(second)
    elif harm == "of another":
        first.write_bytes(second.read_bytes())
    [problem] = large.problems()
    assert problem.path == b"d/image" and problem.location == os.fsencode(first)
    assert problem.snapshots == (large.folders()[0].name,)
    with pytest.raises((Damaged, DriveError)):
        large.restore(tmp_path / "back", b"d/image", at=large.folders()[0].name)
    large.restore(tmp_path / "other", b"d/image", at=large.folders()[1].name)


def test_a_delta_is_not_lost_with_what_it_needs(
    large: LargeNights, image: Path, tmp_path: Path
) -> None:
    """A snapshot that deltas need stays, where it cannot be read."""
    for night in range(4):
        change_pages(image, night)
        large.backup()
    victim = large.folders()[1]
    (victim / "d" / "image.rdiff.zst").write_bytes(b"rotten")
    with pytest.raises(Damaged):
        large.delete(victim.name)
    assert victim.exists() and len(large.folders()) == 3
    assert not any((large.repository / ".mirrorback" / "redo").iterdir())


def test_a_repository_that_was_copied(large: LargeNights, image: Path, tmp_path: Path) -> None:
    then = []
    for night in range(3):
        change_pages(image, night)
        large.backup()
        then.append(describe(large.source))
    copy = tmp_path / "copied"
    subprocess.run(["cp", "-a", large.repository, copy], check=True)
    subprocess.run(["rm", "-rf", large.repository], check=True)
    copy.rename(large.repository)
    change_pages(image, 9)
    assert large.backup().summary.bytes_written < 12 * 3 * PAGE
    then.append(describe(large.source))
    require_history(large, then, tmp_path)


def test_killed_and_changed_again(large: LargeNights, image: Path, tmp_path: Path) -> None:
    """What an interrupted run has linked does not make the next one copy."""
    large.backup()
    then = [describe(large.source)]
    change_pages(image, 1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("mirrorback.store.record.snapshot", gone_away)
        with pytest.raises(DriveError):
            large.backup()
    mirrored = inode(large.current / "d" / "image")
    change_pages(image, 2)
    large.backup()
    then.append(describe(large.source))
    assert inode(large.current / "d" / "image") == mirrored
    require_history(large, then, tmp_path)


def gone_away(*_rest: object, **_more: object) -> None:
    raise OSError(errno.EIO, "gone")


def test_ordinary_nights_load_no_numpy(source: Path, tmp_path: Path) -> None:
    (source / "f").write_text("x")
    code = (
        "import sys; from mirrorback.cli.app import main\n"
        "for words in sys.argv[1].split(';'):\n"
        "    sys.argv = ['mirrorback', *words.split()]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code, words\n"
        "assert not {'numpy', 'zstandard', 'pyfastcdc', 'mfusepy'} & set(sys.modules)"
    )
    drive = tmp_path / "drive"
    words = f"backup --init {source} {drive};backup --always {source} {drive};"
    words += f"snapshots {drive};verify {drive};restore {drive} --to {tmp_path / 'back'};"
    words += f"versions {drive} f;cat {drive} f"
    subprocess.run([sys.executable, "-c", code, words], check=True)
