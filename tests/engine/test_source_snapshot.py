"""Backups of a read-only snapshot of the source, on a real btrfs."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from filesystems import mounted, require_root
from mounts import let_others_in, wait_for
from program import NOBODY, complaint, environment, run
from runs import Nights

from mirrorback.engine import backup as engine
from mirrorback.engine import freezing
from mirrorback.errors import NoSpace, Refused, SourceError
from mirrorback.plan import compare
from mirrorback.plan.retention import Policy
from mirrorback.store import frozen, subvolume

FOLDER = ".mirrorback-snapshots"
BTRFS = "--source-snapshot=btrfs"


@pytest.fixture(scope="module")
def btrfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A btrfs of its own."""
    require_root()
    with mounted("btrfs", tmp_path_factory.mktemp("frozen"), options="noatime") as point:
        yield point


@pytest.fixture
def home(btrfs: Path, request: pytest.FixtureRequest) -> Path:
    """A subvolume with some files, a moment old."""
    top = btrfs / f"home-{os.urandom(4).hex()}"
    make_subvolume(top)
    for name in ("a", "d/b", "d/e/c"):
        (top / "alice" / name).parent.mkdir(parents=True, exist_ok=True)
        (top / "alice" / name).write_text("first " + name)
    os.link(top / "alice" / "a", top / "alice" / "d" / "linked")
    time.sleep(0.05)
    return top


@pytest.fixture
def frozen_nights(home: Path, repository: Path) -> Nights:
    """Backups of a folder in the subvolume."""
    return Nights(home / "alice", repository)


def make_subvolume(path: Path) -> None:
    subprocess.run(["btrfs", "subvolume", "create", "-q", path], check=False, capture_output=True)
    if not path.exists():  # older ones have no -q
        subprocess.run(["btrfs", "subvolume", "create", path], check=True, capture_output=True)


def snapshots_in(top: Path) -> list[str]:
    return os.listdir(top / FOLDER)


