"""Restoring, by its rules."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import time
from pathlib import Path

import pytest
from program import complaint, run
from runs import Nights
from trees import describe, require_same

from mirrorback.store import hold


@pytest.fixture
def two(nights: Nights) -> Nights:
    """Two nights of a small tree."""
    source = nights.source
    (source / "d" / "e").mkdir(parents=True)
    (source / "f").write_text("old")
    (source / "d" / "g").write_text("inside")
    (source / "d" / "e" / "h").write_text("deep")
    (source / "d").chmod(0o2770)
    os.utime(source / "f", ns=(5, 1_500_000_000_000_000_000))
    time.sleep(0.03)
    nights.backup()
    (source / "f").write_text("new")
    os.utime(source / "f", ns=(5, 1_600_000_000_000_000_000))
    nights.backup()
    return nights


FIRST = "2026-11-02-020000"


def test_the_whole_tree(two: Nights, tmp_path: Path) -> None:
    target = tmp_path / "out"
    done = run("restore", two.repository, "--to", target)
    require_same(describe(two.source), describe(target))
    assert "restored" in done.out
    again = run("restore", two.repository, "--to", target)
    assert "0 restored" in again.out
    require_same(describe(two.source), describe(target))


def test_a_path_comes_back_below_the_target(two: Nights, tmp_path: Path) -> None:
    run("restore", two.repository, "d/g", "f", "--at", FIRST, "--to", tmp_path / "out")
    found = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*")}
    assert found == {"d", "d/g", "f"}
    assert (tmp_path / "out" / "f").read_text() == "old"


def test_parents_that_exist_are_not_touched(two: Nights, tmp_path: Path) -> None:
    target = tmp_path / "out"
    (target / "d").mkdir(parents=True)
    (target / "d").chmod(0o711)
    os.utime(target / "d", ns=(5, 5))
    (target / "d" / "mine").write_text("mine")
    run("restore", two.repository, "d/g", "--to", target)
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o711
    assert (target / "d" / "mine").read_text() == "mine"


def test_in_place_keeps_what_it_overwrites(two: Nights) -> None:
    done = run("restore", two.repository, "f", "--at", FIRST, "--in-place")
    assert (two.source / "f").read_text() == "old"
    kept = [p for p in two.source.iterdir() if p.name.startswith("f.before-restore-")]
    assert [p.read_text() for p in kept] == ["new"]
    assert done.err == ""
    run("restore", two.repository, "f", "--in-place", "--no-keep")
    assert len(list(two.source.glob("f*"))) == 2


@pytest.mark.parametrize(
    ("rule", "restored"),
    [("if-changed", True), ("if-newer", False), ("never", False), ("always", True)],
)
def test_what_may_be_overwritten(two: Nights, rule: str, restored: bool) -> None:
    run("restore", two.repository, "f", "--at", FIRST, "--in-place", "--overwrite", rule)
    assert ((two.source / "f").read_text() == "old") is restored


def test_if_changed_looks_at_the_content(two: Nights) -> None:
    """Size and time are as they were; the bytes are not."""
    path = two.source / "f"
    st = path.stat()
    path.write_text("xxx")
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
    run("restore", two.repository, "--in-place")
    assert path.read_text() == "new"


def test_if_changed_puts_metadata_back_without_a_copy(two: Nights) -> None:
    path = two.source / "f"
    path.chmod(0o600)
    number = path.stat().st_ino
    run("restore", two.repository, "--in-place")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert path.stat().st_ino == number


def test_metadata_is_never_set_through_a_link_from_elsewhere(two: Nights, tmp_path: Path) -> None:
    """The names of a hard-link group are linked to a file that is outside the target."""
    (two.source / "g1").write_text("shared")
    os.link(two.source / "g1", two.source / "d" / "g2")
    two.backup()
    target, outside = tmp_path / "out", tmp_path / "outside"
    run("restore", two.repository, "--to", target)
    number = (target / "g1").stat().st_ino
    (target / "g1").chmod(0o600)
    run("restore", two.repository, "--to", target)
    assert (target / "g1").stat().st_ino == number  # all its names are the group's
    os.link(target / "g1", outside)
    outside.chmod(0o600)
    run("restore", two.repository, "--to", target, "--no-keep")
    wanted, found = describe(two.source), describe(target)
    del wanted[b""], found[b""]  # a folder that was there keeps its own times
    require_same(wanted, found)
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600
    assert outside.stat().st_ino == number


def test_one_name_of_a_group_is_put_right_with_the_others(two: Nights, tmp_path: Path) -> None:
    (two.source / "g1").write_text("shared")
    os.link(two.source / "g1", two.source / "d" / "g2")
    two.backup()
    target = tmp_path / "out"
    run("restore", two.repository, "--to", target)
    (target / "g1").chmod(0o600)
    run("restore", two.repository, "g1", "--to", target)
    require_same(describe(two.source), describe(target))


def test_delete_removes_what_the_snapshot_does_not_have(two: Nights) -> None:
    (two.source / "later").write_text("x")
    (two.source / "d" / "later").mkdir()
    two.backup()
    at = ("--at", "1B", "--in-place", "--delete")
    run("restore", two.repository, *at, "--no-keep")
    require_same(describe(two.folders()[-1]), describe(two.source))
    (two.source / "later").write_text("precious")
    run("restore", two.repository, *at)
    kept = list(two.source.glob("later.before-restore-*"))
    assert [p.read_text() for p in kept] == ["precious"]


@pytest.fixture
def excluding(two: Nights) -> Nights:
    """Some things that are in no snapshot, beside and below some that are."""
    (two.source / "known").mkdir()
    (two.source / "known" / "k").write_text("k")
    (two.source / "gone").mkdir()
    (two.source / "gone" / "g").write_text("g")
    two.backup(exclude=("secret",))
    (two.source / "secret").write_text("in no snapshot")
    (two.source / "known" / "secret").mkdir()
    (two.source / "known" / "secret" / "s").write_text("nor this")
    return two


def test_what_no_snapshot_holds_is_never_destroyed(excluding: Nights) -> None:
    at = ("--at", FIRST, "--in-place", "--delete", "--no-keep")
    told = run("restore", excluding.repository, *at, "-n").err
    assert len(told.splitlines()) == 2 and "secret" in told and "known" in told
    done = run("restore", excluding.repository, *at)
    assert done.err == told
    found = {p.name.partition(".")[0]: p for p in excluding.source.iterdir()}
    assert set(found) == {"d", "f", "secret", "known"}
    assert found["secret"].name.startswith("secret.before-restore-")
    assert found["secret"].read_text() == "in no snapshot"
    assert found["known"].name.startswith("known.before-restore-")
    assert (found["known"] / "secret" / "s").read_text() == "nor this"
    assert (excluding.source / "f").read_text() == "old"


def test_a_folder_in_the_way_of_a_file_is_not_destroyed_either(excluding: Nights) -> None:
    path = excluding.source / "f"
    path.unlink()
    path.mkdir()
    (path / "mine").write_text("mine")
    done = run("restore", excluding.repository, "f", "--in-place", "--no-keep")
    assert "f" in done.err and path.read_text() == "new"
    (kept,) = excluding.source.glob("f.before-restore-*")
    assert (kept / "mine").read_text() == "mine"


def test_what_only_a_deleted_snapshot_held_is_not_destroyed(excluding: Nights) -> None:
    (excluding.source / "gone" / "g").unlink()
    (excluding.source / "gone").rmdir()
    excluding.backup(exclude=("secret",))
    last = excluding.folders()[-1].name
    (excluding.source / "gone").mkdir()
    (excluding.source / "gone" / "g").write_text("again")
    excluding.delete(last)
    run("restore", excluding.repository, "--in-place", "--delete", "--no-keep")
    (kept,) = excluding.source.glob("gone.before-restore-*")
    assert (kept / "g").read_text() == "again"


def test_a_dry_run_changes_nothing(two: Nights, tmp_path: Path) -> None:
    (two.source / "stray").write_text("x")
    before = describe(two.source)
    done = run("restore", two.repository, "--at", FIRST, "--in-place", "--delete", "-n")
    require_same(before, describe(two.source))
    assert "f" in done.out and "stray" in done.out
    run("restore", two.repository, "-n", "--to", tmp_path / "none")
    assert not (tmp_path / "none").exists()


LEFT = ".mirrorback-0123456789abcdef.tmp"


def test_what_a_killed_restore_has_left_goes(two: Nights, tmp_path: Path) -> None:
    target = tmp_path / "out"
    run("restore", two.repository, "--to", target)
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (target / LEFT).write_text("half of someth")
    (target / "d" / LEFT).symlink_to(outside)
    alike = [LEFT + ".bak", "x" + LEFT, LEFT.upper(), LEFT.replace("0", ""), ".mirrorback-.tmp"]
    for name in alike:
        (target / name).write_text("mine")
    (target / "d" / "e" / LEFT).mkdir()
    run("restore", two.repository, "--to", target, "-n")
    assert (target / LEFT).exists() and (target / "d" / LEFT).is_symlink()
    run("restore", two.repository, "--to", target)
    assert {p.name for p in target.iterdir()} == {"d", "f", *alike}
    assert {p.name for p in (target / "d").iterdir()} == {"e", "g"}
    assert (target / "d" / "e" / LEFT).is_dir()
    assert outside.read_text() == "precious"


def test_only_folders_written_to_are_cleared(two: Nights, tmp_path: Path) -> None:
    target = tmp_path / "out"
    run("restore", two.repository, "--to", target)
    for folder in (target, target / "d", target / "d" / "e"):
        (folder / LEFT).write_text("half of someth")
    run("restore", two.repository, "d/g", "--to", target)
    assert (target / LEFT).exists() and (target / "d" / "e" / LEFT).exists()
    assert not (target / "d" / LEFT).exists()


def test_what_a_running_restore_is_at_stays(two: Nights, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    fd = os.open(target, os.O_RDONLY)
    try:
        with hold.together(fd) as held:
            assert held
            (target / LEFT).write_text("half of someth")
            run("restore", two.repository, "--to", target)
            assert (target / LEFT).exists()
    finally:
        os.close(fd)
    run("restore", two.repository, "--to", target)
    assert not (target / LEFT).exists()


def test_a_folder_that_someone_else_has_locked_is_restored(two: Nights, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    fd = os.open(target, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        run("restore", two.repository, "--to", target)
    finally:
        os.close(fd)
    assert {p.name for p in target.iterdir()} == {"d", "f"}


def test_a_file_of_such_a_name_that_was_backed_up_comes_back(two: Nights, tmp_path: Path) -> None:
    (two.source / LEFT).write_text("in a snapshot")
    two.backup()
    (two.source / LEFT).write_text("changed")
    run("restore", two.repository, "--in-place")
    assert (two.source / LEFT).read_text() == "in a snapshot"
    (kept,) = two.source.glob(LEFT + ".before-restore-*")
    assert kept.read_text() == "changed"


def test_where_to_is_asked_for(two: Nights, tmp_path: Path) -> None:
    complaint("restore", two.repository, code=2)
    complaint("restore", two.repository, "--to", tmp_path, "--in-place", code=2)
    complaint("restore", two.repository, "--to", tmp_path, "--overwrite", "perhaps", code=2)
    complaint("restore", two.repository, "never", "--to", tmp_path / "o", code=1)
    assert not (tmp_path / "o").exists()


def test_symlinks_planted_in_the_way_lead_nowhere(two: Nights, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "out"
    target.mkdir()
    (target / "d").symlink_to(outside)
    (target / "f").symlink_to(outside / "f")
    run("restore", two.repository, "--to", target, code=0)
    assert list(outside.iterdir()) == []
    assert (target / "d" / "g").read_text() == "inside"
    assert not (target / "f").is_symlink()
    run("restore", two.repository, "d/e/h", "--to", tmp_path / "second")
    (tmp_path / "second" / "d" / "e" / "h").unlink()
    (tmp_path / "second" / "d" / "e").rmdir()
    (tmp_path / "second" / "d" / "e").symlink_to(outside)
    run("restore", two.repository, "d/e/h", "--to", tmp_path / "second", code=1)
    assert list(outside.iterdir()) == []


def test_a_damaged_file_is_not_restored_and_told(two: Nights, tmp_path: Path) -> None:
    with (two.current / "d" / "g").open("r+b") as file:
        file.write(b"X")
    done = run("restore", two.repository, "--to", tmp_path / "out", code=4)
    assert "d/g" in done.err
    assert (tmp_path / "out" / "f").read_text() == "new"
    assert not (tmp_path / "out" / "d" / "g").exists()
    run("cat", two.repository, "d/g", code=4)


def test_json(two: Nights, tmp_path: Path) -> None:
    done = run("restore", two.repository, "--to", tmp_path / "out", "--json")
    assert (done.json["restored"], done.json["errors"]) == (3, 0)
    assert done.json["snapshot"] == "2026-11-03-020000"


def test_cp_alone_is_a_restore(two: Nights, tmp_path: Path) -> None:
    """Nothing on the drive needs the program."""
    subprocess.run(["cp", "-a", two.current, tmp_path / "out"], check=True)
    require_same(describe(two.source), describe(tmp_path / "out"))
