"""Snapshots go from a drive that is full to the last block, or has no inode left."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filesystems import mounted, require_root
from program import complaint, run
from runs import IMAGE, Heard, LargeNights, Nights, change_pages
from trees import describe, require_same, require_shown

from mirrorback.engine.prune import prune
from mirrorback.errors import NoSpace
from mirrorback.plan.retention import Policy
from mirrorback.plan.sizes import Room
from mirrorback.store.repository import RESERVE_BYTES, RESERVE_INODES

FILE = 300_000  # bytes that a night brings


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Path]:
    """A small ext4 without blocks for root only, and few inodes."""
    require_root()
    with mounted("ext4", tmp_path, size=96 << 20, make=("-m", "0", "-N", "1024")) as point:
        yield point


def history(nights: Nights, count: int = 6) -> list[str]:
    names = []
    for number in range(count):
        (nights.source / "f").write_bytes(random.Random(number).randbytes(FILE))
        (nights.source / f"new{number}").write_text("x")
        os.utime(nights.source / "f", ns=(number, number))
        names.append(nights.backup().summary.snapshot or "")
    return names


def fill_blocks(drive: Path) -> None:
    """Take the last block there is."""
    with (drive / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
        os.fsync(file.fileno())
    st = os.statvfs(drive)
    assert st.f_bavail == 0
    with pytest.raises(OSError), (drive / "more").open("wb", buffering=0) as file:
        file.write(b"x")
        os.fsync(file.fileno())
    with contextlib.suppress(FileNotFoundError):
        (drive / "more").unlink()


def fill_inodes(drive: Path) -> None:
    """Take the last inode there is."""
    (drive / "fillers").mkdir()
    with contextlib.suppress(OSError):
        for number in range(100_000):
            (drive / "fillers" / f"{number}").touch()
    assert os.statvfs(drive).f_ffree == 0
    with pytest.raises(OSError):
        (drive / "more").touch()


def fill_both(drive: Path) -> None:
    fill_inodes(drive)
    with (drive / "fillers" / "0").open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
        os.fsync(file.fileno())
    assert os.statvfs(drive).f_bavail == 0


FULL = [fill_blocks, fill_inodes, fill_both]


def reserve(nights: Nights) -> tuple[int, int]:
    """How many files and bytes are set aside."""
    folder = nights.repository / ".mirrorback" / "reserve"
    files = list(folder.iterdir()) if folder.exists() else []
    return len(files), sum(file.stat().st_size for file in files)


def make_room(drive: Path) -> None:
    if (drive / "filler").exists():
        (drive / "filler").unlink()
    for path in (drive / "fillers").glob("*"):
        path.unlink()


@pytest.mark.parametrize("full", FULL)
@pytest.mark.parametrize("command", ["prune", "delete"])
def test_snapshots_go(
    source: Path, drive: Path, command: str, full: Callable[[Path], None]
) -> None:
    nights = Nights(source, drive / "repo")
    names = history(nights)
    before = {name: describe(nights.repository / name) for name in names[:-1]}
    full(drive)
    if command == "prune":
        run("prune", nights.repository, "--keep-last", "2", env=None)
    else:
        run("delete", nights.repository, *names[:4])
    assert [folder.name for folder in nights.folders()] == names[4:5]
    require_same(before[names[4]], describe(nights.repository / names[4]))
    assert nights.problems() == []
    make_room(drive)
    (source / "f").write_text("goes on")
    nights.backup()
    assert reserve(nights) == (RESERVE_INODES, RESERVE_BYTES)
    assert nights.problems() == []


@pytest.mark.parametrize("full", FULL)
def test_again_and_again(source: Path, drive: Path, full: Callable[[Path], None]) -> None:
    """Each time somebody takes at once what was freed, so that no reserve can be set aside."""
    nights = Nights(source, drive / "repo")
    names = history(nights, 7)
    full(drive)
    for number in range(1, 6):
        run("delete", nights.repository, names[number - 1])
        assert names[number - 1] not in [folder.name for folder in nights.folders()]
        with contextlib.suppress(OSError), (drive / "another").open("ab", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        with contextlib.suppress(OSError):
            for more in range(10_000):
                (drive / f"also{number}-{more}").touch()
    assert [folder.name for folder in nights.folders()] == names[5:-1]
    assert nights.problems() == []


def test_a_reserve_of_which_there_was_room_for_a_part_grows_whole(
    source: Path, drive: Path
) -> None:
    nights = Nights(source, drive / "repo")
    names = history(nights)
    os.truncate(nights.repository / ".mirrorback" / "reserve" / "0", 100_001)
    nights.delete(names[0])
    assert reserve(nights) == (RESERVE_INODES, RESERVE_BYTES)


@pytest.mark.parametrize("place", ["trash/incoming-000001/f", "signatures/123"])
def test_a_reserve_that_was_lost_is_made_up_for(source: Path, drive: Path, place: str) -> None:
    """What interrupted runs have copied is spared, and so are signatures."""
    nights = Nights(source, drive / "repo")
    names = history(nights, 4)
    inner = nights.repository / ".mirrorback"
    (inner / place).parent.mkdir(exist_ok=True)
    (inner / place).write_bytes(b"x" * 500_000)
    if place.startswith("signatures"):  # of the mirror's file, or recovery would remove it
        with nights.history() as history_:
            number = history_.entry(b"f", history_.snapshots()[-1]).object
        (inner / place).rename(inner / "signatures" / f"{number}")
    for path in (inner / "reserve").iterdir():
        path.unlink()
    (inner / "reserve").rmdir()
    fill_blocks(drive)
    nights.prune(last=2)
    assert [folder.name for folder in nights.folders()] == names[2:3]
    assert not (inner / place).exists()
    make_room(drive)
    (source / "f").write_text("goes on")
    nights.backup()
    assert nights.problems() == []


@pytest.mark.parametrize("full", FULL)
def test_deltas_are_written_anew(
    source: Path, drive: Path, full: Callable[[Path], None], tmp_path: Path
) -> None:
    """Snapshots in the middle, on which the deltas of older ones depend."""
    large = LargeNights(source, drive / "repo")
    then = {}
    for number in range(6):
        if number == 0:
            (source / "image").write_bytes(random.Random(1).randbytes(IMAGE))
        else:
            change_pages(source / "image", number, 3)
        name = large.backup().summary.snapshot or ""
        then[name] = describe(source)
    names = sorted(then)
    full(drive)
    large.delete(names[1])
    large.delete(names[3], names[2])
    assert [folder.name for folder in large.folders()] == [names[0], names[4]]
    assert large.problems() == []
    for name in (names[0], names[4]):
        require_shown(then[name], describe(large.repository / name))
    assert not list((large.repository / ".mirrorback" / "redo").iterdir())
    large.restore(tmp_path / "back", at=names[0])
    require_same(then[names[0]], describe(tmp_path / "back"))
    make_room(drive)
    change_pages(source / "image", 77, 3)
    large.backup()
    assert large.problems() == []
    assert reserve(large) == (RESERVE_INODES, RESERVE_BYTES)


def one_that_needs_room(large: LargeNights) -> list[str]:
    """Four nights.  Of the second snapshot's removal the version before it, a delta so far, has
    to become whole; the third takes 30 MiB that nothing else needs."""
    log, bulk = large.source / "log", large.source / "bulk"
    log.write_bytes(random.Random(1).randbytes(16 << 20))
    (large.source / "stays").write_text("x")
    names = [large.backup().summary.snapshot or ""]
    change_pages(log, 1)
    names.append(large.backup().summary.snapshot or "")
    log.unlink()
    bulk.write_bytes(random.Random(2).randbytes(30 << 20))
    names.append(large.backup(delta_min_size=64 << 20).summary.snapshot or "")
    bulk.unlink()
    names.append(large.backup().summary.snapshot or "")
    return names


def test_what_needs_room_goes_when_others_have_made_it(source: Path, drive: Path) -> None:
    """From a full drive the second snapshot cannot go.  When the third has gone, it can."""
    large = LargeNights(source, drive / "repo")
    names = one_that_needs_room(large)
    fill_blocks(drive)
    with pytest.raises(NoSpace, match=names[1]):
        large.delete(names[1])
    assert [folder.name for folder in large.folders()] == names[:3]
    assert large.problems() == []
    large.delete(names[1], names[2])
    assert [folder.name for folder in large.folders()] == names[:1]
    assert large.problems() == []


@pytest.mark.parametrize(("wanted", "left"), [(20 << 20, 2), (50 << 20, 1)])
def test_room_is_had_from_a_newer_one_where_the_oldest_needs_some(
    source: Path, drive: Path, wanted: int, left: int
) -> None:
    large = LargeNights(source, drive / "repo")
    names = one_that_needs_room(large)
    run("pin", large.repository, names[0])
    fill_blocks(drive)
    run("prune", large.repository, "--min-free", f"{wanted}", code=0 if left == 2 else 12)
    assert [folder.name for folder in large.folders()] == names[:left]
    assert large.problems() == []


def test_what_was_cut_short_is_finished_on_a_full_drive(
    source: Path, drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mirrorback.store import record

    nights = Nights(source, drive / "repo")
    names = history(nights)

    def killed(*_rest: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(record, "deleted", killed)
        with pytest.raises(KeyboardInterrupt):
            nights.delete(names[1])
    fill_both(drive)
    run("prune", nights.repository, "--keep-last", "4")
    assert [folder.name for folder in nights.folders()] == names[2:-1]
    assert nights.problems() == []


def test_enough_is_freed_and_measured(source: Path, drive: Path) -> None:
    nights = Nights(source, drive / "repo")
    names = history(nights, 10)
    fill_blocks(drive)
    wanted = int(2.5 * FILE)
    thinned = prune(
        str(nights.repository),
        Policy(min_free=Room(bytes=wanted)),
        dry_run=False,
        now=nights.now,
        events=Heard(),
    )
    assert wanted <= thinned.free
    assert 2 <= len(thinned.removed) <= 4  # folders count as well
    assert [fate.name for fate in thinned.removed] == names[: len(thinned.removed)]
    assert all(FILE <= fate.frees <= FILE + 50_000 for fate in thinned.removed)


def test_what_cannot_be_freed_is_twelve_when_all_that_may_go_has(source: Path, drive: Path) -> None:
    nights = Nights(source, drive / "repo")
    names = history(nights)
    fill_blocks(drive)
    done = run("prune", nights.repository, "--min-free", "50M", "--json", code=12)
    assert [(f["name"], f["keep"]) for f in done.json] == [(n, n == names[-1]) for n in names]
    [line] = done.err.splitlines()
    assert "--min-free" in line and f"{50 << 20:,}" in line
    assert nights.folders() == [] and nights.problems() == []


def test_a_backup_thins_on_a_full_drive(source: Path, drive: Path) -> None:
    """With --min-free the oldest go, and the backup is made; without, nothing is copied."""
    nights = Nights(source, drive / "repo")
    for number in range(6):
        (source / "f").write_bytes(random.Random(number).randbytes(8 << 20))
        nights.backup()
    fill_blocks(drive)
    (source / "f").write_bytes(random.Random(99).randbytes(8 << 20))
    folders = nights.folders()
    complaint("backup", source, nights.repository, code=12)
    assert nights.folders() == folders
    assert not (nights.repository / ".mirrorback" / "incoming").exists()
    done = run("backup", source, nights.repository, "--min-free", "1M", "--json")
    removed = done.summary["snapshots_removed"]
    assert 2 <= len(removed) <= 4
    assert removed == [folder.name for folder in folders[: len(removed)]]
    assert (nights.current / "f").read_bytes() == (source / "f").read_bytes()
    assert nights.problems() == []