def record_of(repository: Path) -> Path:
    return repository / ".mirrorback" / "source-snapshots"


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_what_is_backed_up_is_the_source_at_one_moment(
    home: Path, frozen_nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(home / "alice")
    looked = engine._Run._look

    def look(run: Any, *rest: Any) -> Any:
        assert len(snapshots_in(home)) == 1
        (home / "alice" / "a").write_text("changed while the backup runs")
        (home / "alice" / "d" / "new").write_text("made while the backup runs")
        (home / "alice" / "d" / "e" / "c").unlink()
        return looked(run, *rest)

    monkeypatch.setattr(engine._Run, "_look", look)
    result = frozen_nights.backup(source_snapshot="btrfs")
    assert result.summary.errors == 0
    assert content(frozen_nights.current) == before
    assert snapshots_in(home) == []
    assert not record_of(frozen_nights.repository).exists()
    with frozen_nights.history() as history:
        assert history.repo.settings.source == bytes(home / "alice")
    monkeypatch.undo()
    summary = frozen_nights.backup(source_snapshot="btrfs").summary
    assert (summary.files_changed, summary.files_new, summary.files_removed) == (
        2,
        1,
        1,
    )  # a has two names


@pytest.mark.parametrize("below", ["", "alice"])
def test_nights_with_and_without_a_snapshot_see_the_same(
    home: Path, repository: Path, below: str
) -> None:
    nights = Nights(home / below, repository)
    nights.backup()
    times = [os.stat(path).st_mtime_ns for path in (home / "alice", home / "alice" / "d")]
    first = nights.backup(source_snapshot="btrfs").summary
    # The folder of the snapshots is new in the subvolume's root: its times are.
    assert first.unchanged or not below
    for freeze in ("btrfs", "btrfs", None, "btrfs"):
        time.sleep(0.05)
        summary = nights.backup(source_snapshot=freeze).summary
        assert summary.unchanged, (freeze, summary)
        assert summary.files_unmodified == 4
    assert [os.stat(p).st_mtime_ns for p in (home / "alice", home / "alice" / "d")] == times
    assert FOLDER not in os.listdir(nights.current)


def test_a_move_is_a_move_though_the_device_is_another(home: Path, frozen_nights: Nights) -> None:
    frozen_nights.backup(source_snapshot="btrfs")
    (home / "alice" / "d").rename(home / "alice" / "moved")
    (home / "alice" / "moved" / "another").hardlink_to(home / "alice" / "a")
    summary = frozen_nights.backup(source_snapshot="btrfs").summary
    assert (summary.files_moved, summary.bytes_copied) == (3, 0)
    current = frozen_nights.current
    assert len({(current / n).stat().st_ino for n in ("a", "moved/linked", "moved/another")}) == 1


def test_what_changed_in_the_very_moment_is_read_again(
    home: Path, frozen_nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file written just before the snapshot and again just after it, within one tick of the
    clock, shows the same times in both states."""
    path = home / "alice" / "d" / "b"
    made = subvolume.snapshot
    tick = 0

    def snapshot(*rest: Any) -> None:
        path.write_text("1")
        nonlocal tick
        tick = path.stat().st_ctime_ns
        made(*rest)
        time.sleep(0.05)  # long enough for a file that is read now to count as settled

    monkeypatch.setattr(subvolume, "snapshot", snapshot)
    frozen_nights.backup(source_snapshot="btrfs")
    monkeypatch.undo()
    with frozen_nights.history() as history:
        row = history.catalog.db.execute(
            "SELECT o.ctime FROM entry e JOIN object o ON o.id = e.object WHERE e.name = ?", (b"b",)
        ).fetchone()
        assert row[0] == -1  # not believed the next time
        other = history.catalog.db.execute(
            "SELECT o.ctime FROM entry e JOIN object o ON o.id = e.object WHERE e.name = ?", (b"c",)
        ).fetchone()
        assert other[0] == (home / "alice" / "d" / "e" / "c").stat().st_ctime_ns
    assert tick
    assert frozen_nights.backup(source_snapshot="btrfs").summary.unchanged


def test_a_snapshot_taken_over_some_time_settles_nothing_from_within_it() -> None:
    tick = compare.TICK
    at, since = 10 * tick + 1, 5 * tick + 1
    assert not compare.settled(7 * tick, 0, at, since)
    assert not compare.settled(0, 4 * tick + 2, at, since)
    assert compare.settled(3 * tick, 4 * tick, at, since)
    assert compare.settled(7 * tick, 3 * tick, at)


# --- what a snapshot does not hold ---------------------------------------------------------


def test_a_nested_subvolume_is_refused_or_left_out(home: Path, repository: Path) -> None:
    for name in ("nested", "other"):
        make_subvolume(home / "alice" / name)
        (home / "alice" / name / "precious").write_text("not in the snapshot")
    source = home / "alice"
    run("init", repository, "--source", source)
    said = complaint("backup", source, repository, BTRFS, code=5)
    assert "nested, other" in said and "--exclude" in said and "--one-file-system" in said
    assert "nested, other" in complaint("backup", source, repository, BTRFS, "-n", code=5)
    assert snapshots_in(home) == []
    assert "another subvolume or file system: other;" in complaint(
        "backup", source, repository, BTRFS, "--exclude=/nested", code=5
    )
    run("backup", source, repository, BTRFS, "--exclude=/nested", "--exclude=/other")
    done = run("backup", source, repository, BTRFS, "-x", "--json")
    assert done.summary["unchanged"] is True
    assert done.summary["files_unmodified"] == 4
    time.sleep(0.05)
    # Their empty stand-ins have the time of the snapshot: that is no change.
    assert run("backup", source, repository, BTRFS, "-x", "--json").summary["unchanged"] is True
    assert run("backup", source, repository, BTRFS, "-x", "-n", "--json").summary["unchanged"]


def test_many_folders_which_a_scout_lists_are_no_different(
    home: Path, frozen_nights: Nights
) -> None:
    for number in range(900):
        (home / "alice" / "many" / str(number)).mkdir(parents=True)
    make_subvolume(home / "alice" / "many" / "5" / "nested")
    time.sleep(0.05)
    with pytest.raises(Refused, match=r"file system: many/5/nested;"):
        frozen_nights.backup(source_snapshot="btrfs")
    frozen_nights.backup(source_snapshot="btrfs", one_file_system=True)
    assert list((frozen_nights.current / "many" / "5").iterdir()) == []
    time.sleep(0.05)
    assert frozen_nights.backup(source_snapshot="btrfs", one_file_system=True).summary.unchanged


def test_a_mount_below_the_source_is_refused_or_shown_empty(
    home: Path, frozen_nights: Nights
) -> None:
    point = home / "alice" / "mnt"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", point], check=True)
    try:
        (point / "elsewhere").write_text("on another file system")
        with pytest.raises(Refused, match=r"file system: mnt;"):
            frozen_nights.backup(source_snapshot="btrfs")
        frozen_nights.backup(source_snapshot="btrfs", one_file_system=True)
        assert list((frozen_nights.current / "mnt").iterdir()) == []
        assert frozen_nights.backup(source_snapshot="btrfs", exclude=("mnt",)).summary.errors == 0
    finally:
        subprocess.run(["umount", point], check=True)


@pytest.mark.parametrize("as_subvolume", [False, True])
def test_a_repository_in_the_source_is_left_out(home: Path, as_subvolume: bool) -> None:
    repository = home / "alice" / "backup"
    if as_subvolume:
        make_subvolume(repository)
    nights = Nights(home / "alice", repository)
    nights.backup(source_snapshot="btrfs")
    (home / "alice" / "a").write_text("second")
    nights.backup(source_snapshot="btrfs")
    assert sorted(os.listdir(nights.current)) == ["a", "d"]
    assert (nights.folders()[0] / "a").read_text() == "first a"


@pytest.mark.parametrize("freeze", [None, "btrfs"])
def test_a_backup_sees_nothing_of_another_run_s_snapshot(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, freeze: str | None
) -> None:
    frozen_one, other = Nights(home, tmp_path / "one"), Nights(home, tmp_path / "two")
    looked = engine._Run._look
    inside: list[int] = []

    def look(run: Any, *rest: Any) -> Any:
        if not inside:
            inside.append(len(snapshots_in(home)))
            other.backup(source_snapshot=freeze)
            assert len(snapshots_in(home)) == 1
        return looked(run, *rest)

    monkeypatch.setattr(engine._Run, "_look", look)
    frozen_one.backup(source_snapshot="btrfs")
    assert inside == [1]
    assert os.listdir(other.current) == os.listdir(frozen_one.current) == ["alice"]
    assert snapshots_in(home) == []


def test_a_subvolume_may_be_mounted_by_itself(tmp_path: Path) -> None:
    require_root()
    with mounted("btrfs", tmp_path) as top:
        make_subvolume(top / "home")
        (top / "home" / "alice").mkdir()
        (top / "home" / "alice" / "f").write_text("first")
        point = tmp_path / "home"
        point.mkdir()
        image = tmp_path / "btrfs.img"
        subprocess.run(["mount", "-o", "loop,subvol=home", image, point], check=True)
        try:
            nights = Nights(point / "alice", tmp_path / "drive")
            nights.backup(source_snapshot="btrfs")
            assert (nights.current / "f").read_text() == "first"
            assert snapshots_in(point) == []
        finally:
            subprocess.run(["umount", point], check=True)


def test_another_folder_of_that_name_is_backed_up(nights: Nights, source: Path) -> None:
    (source / FOLDER).mkdir()
    (source / FOLDER / "mine").write_text("of a person")
    (source / (FOLDER + ".txt")).write_text("of a person")
    nights.backup()
    assert (nights.current / FOLDER / "mine").exists()
    assert (nights.current / (FOLDER + ".txt")).exists()


def test_everything_excluded_is_still_an_empty_source(home: Path, frozen_nights: Nights) -> None:
    frozen_nights.backup(source_snapshot="btrfs")
    with pytest.raises(Refused, match="the source is empty"):
        frozen_nights.backup(source_snapshot="btrfs", exclude=("*",))
    assert snapshots_in(home) == []


# --- where there can be none ---------------------------------------------------------------


def test_a_source_elsewhere_is_refused(source: Path, repository: Path, ext4: Path) -> None:
    run("init", repository, "--source", ext4)
    assert "is not on btrfs; without --source-snapshot" in complaint(
        "backup", ext4, repository, BTRFS, code=5
    )
    assert complaint("backup", ext4, repository, BTRFS, "-n", code=5)


def test_an_unknown_kind_is_a_mistake(source: Path, repository: Path) -> None:
    assert complaint("backup", source, repository, "--source-snapshot=zfs", code=2) == (
        "--source-snapshot zfs: give btrfs"
    )


def test_a_subvolume_whose_root_is_not_mounted_is_refused(home: Path, repository: Path) -> None:
    point = repository.parent / "bound"
    point.mkdir()
    subprocess.run(["mount", "--bind", home / "alice", point], check=True)
    try:
        with pytest.raises(Refused, match="not mounted with its root"):
            Nights(point, repository).backup(source_snapshot="btrfs")
    finally:
        subprocess.run(["umount", point], check=True)


def test_a_read_only_source_is_refused(btrfs: Path, home: Path, repository: Path) -> None:
    subprocess.run(["btrfs", "property", "set", home, "ro", "true"], check=True)
    with pytest.raises(Refused, match="is read-only"):
        Nights(home / "alice", repository).backup(source_snapshot="btrfs")


def test_a_folder_that_others_may_write_is_refused(home: Path, frozen_nights: Nights) -> None:
    (home / FOLDER).mkdir()
    (home / FOLDER).chmod(0o777)
    with pytest.raises(Refused, match="not a folder of ours alone"):
        frozen_nights.backup(source_snapshot="btrfs")
    (home / FOLDER).rmdir()
    (home / FOLDER).symlink_to(frozen_nights.source)
    with pytest.raises(SourceError):
        frozen_nights.backup(source_snapshot="btrfs")


def test_another_user_may_not_and_is_told(home: Path, tmp_path: Path) -> None:
    let_others_in(tmp_path)
    let_others_in(home)
    place = tmp_path / "theirs"
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    run("init", place / "drive", "--source", home / "alice", uid=NOBODY)
    said = complaint("backup", home / "alice", place / "drive", BTRFS, code=5, uid=NOBODY)
    assert "user_subvol_rm_allowed" in said
    assert not (home / FOLDER).exists()


def test_another_user_may_where_the_mount_says_so(tmp_path: Path) -> None:
    require_root()
    with mounted("btrfs", tmp_path, options="user_subvol_rm_allowed") as point:
        let_others_in(point)
        top = point / "theirs"
        make_subvolume(top)
        (top / "f").write_text("first")
        place = tmp_path / "drives"
        place.mkdir()
        for path in (top, top / "f", place):
            os.chown(path, NOBODY, NOBODY)
        time.sleep(0.05)
        run("backup", "--init", top, place / "drive", BTRFS, uid=NOBODY)
        assert (place / "drive" / "current" / "f").read_text() == "first"
        assert os.listdir(top / f"{FOLDER}-{NOBODY}") == []
        assert run("backup", top, place / "drive", BTRFS, "--json", uid=NOBODY).summary["unchanged"]
        # One that may not write to the subvolume's root makes nothing.
        os.chown(top, 0, 0)
        (top / f"{FOLDER}-{NOBODY}").rmdir()
        said = complaint("backup", top, place / "drive", BTRFS, code=5, uid=NOBODY)
        assert "not permitted" in said


def test_a_full_file_system_fails_the_run_and_leaves_nothing(
    home: Path, frozen_nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*rest: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    frozen_nights.backup(source_snapshot="btrfs")
    monkeypatch.setattr(subvolume, "snapshot", full)
    with pytest.raises(SourceError, match="no snapshot can be made"):
        frozen_nights.backup(source_snapshot="btrfs")
    assert not record_of(frozen_nights.repository).exists()


def test_a_full_drive_is_thinned_as_ever(home: Path, tmp_path: Path) -> None:
    with mounted("ext4", tmp_path, size=96 << 20, make=("-m", "0")) as drive:
        nights = Nights(home / "alice", drive / "repository")
        for number in range(4):
            (home / "alice" / "big").write_bytes(os.urandom(4 << 20))
            os.utime(home / "alice" / "big", ns=(number, number))
            nights.backup(source_snapshot="btrfs")
        with (drive / "filler").open("wb", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)
        assert os.statvfs(drive).f_bavail == 0
        (home / "alice" / "a").write_text("second")
        with pytest.raises(NoSpace):
            nights.backup(source_snapshot="btrfs")
        assert snapshots_in(home) == []
        result = nights.backup(source_snapshot="btrfs", policy=Policy(last=1))
        assert len(result.summary.snapshots_removed) > 0
        assert (nights.current / "a").read_text() == "second"
        assert not record_of(nights.repository).exists()
        assert (nights.repository / ".mirrorback" / "reserve" / "0").stat().st_size > 0


# --- cut -----------------------------------------------------------------------------------


# The program, which waits when all has been built and nothing is published yet.
BUILT = """
import pathlib, sys, time
from mirrorback.cli.app import main
from mirrorback.engine.build import Build
built, run = sys.argv.pop(1), Build.run
def slow(*rest):
    root = run(*rest)
    pathlib.Path(built).touch()
    time.sleep(300)
    return root
Build.run = slow
main()
"""


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_was_ended_leaves_nothing_for_long(
    home: Path, repository: Path, tmp_path: Path, way: signal.Signals
) -> None:
    run("init", repository, "--source", home / "alice")
    built = tmp_path / "built"
    process = subprocess.Popen(
        [sys.executable, "-c", BUILT, built, "backup", home / "alice", repository, BTRFS],
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    wait_for(built.exists, 120)
    assert len(snapshots_in(home)) == 1
    (home / "alice" / "a").write_text("meanwhile")
    incoming = repository / ".mirrorback" / "incoming"
    assert (incoming / "a").read_text() == "first a"
    process.send_signal(way)
    process.wait(timeout=60)
    if way == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
        assert len(snapshots_in(home)) == 1
        assert record_of(repository).exists()
    else:
        assert process.returncode == 143
        assert snapshots_in(home) == []
    someones = snapshot_by_hand(home)
    # Also by a run that makes none.
    run("backup", home / "alice", repository)
    assert snapshots_in(home) == [someones]
    assert not record_of(repository).exists()
    assert (repository / "current" / "a").read_text() == "meanwhile"


@contextlib.contextmanager
def snapshot_of_another_run(home: Path) -> Iterator[str]:
    """Another snapshot in our folder, held by another repository's run."""
    name = snapshot_by_hand(home)
    fd = os.open(home / FOLDER / name, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield name
    finally:
        os.close(fd)


def snapshot_by_hand(home: Path) -> str:
    """A snapshot as a run makes it."""
    (home / FOLDER).mkdir(mode=0o700, exist_ok=True)
    name = os.urandom(16).hex()
    subprocess.run(
        ["btrfs", "subvolume", "snapshot", "-r", home, home / FOLDER / name],
        check=True,
        capture_output=True,
    )
    return name


def test_one_made_but_not_yet_on_record_with_its_uuid_is_removed(
    home: Path, frozen_nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen_nights.backup(source_snapshot="btrfs")
    monkeypatch.setattr(freezing, "_remove", lambda *rest, **more: None)
    made = subvolume.snapshot

    def cut(*rest: Any) -> None:
        made(*rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(subvolume, "snapshot", cut)
    with snapshot_of_another_run(home) as someones:
        with pytest.raises(KeyboardInterrupt):
            frozen_nights.backup(source_snapshot="btrfs")
        assert len(snapshots_in(home)) == 2
        assert record_of(frozen_nights.repository).read_bytes().endswith(b" -\n")
        monkeypatch.undo()
        frozen_nights.backup()
        assert snapshots_in(home) == [someones]
        assert frozen_nights.heard.warnings == []


STEPS = [
    (module, name, number, after)
    for module, name, numbers in (
        (frozen, "record", (1, 2, 3)),
        (subvolume, "snapshot", (1,)),
        (subvolume, "destroy", (1,)),
    )
    for number in numbers
    for after in (False, True)
]


@pytest.mark.parametrize(("module", "name", "number", "after"), STEPS)
def test_a_run_may_be_cut_at_any_step(
    home: Path, frozen_nights: Nights, module: Any, name: str, number: int, after: bool
) -> None:
    frozen_nights.backup()
    child = os.fork()
    if child == 0:
        step, calls = getattr(module, name), 0

        def cut(*rest: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number and not after:
                os._exit(99)
            result = step(*rest)
            if calls == number:
                os._exit(99)
            return result

        setattr(module, name, cut)
        try:
            frozen_nights.backup(source_snapshot="btrfs")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 99
    (home / "alice" / "a").write_text("since")
    frozen_nights.now += timedelta(days=1)
    with snapshot_of_another_run(home) as someones:
        frozen_nights.backup(source_snapshot="btrfs")
        assert frozen_nights.heard.warnings == []
        assert snapshots_in(home) == [someones]
    assert not record_of(frozen_nights.repository).exists()
    assert content(frozen_nights.current) == content(home / "alice")


@pytest.mark.parametrize("what", ["uuid", "writable", "of another", "folder", "wrong origin"])
def test_nothing_is_removed_that_is_not_ours(
    home: Path, btrfs: Path, frozen_nights: Nights, what: str
) -> None:
    """A record on a drive may say anything."""
    frozen_nights.backup(source_snapshot="btrfs")
    name = os.urandom(16).hex()
    there = home / FOLDER / name
    origin = subvolume_uuid(home)
    uuid: bytes | None = None
    if what in ("uuid", "wrong origin"):
        subprocess.run(["btrfs", "subvolume", "snapshot", "-r", home, there], check=True)
        uuid = os.urandom(16) if what == "uuid" else None
        origin = origin if what == "uuid" else os.urandom(16)
    elif what == "writable":
        make_subvolume(there)
    elif what == "of another":
        other = btrfs / f"other-{name}"
        make_subvolume(other)
        subprocess.run(["btrfs", "subvolume", "snapshot", "-r", other, there], check=True)
    else:
        there.mkdir()
    line = f"{name} {origin.hex()} {uuid.hex() if uuid else '-'}\n"
    record_of(frozen_nights.repository).write_text(line)
    frozen_nights.backup()
    assert snapshots_in(home) == [name]
    assert any(name in said for said, _path in frozen_nights.heard.warnings)
    assert record_of(frozen_nights.repository).read_text() == line
    frozen_nights.backup(source_snapshot="btrfs")
    assert snapshots_in(home) == [name]


def test_what_a_run_to_a_lost_drive_has_left_is_removed_by_one_to_another(
    home: Path, frozen_nights: Nights, tmp_path: Path
) -> None:
    frozen_nights.backup(source_snapshot="btrfs")
    left = snapshot_by_hand(home)
    mine = home / FOLDER / "mine"
    subprocess.run(["btrfs", "subvolume", "snapshot", "-r", home, mine], check=True)
    make_subvolume(home / FOLDER / ("0" * 32))  # no snapshot of the source
    other = Nights(home / "alice", tmp_path / "new drive")
    other.backup()  # asks for no snapshot
    assert left in snapshots_in(home)
    other.backup(source_snapshot="btrfs")
    assert sorted(snapshots_in(home)) == ["0" * 32, "mine"]
    ((said, _path),) = other.heard.warnings
    assert "other drives have left: 1" in said
    other.backup(source_snapshot="btrfs")
    assert other.heard.warnings == []


def test_what_cannot_be_removed_of_a_lost_drive_stops_no_backup(
    home: Path, frozen_nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen_nights.backup(source_snapshot="btrfs")
    left = snapshot_by_hand(home)
    destroyed = subvolume.destroy

    def busy(folder: int, name: bytes) -> None:
        if name == left.encode():
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        destroyed(folder, name)

    monkeypatch.setattr(subvolume, "destroy", busy)
    frozen_nights.backup(source_snapshot="btrfs")
    assert snapshots_in(home) == [left]
    assert any("stays: device or resource busy" in said for said, _ in frozen_nights.heard.warnings)


def subvolume_uuid(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return subvolume.info(fd).uuid
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "data",
    [b"", b"../../etc - -\n", b"\xff" * 4096, b"0" * 98 + b"\n", b"a" * 32 + b" " + b"b" * 32],
)
def test_a_record_that_is_none_is_passed_over(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "source-snapshots").write_bytes(data)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert frozen.recorded(fd) == []
        left = [
            frozen.Left(b"0" * 32, b"\1" * 16, None),
            frozen.Left(b"1" * 32, b"\2" * 16, b"3" * 16),
        ]
        frozen.record(fd, left)
        assert frozen.recorded(fd) == left
        frozen.record(fd, [])
        assert os.listdir(tmp_path) == []
    finally:
        os.close(fd)


def test_a_record_for_a_source_that_is_no_btrfs_any_more_stays(
    source: Path, nights: Nights, ext4: Path
) -> None:
    nights.source = ext4
    nights.backup()
    line = f"{'0' * 32} {'1' * 32} -\n"
    record_of(nights.repository).write_text(line)
    assert nights.backup().summary.errors == 0
    assert any("was left by an earlier run" in said for said, _path in nights.heard.warnings)
    assert record_of(nights.repository).read_text() == line


def test_the_configuration_may_ask_for_it(home: Path, repository: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    run("init", repository, "--source", home / "alice", "--name", "home", "--config", file)
    file.write_text(file.read_text() + 'source-snapshot = "btrfs"\n')
    state = {"MIRRORBACK_STATE_DIR": str(tmp_path / "state")}
    run("run", "--config", file, env=environment(**state))
    assert (home / FOLDER).is_dir() and snapshots_in(home) == []
    assert (repository / "current" / "a").read_text() == "first a"
    file.write_text(file.read_text().replace('"btrfs"', '"lvm"'))
    said = run("config", "check", "--config", file, code=2).err
    assert "source-snapshot: give btrfs" in said


def test_a_configured_backup_made_by_hand_is_frozen_too(
    home: Path, repository: Path, tmp_path: Path
) -> None:
    file, env = tmp_path / "config.toml", environment(MIRRORBACK_STATE_DIR=str(tmp_path / "state"))
    run("init", repository, "--source", home / "alice", "--name", "home", "--config", file)
    run("backup", "home", BTRFS, "--config", file, env=env)
    assert (home / FOLDER).is_dir() and snapshots_in(home) == []
    file.write_text(file.read_text() + 'source-snapshot = "btrfs"\n')
    (home / FOLDER).rmdir()
    run("backup", "home", "--config", file, env=env)
    assert (home / FOLDER).is_dir() and snapshots_in(home) == []
