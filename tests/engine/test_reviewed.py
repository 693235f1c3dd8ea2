"""Cases in which careful readers have caught us: each did harm once."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from program import NOBODY, complaint, run
from runs import Heard, Nights
from trees import describe, require_same

from mirrorback.engine import dated, survey
from mirrorback.engine.verify import verify
from mirrorback.errors import DriveError
from mirrorback.model import ChangeKind
from mirrorback.store import past, system

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Nights]:
    """A source and a drive that belong to nobody."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o005)
    for name in ("theirs", "their-drive"):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, NOBODY, NOBODY)
    yield Nights(tmp_path / "theirs", tmp_path / "their-drive" / "r")


def give(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


def test_a_restore_never_deletes_the_repository(source: Path) -> None:
    nights = Nights(source, source / "backups" / "repo")
    (source / "backups").mkdir()
    (source / "f").write_text("one")
    nights.backup(exclude=("/backups",))
    (source / "f").write_text("two")
    nights.backup(exclude=("/backups",))
    done = run("restore", nights.repository, "--in-place", "--at", "1B", "--delete", "--no-keep")
    assert "left alone" in done.err
    assert (source / "f").read_text() == "one"
    assert nights.problems() == []


@as_root
def test_a_restore_never_empties_what_is_mounted(nights: Nights, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").write_text("x")
    (nights.source / "mnt").mkdir()
    (nights.source / "f").write_text("x")
    (nights.source / "deep" / "below").mkdir(parents=True)
    subprocess.run(["mount", "--bind", other, nights.source / "mnt"], check=True)
    subprocess.run(["mount", "--bind", other, nights.source / "deep" / "below"], check=True)
    try:
        nights.backup(one_file_system=True, exclude=("/deep",))
        run("restore", nights.repository, "--in-place", "--delete", "--no-keep")
        assert (other / "precious").exists()
        assert (nights.source / "deep" / "below" / "precious").exists()
    finally:
        subprocess.run(["umount", nights.source / "mnt"], check=True)
        subprocess.run(["umount", nights.source / "deep" / "below"], check=True)


def test_a_restore_into_the_repository_is_refused(nights: Nights) -> None:
    (nights.source / "f").write_text("x")
    nights.backup()
    for place in (nights.repository, nights.current, nights.repository / "new"):
        complaint("restore", nights.repository, "--to", place, code=5)
        complaint("restore", nights.repository, "--to", place, "--delete", "-n", code=5)


@as_root
def test_a_source_that_may_not_be_written(theirs: Nights) -> None:
    (theirs.source / "d").mkdir()
    (theirs.source / "d" / "f").write_text("x")
    os.link(theirs.source / "d" / "f", theirs.source / "d" / "g")
    for path in (theirs.source / "d" / "f", theirs.source / "d"):
        give(path)
    (theirs.source / "d").chmod(0o555)
    theirs.source.chmod(0o555)
    for night in range(3):
        (theirs.source / "d" / "f").write_text(f"night {night}")
        run("backup", "--init", theirs.source, theirs.repository, uid=NOBODY)
        time.sleep(1.1)
    assert (theirs.current / "d" / "g").read_text() == "night 2"
    assert len(theirs.folders()) == 2
    run("delete", theirs.repository, theirs.folders()[0].name, uid=NOBODY)
    target = theirs.repository.parent / "restored"
    run("restore", theirs.repository, "--to", target, uid=NOBODY)
    assert target.joinpath("d").stat().st_mode & 0o777 == 0o555


@as_root
def test_what_moved_and_cannot_be_read_any_more_stays(theirs: Nights) -> None:
    old, new = theirs.source / "old", theirs.source / "new"
    old.write_text("what was")
    give(old)
    run("backup", "--init", theirs.source, theirs.repository, uid=NOBODY)
    old.rename(new)
    new.chmod(0)
    time.sleep(1.1)
    done = run("backup", theirs.source, theirs.repository, "--json", uid=NOBODY, code=3)
    assert (done.summary["files_stale"], done.summary["files_removed"]) == (1, 0)
    assert done.summary["files_new"] == done.summary["bytes_copied"] == 0
    here = theirs.current / "new"
    assert here.read_text() == "what was" and not (theirs.current / "old").exists()
    assert here.samefile(theirs.folders()[0] / "old")
    done = run("backup", theirs.source, theirs.repository, "--json", uid=NOBODY, code=3)
    assert done.summary["unchanged"] and done.summary["files_stale"] == 1
    new.chmod(0o644)
    time.sleep(1.1)
    done = run("backup", theirs.source, theirs.repository, "--json", uid=NOBODY)
    assert done.summary["files_stale"] == 0
    require_same(describe(theirs.source), describe(theirs.current))
    assert theirs.problems() == []


@as_root
def test_a_folder_that_moved_and_cannot_be_read_any_more_stays(theirs: Nights) -> None:
    old, new = theirs.source / "old", theirs.source / "new"
    (old / "below").mkdir(parents=True)
    (old / "f").write_text("one")
    (old / "below" / "g").write_text("two")
    (old / "below" / "s").symlink_to("g")
    os.link(old / "f", old / "below" / "h")
    (old / "out").write_text("moved out")
    for path in [old, *old.rglob("*")]:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    run("backup", "--init", theirs.source, theirs.repository, uid=NOBODY)
    (old / "out").rename(theirs.source / "out")
    before = describe(old)
    old.rename(new)
    new.chmod(0)
    time.sleep(1.1)
    done = run("backup", theirs.source, theirs.repository, "--json", uid=NOBODY, code=3)
    assert (done.summary["files_stale"], done.summary["files_removed"]) == (4, 0)
    assert done.summary["files_moved"] == 1 and done.summary["bytes_copied"] == 0
    assert not (theirs.current / "old").exists()
    for path in ("f", "below/g", "below/h"):
        assert (theirs.current / "new" / path).samefile(theirs.folders()[0] / "old" / path)
    done = run("backup", theirs.source, theirs.repository, "--json", uid=NOBODY, code=3)
    assert done.summary["unchanged"] and done.summary["files_stale"] == 4
    new.chmod(0o755)
    time.sleep(1.1)
    done = run("backup", theirs.source, theirs.repository, "--json", uid=NOBODY)
    assert done.summary["files_stale"] == done.summary["bytes_copied"] == 0
    require_same(describe(theirs.source), describe(theirs.current))
    assert describe(new).keys() == before.keys()
    assert theirs.problems() == []


def test_inode_numbers_of_all_64_bits() -> None:
    for number in (0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        assert -(1 << 63) <= system.inode_number(number) < 1 << 63
    assert system.inode_number(1 << 63) != system.inode_number(0)


def test_a_folder_of_the_mirrors_next_name(nights: Nights) -> None:
    (nights.source / "f").write_text("one")
    nights.backup()
    name = nights.now.strftime("%Y-%m-%d-%H%M%S")
    (nights.repository / name).mkdir()
    (nights.repository / f"{name}-2").mkdir()
    (nights.source / "f").write_text("two")
    nights.now -= timedelta(days=1)  # the same second once more
    nights.backup()
    (nights.source / "f").write_text("three")
    nights.now -= timedelta(days=1)
    nights.backup()
    with nights.history() as history:
        names = [snapshot.name for snapshot in history.snapshots()]
    assert len(set(names)) == 3
    texts = [(nights.repository / n / "f").read_text() for n in names[:2]]
    assert texts == ["one", "two"]
    assert {problem.problem for problem in nights.problems()} == {dated.UNKNOWN}


def test_rotated_logs_are_moves_in_diff_too(nights: Nights) -> None:
    for number, name in enumerate(["log", "log.1", "log.2"]):
        (nights.source / name).write_text(f"log {number}" * 100)
    time.sleep(0.03)
    nights.backup()
    (nights.source / "log.1").replace(nights.source / "log.2")
    (nights.source / "log").replace(nights.source / "log.1")
    (nights.source / "log").write_text("a new one")
    summary = nights.backup().summary
    assert summary.files_moved == 2
    with nights.history() as history:
        found = {c.path: (c.change, c.from_path) for c in history.diff("1B", None)}
    assert found[b"log.1"] == (ChangeKind.MOVED, b"log")
    assert found[b"log.2"] == (ChangeKind.MOVED, b"log.1")
    (nights.source / "log.1").replace(nights.source / "log.2")
    nights.backup()
    with nights.history() as history:
        paths = [version.path for version in history.versions(b"log.2", follow=True)]
    assert paths.count(b"log") == 1 and paths.count(b"log.1") == 2


@as_root
def test_what_can_never_be_read_makes_no_snapshot_of_its_own(theirs: Nights) -> None:
    (theirs.source / "f").write_text("x")
    (theirs.source / "roots").write_text("x")
    (theirs.source / "roots").chmod(0o600)
    run("backup", "--init", theirs.source, theirs.repository, uid=NOBODY, code=3)
    for _night in range(2):
        done = run("backup", theirs.source, theirs.repository, "--json", uid=NOBODY, code=3)
        assert done.summary["unchanged"] is True
    assert theirs.folders() == []
    assert list((theirs.repository / ".mirrorback" / "trash").iterdir()) == []


@as_root
def test_a_folder_replaced_by_an_unreadable_file(theirs: Nights) -> None:
    (theirs.source / "dd").mkdir()
    (theirs.source / "dd" / "f").write_text("x")
    run("backup", "--init", theirs.source, theirs.repository, uid=NOBODY)
    shutil.rmtree(theirs.source / "dd")
    (theirs.source / "dd").write_text("secret")
    (theirs.source / "dd").chmod(0)
    time.sleep(1.1)
    run("backup", theirs.source, theirs.repository, uid=NOBODY, code=3)
    assert run("ls", theirs.repository, "-R", "--json").json == []
    assert not (theirs.current / "dd").exists()


@as_root
def test_a_mount_left_out_later_is_gone_at_once(nights: Nights, ext4: Path) -> None:
    (nights.source / "mnt").mkdir()
    (ext4 / "p").write_text("x")
    subprocess.run(["mount", "--bind", ext4, nights.source / "mnt"], check=True)
    try:
        nights.backup()
        time.sleep(0.03)
        nights.backup()
        assert (nights.current / "mnt" / "p").exists()
        assert nights.backup(one_file_system=True).summary.files_removed == 1
        assert not (nights.current / "mnt" / "p").exists()
        assert nights.backup(one_file_system=True).summary.unchanged
    finally:
        subprocess.run(["umount", nights.source / "mnt"], check=True)


def test_the_source_moved_up_to_its_parent(nights: Nights) -> None:
    (nights.source / "sub").mkdir()
    (nights.source / "sub" / "f").write_text("x" * 5000)
    time.sleep(0.03)
    run("backup", "--init", nights.source / "sub", nights.repository)
    run("backup", "--dry-run", nights.source, nights.repository)
    time.sleep(1.1)
    run("backup", "-v", nights.source, nights.repository)
    require_same(describe(nights.source), describe(nights.current))


def test_one_folder_as_source_and_repository(source: Path) -> None:
    complaint("backup", "--init", source, source, code=5)
    assert list(source.iterdir()) == []


def test_verify_beside_a_backup_is_not_fooled(nights: Nights) -> None:
    for number in range(5):
        (nights.source / f"f{number}").write_text(f"{number}")
    nights.backup()
    running = verify(str(nights.repository), nights.now, Heard())
    (nights.current / "f0").unlink()  # so that something is found, and the reading begun
    assert next(running).path == b"f0"
    (nights.source / "f3").write_text("longer than before")
    (nights.source / "f4").unlink()
    nights.backup()
    assert [problem.path for problem in running if problem.path != b"f0"] == []


def test_a_dry_restore_meets_the_same_file_in_the_way(nights: Nights, tmp_path: Path) -> None:
    (nights.source / "a").mkdir()
    (nights.source / "a" / "f").write_text("x")
    nights.backup()
    target = tmp_path / "out"
    target.mkdir()
    (target / "a").write_text("in the way")
    run("restore", nights.repository, "a/f", "--to", target, "-n", code=1)
    run("restore", nights.repository, "a/f", "--to", target, code=1)


@as_root
def test_a_stale_name_is_not_fused_with_where_its_file_went(theirs: Nights) -> None:
    log = theirs.source / "log"
    log.write_text("the first log")
    give(log)
    run("backup", "--init", theirs.source, theirs.repository, uid=NOBODY)
    log.rename(theirs.source / "log.1")
    log.write_text("a new log that nobody may read")
    log.chmod(0)
    time.sleep(1.1)
    done = run("backup", theirs.source, theirs.repository, "--json", uid=NOBODY, code=3)
    assert (done.summary["files_stale"], done.summary["files_moved"]) == (1, 1)
    one, other = theirs.current / "log", theirs.current / "log.1"
    assert one.read_text() == other.read_text() == "the first log"
    assert one.stat().st_ino != other.stat().st_ino
    log.chmod(0o644)
    time.sleep(1.1)
    run("backup", theirs.source, theirs.repository, uid=NOBODY)
    assert one.read_text() == "a new log that nobody may read"
    assert other.read_text() == "the first log"
    assert theirs.problems() == []


def exhausted(*_args: object, **_named: object) -> None:
    raise MemoryError


def test_little_memory_is_no_damage(
    nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nights.source / "f").write_text("one")
    nights.backup()
    with monkeypatch.context() as little:
        little.setattr(survey.Survey, "run", exhausted)
        with pytest.raises(DriveError, match="not enough memory"):
            nights.backup()
    with monkeypatch.context() as little:
        little.setattr(past, "entries", exhausted)
        with pytest.raises(DriveError, match="not enough memory"):
            nights.restore(tmp_path / "back")
    assert nights.problems() == []
