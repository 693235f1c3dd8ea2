"""Verify finds every kind of harm, tells it for the right snapshots, and remembers."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from filesystems import require_root
from runs import Heard, LargeNights, Nights, change_pages

from mirrorback.engine import agenda, dated, examine, faults, findings, review
from mirrorback.engine.findings import Outcome
from mirrorback.engine.rebuild import RebuildOptions, rebuild
from mirrorback.engine.verify import verify
from mirrorback.model import Problem
from mirrorback.plan.verifying import ALL, Budget, Part, Share, Slice
from mirrorback.store.lock import Lock

FIRST, SECOND, THIRD = (f"2026-11-0{day}-020000" for day in (2, 3, 4))
EVERY = (FIRST, SECOND, THIRD)


@pytest.fixture
def three(nights: Nights) -> Nights:
    """Three nights: `f` changes each time, `d/same` never, `d/one` moves to `e/one`, `d/a` and
    `d/b` are one file, and there is one of each other kind."""
    source = nights.source
    (source / "d").mkdir()
    (source / "e").mkdir()
    (source / "d" / "same").write_text("the same")
    (source / "d" / "one").write_text("it moves")
    (source / "d" / "a").write_text("twice")
    os.link(source / "d" / "a", source / "d" / "b")
    (source / "d" / "link").symlink_to("same")
    os.mkfifo(source / "d" / "fifo")
    for number, text in enumerate(("one", "two", "three")):
        (source / "f").write_text(text)
        time.sleep(0.03)
        if number == 1:
            (source / "d" / "one").rename(source / "e" / "one")
        nights.backup()
    assert nights.problems() == []
    return nights


def flip(path: Path) -> None:
    """A bit that rots: no time stamp tells."""
    st = path.stat()
    data = bytearray(path.read_bytes())
    data[0] ^= 8
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


def shown(problems: list[Problem]) -> set[tuple[bytes, tuple[str, ...], str]]:
    return {(p.path, p.snapshots, p.problem) for p in problems}


def remembered(nights: Nights) -> dict[str, int]:
    """Problems by how often, and how many objects were found well, as the catalog has it."""
    with contextlib.closing(sqlite3.connect(nights.repository / ".mirrorback/catalog.db")) as db:
        rows = db.execute("SELECT coalesce(problem, 'well'), count(*) FROM verified GROUP BY 1")
        return dict(rows.fetchall())


def check(nights: Nights, part: Part = ALL, **more: Any) -> tuple[list[Problem], Outcome]:
    outcome = Outcome()
    arguments = {"chance": random.Random(1), "outcome": outcome} | more
    found = list(verify(str(nights.repository), nights.now, Heard(), part, **arguments))
    return found, outcome


# --- content ----------------------------------------------------------------------------


def test_rot_is_told_from_an_edit(three: Nights) -> None:
    flip(three.current / "d" / "same")
    (three.repository / FIRST / "f").write_text("eno")
    found = three.problems()
    assert shown(found) == {
        (b"d/same", EVERY, faults.ROTTEN),
        (b"f", (FIRST,), faults.EDITED),
    }
    assert {p.path: p.repairable for p in found} == {b"d/same": True, b"f": False}


def test_an_edit_shows_under_all_names_and_in_all_snapshots(three: Nights) -> None:
    with (three.current / "d" / "a").open("a") as file:
        file.write("more")
    assert shown(three.problems()) == {
        (b"d/a", EVERY, faults.WRONG_SIZE),
        (b"d/b", EVERY, faults.WRONG_SIZE),
    }


def test_what_moved_is_told_by_both_names(three: Nights) -> None:
    flip(three.current / "e" / "one")
    assert shown(three.problems()) == {
        (b"e/one", (SECOND, THIRD), faults.ROTTEN),
        (b"d/one", (FIRST,), faults.ROTTEN),
    }


def test_what_can_be_mended_from_a_twin_or_the_source(nights: Nights) -> None:
    for name in ("one", "two", "alone"):
        (nights.source / name).write_text("equal" if name != "alone" else "other")
    time.sleep(0.03)
    nights.backup()
    shutil.rmtree(nights.source)
    nights.source.mkdir()
    flip(nights.current / "one")
    flip(nights.current / "alone")
    assert {p.path: p.repairable for p in nights.problems()} == {b"one": True, b"alone": False}
    flip(nights.current / "two")
    nights.problems()
    assert {p.path: p.repairable for p in nights.problems()} == dict.fromkeys(
        (b"one", b"two", b"alone"), False
    ), "a twin that is known to be rotten mends nothing"


def test_symlinks_and_kinds(three: Nights) -> None:
    (three.current / "d" / "link").unlink()
    (three.current / "d" / "link").symlink_to("other")
    (three.current / "d" / "fifo").unlink()
    (three.current / "d" / "fifo").write_text("no fifo")
    assert shown(three.problems()) == {
        (b"d/link", (THIRD,), faults.WRONG_TARGET),
        (b"d/fifo", (THIRD,), faults.WRONG_KIND),
    }


# --- metadata ------------------------------------------------------------------------------


def test_metadata_that_somebody_changed(three: Nights) -> None:
    (three.current / "d" / "same").chmod(0o600)
    os.utime(three.repository / SECOND / "f", ns=(1, 1))
    (three.repository / FIRST / "e").chmod(0o711)
    found = shown(three.problems())
    assert (b"d/same", EVERY) in {one[:2] for one in found}
    assert (b"f", (SECOND,), "time stamp was changed") in found
    assert (b"e", (FIRST,)) in {one[:2] for one in found} and len(found) == 3


def test_owners_and_attributes(ext4: Path) -> None:
    require_root()
    (ext4 / "source").mkdir()
    nights = Nights(ext4 / "source", ext4 / "drive")
    for name in ("owner", "added", "changed", "removed"):
        (nights.source / name).write_text(name)
    os.setxattr(nights.source / "changed", "user.x", b"1")
    os.setxattr(nights.source / "removed", "user.x", b"1")
    nights.backup()
    assert nights.problems() == []
    os.chown(nights.current / "owner", 12345, 0)
    os.setxattr(nights.current / "added", "user.y", b"1")
    os.setxattr(nights.current / "changed", "user.x", b"2")
    os.removexattr(nights.current / "removed", "user.x")
    words = {p.path: p.problem for p in nights.problems()}
    assert words.pop(b"owner") == "owner is 12345:0, not 0:0"
    assert words == dict.fromkeys((b"added", b"changed", b"removed"), faults.ATTRIBUTES)


# --- names -----------------------------------------------------------------------------


def test_missing_and_foreign(three: Nights) -> None:
    (three.repository / SECOND / "d" / "same").unlink()
    (three.current / "d" / "new").write_text("x")
    (three.repository / FIRST / "d" / "new").write_text("y")
    (three.repository / FIRST / "folder").mkdir()
    (three.repository / FIRST / "folder" / "in it").write_text("z")
    found = three.problems()
    assert shown(found) == {
        (b"d/same", (SECOND,), faults.MISSING),
        (b"d/new", (FIRST, THIRD), findings.FOREIGN),
        (b"folder", (FIRST,), findings.FOREIGN),
    }
    assert {p.path for p in found if p.repairable} == {b"d/same"}


def test_a_folder_that_is_missing_is_one_line(three: Nights) -> None:
    shutil.rmtree(three.repository / SECOND / "d")
    assert shown(three.problems()) == {(b"d", (SECOND,), faults.MISSING)}
    assert remembered(three)[faults.MISSING] >= 5, "what was in it, for `repair`"


def test_what_only_a_missing_folder_had_is_told(nights: Nights) -> None:
    (nights.source / "d" / "deep").mkdir(parents=True)
    (nights.source / "d" / "deep" / "lost").write_text("x")
    nights.backup()
    shutil.rmtree(nights.current / "d")
    assert {(p.path, p.problem) for p in nights.problems()} == {
        (b"d", faults.MISSING),
        (b"d/deep/lost", faults.MISSING),
    }


def test_a_folder_that_is_something_else(three: Nights, tmp_path: Path) -> None:
    shutil.rmtree(three.repository / SECOND / "e")
    (three.repository / SECOND / "e").symlink_to(three.current / "e")
    assert shown(three.problems()) == {(b"e", (SECOND,), faults.WRONG_KIND)}


def test_a_copy_in_the_place_of_a_link(three: Nights) -> None:
    """An editor's rename, with nothing changed."""
    place = three.repository / SECOND / "d" / "same"
    shutil.copy2(place, place.with_name("copy"))
    place.with_name("copy").rename(place)
    assert shown(three.problems()) == {(b"d/same", (SECOND,), faults.APART)}


def test_an_edit_by_rename_leaves_the_others_well(three: Nights) -> None:
    (three.current / "d" / "other").write_text("edited")
    (three.current / "d" / "other").rename(three.current / "d" / "same")
    [problem] = three.problems()
    assert (problem.path, problem.snapshots) == (b"d/same", (THIRD,))
    assert problem.problem == faults.WRONG_SIZE and problem.repairable


def test_a_copy_of_what_moved_is_seen_across_folders(three: Nights) -> None:
    place = three.repository / FIRST / "d" / "one"
    shutil.copy2(place, place.with_name("copy"))
    place.with_name("copy").rename(place)
    assert shown(three.problems()) == {(b"d/one", (FIRST,), faults.APART)}


def test_hard_links_that_came_apart_and_files_that_became_one(nights: Nights) -> None:
    for name in ("one", "two", "a"):
        (nights.source / name).write_text("equal")
        os.utime(nights.source / name, ns=(5, 5))
    os.link(nights.source / "a", nights.source / "b")
    nights.backup()
    shutil.copy2(nights.current / "b", nights.current / "copy")
    (nights.current / "copy").rename(nights.current / "b")
    (nights.current / "two").unlink()
    os.link(nights.current / "one", nights.current / "two")
    words = {p.path: p.problem for p in nights.problems()}
    assert len(words) == 2 and faults.APART in {words.get(b"a"), words.get(b"b")}
    assert "is the same file as" in (words.get(b"one") or words.get(b"two") or "")


def test_files_of_two_folders_that_became_one(nights: Nights) -> None:
    for name in ("d", "e"):
        (nights.source / name).mkdir()
        (nights.source / name / "f").write_text("equal")
        os.utime(nights.source / name / "f", ns=(5, 5))
    nights.backup()
    (nights.current / "e" / "f").unlink()
    os.link(nights.current / "d" / "f", nights.current / "e" / "f")
    [problem] = nights.problems()
    assert "is the same file as" in problem.problem


def test_what_desktops_leave_does_no_harm(three: Nights) -> None:
    (three.current / ".DS_Store").write_text("x")
    (three.current / "d" / "._same").write_text("x")
    (three.repository / "lost+found").mkdir()
    (three.repository / ".Trash-1000").mkdir()
    found, outcome = check(three)
    assert found == [] and outcome.droppings == 2


# --- the folders of snapshots ----------------------------------------------------------------


def test_dated_folders_removed_or_renamed_are_one_line_each(three: Nights) -> None:
    shutil.rmtree(three.repository / FIRST)
    (three.repository / SECOND).rename(three.repository / "my birthday")
    (three.repository / "2020-01-01-000000").mkdir()
    assert shown(three.problems()) == {
        (b"", (FIRST,), dated.GONE),
        (b"", (SECOND,), dated.RENAMED.format("my birthday")),
        (b"2020-01-01-000000", (), dated.UNKNOWN),
    }
    flip(three.repository / "my birthday" / "f")
    [rotten] = [p for p in three.problems() if p.problem == faults.ROTTEN]
    assert rotten.location == os.fsencode(three.repository / "my birthday" / "f")


def test_the_mirror_removed_or_in_the_place_of_a_file(three: Nights) -> None:
    shutil.rmtree(three.current)
    assert shown(three.problems()) == {(b"", (THIRD,), dated.GONE)}
    three.current.write_text("x")
    assert shown(three.problems()) == {(b"", (THIRD,), dated.NO_FOLDER)}


# --- large files -------------------------------------------------------------------------


def test_deltas_foreign_missing_and_touched(large: LargeNights, image: Path) -> None:
    for night in range(3):
        change_pages(image, night)
        large.backup()
    oldest, middle = large.folders()
    assert large.problems() == []
    delta = middle / "d" / "image.rdiff.zst"
    delta.chmod(0o640)
    (oldest / "d" / "image").write_bytes(b"whole again?")
    found = {(p.path, p.snapshots): p.problem for p in large.problems()}
    assert "permissions" in found.pop((b"d/image", (middle.name,)))
    assert found == {(b"d/image", (oldest.name,)): findings.FOREIGN}
    delta.unlink()
    words = {p.snapshots: p.problem for p in large.problems() if p.problem != findings.FOREIGN}
    assert words == {(middle.name,): faults.MISSING, (oldest.name,): faults.DEPENDS}


# --- remembering ---------------------------------------------------------------------------


class Ticking:
    """A clock that goes on by a second whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_a_problem_is_remembered_until_it_is_gone(three: Nights) -> None:
    path = three.current / "d" / "same"
    flip(path)
    three.problems()
    assert remembered(three)[faults.ROTTEN] == 1
    flip(path)
    assert three.problems() == []
    assert set(remembered(three)) == {"well"}


def fill(nights: Nights, count: int = 60) -> None:
    for number in range(count):
        folder = nights.source / f"d{number % 6}"
        folder.mkdir(exist_ok=True)
        (folder / f"f{number}").write_text(str(number))
    nights.backup()


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(agenda, "MOST_ROWS", 4)
    monkeypatch.setattr(agenda, "TOGETHER", 8)
    monkeypatch.setattr(review, "THREADS", 1)
    monkeypatch.setattr(review, "MOST_THREADS", 1)
    yield


def test_a_budget_goes_on_where_the_last_one_ended(nights: Nights, small_tasks: None) -> None:
    fill(nights)
    counts: list[int] = []
    for _ in range(20):
        nights.now = nights.now.replace(minute=nights.now.minute + 1)
        found, _outcome = check(nights, Budget(12), clock=Ticking())
        assert found == []
        counts.append(sum(remembered(nights).values()))
        if counts[-1] == 67:  # 60 files, 6 folders, and the root
            break
    assert 0 < counts[0] < 67 and counts[-1] == 67
    assert counts == sorted(set(counts)), "each takes what was never read before"


def test_a_budget_takes_the_longest_unverified(nights: Nights, small_tasks: None) -> None:
    fill(nights)
    check(nights)
    before = nights.now
    (nights.source / "d0" / "new").write_text("never read")
    nights.backup()
    _found, outcome = check(nights, Budget(24), clock=Ticking())
    assert not outcome.complete
    with contextlib.closing(sqlite3.connect(nights.repository / ".mirrorback/catalog.db")) as db:
        later = {
            row[0]
            for row in db.execute(
                "SELECT object FROM verified WHERE time > ?", (int(before.timestamp()) * 10**9,)
            )
        }
        newest = {row[0] for row in db.execute("SELECT object FROM entry WHERE first = 2")}
    assert newest and newest <= later


def test_with_time_enough_a_budget_reads_all_once(nights: Nights) -> None:
    fill(nights)
    flip(nights.current / "d0" / "f0")
    found, outcome = check(nights, Budget(1 << 20))
    assert len(found) == 1 and outcome.complete and outcome.files == outcome.total == 60


def test_slices_are_all_together_and_a_share_is_a_part(nights: Nights) -> None:
    fill(nights)
    for folder in range(6):
        flip(nights.current / f"d{folder}" / f"f{folder}")
    found = [p.path for n in (1, 2, 3) for p in check(nights, Slice(n, 3))[0]]
    assert sorted(found) == sorted(f"d{n}/f{n}".encode() for n in range(6))
    _found, outcome = check(nights, Share(Decimal(20)))
    assert 5 <= outcome.files <= 14
    assert check(nights, Share(Decimal(100)))[1].files == 60


def test_a_part_finds_what_is_wrong_with_names(three: Nights) -> None:
    (three.repository / SECOND / "d" / "same").unlink()
    (three.repository / FIRST / "new").write_text("x")
    found = [p for n in range(1, 5) for p in check(three, Slice(n, 4))[0]]
    assert {p.path for p in found} == {b"d/same", b"new"}
    three.now = three.now.replace(minute=30)
    assert {p.path for p in check(three, Budget(1 << 20))[0]} == {b"d/same", b"new"}


def test_while_another_run_holds_the_repository_nothing_is_remembered(three: Nights) -> None:
    before = (three.repository / ".mirrorback" / "catalog.db").read_bytes()
    three.now = three.now.replace(minute=30)
    inner = os.open(three.repository / ".mirrorback", os.O_RDONLY)
    lock = Lock.take(inner)
    try:
        found, outcome = check(three, Budget(1 << 20))
    finally:
        lock.release()
        os.close(inner)
    assert found == [] and not outcome.remembered
    assert (three.repository / ".mirrorback" / "catalog.db").read_bytes() == before


def test_a_catalog_that_another_process_reads(three: Nights) -> None:
    """It may read on; nothing is remembered, and nothing fails."""
    three.now = three.now.replace(minute=30)
    with contextlib.closing(sqlite3.connect(three.repository / ".mirrorback/catalog.db")) as db:
        db.isolation_level = None
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM object").fetchone()
        found, outcome = check(three)
    assert found == [] and not outcome.remembered


def test_a_damaged_catalog_is_not_written_to(three: Nights) -> None:
    path = three.repository / ".mirrorback" / "catalog.db"
    whole = path.read_bytes()
    at = whole.index(b"fifo")
    path.write_bytes(whole[:at] + b"fiFo" + whole[at + 4 :])
    before = path.read_bytes()
    found, outcome = check(three)
    assert found and not outcome.remembered and path.read_bytes() == before


@pytest.mark.parametrize("helpers", [0, 1 << 40])
def test_attributes_in_the_catalog_that_cannot_be_read(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, helpers: int
) -> None:
    (nights.source / "f").write_text("x")
    (nights.source / "g").write_text("x")
    os.setxattr(nights.source / "f", "user.x", b"1")
    nights.backup()
    flip(nights.current / "g")
    monkeypatch.setattr(review, "WORTH_HELPERS", (helpers, helpers))
    with contextlib.closing(sqlite3.connect(nights.repository / ".mirrorback/catalog.db")) as db:
        db.execute("UPDATE attributes SET value = x'ff'")
        db.commit()
    assert {p.path for p in nights.problems()} == {b".mirrorback/catalog.db", b"g"}


# --- beside others --------------------------------------------------------------------------


def test_a_snapshot_deleted_meanwhile_is_no_damage(three: Nights) -> None:
    running = verify(str(three.repository), three.now, Heard())
    (three.current / "f").unlink()
    assert next(running).path == b"f"
    three.delete(FIRST)
    assert [p.path for p in running if p.path != b"f"] == []


def test_in_helper_processes(three: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review, "WORTH_HELPERS", (0, 0))
    assert three.problems() == []
    flip(three.current / "d" / "same")
    (three.current / "d" / "new").write_text("x")
    (three.repository / SECOND / "e").chmod(0o711)
    assert {p.path for p in three.problems()} == {b"d/same", b"d/new", b"e"}


def test_one_that_is_given_up_ends_its_helpers(
    three: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review, "WORTH_HELPERS", (0, 0))
    flip(three.current / "d" / "same")
    running = verify(str(three.repository), three.now, Heard())
    next(running)
    running.close()  # type: ignore[attr-defined]


def test_a_drive_whose_listings_tell_no_inodes(
    three: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dated.Dated, "plain", lambda self: False)
    assert three.problems() == []


def test_more_snapshots_than_are_kept_open(three: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dated, "KEPT_OPEN", 0)
    assert three.problems() == []
    (three.repository / FIRST / "d" / "same").unlink()
    assert shown(three.problems()) == {(b"d/same", (FIRST,), faults.MISSING)}


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "ntfs"])
def test_on_real_drives(kind: str, mount: Callable[[str], Path], source: Path) -> None:
    drive = mount(kind)
    nights = Nights(source, drive / "drive")
    (source / "d").mkdir()
    (source / "d" / "same").write_text("the same")
    os.chown(source / "d" / "same", 1000, 1000)
    (source / "d" / "same").chmod(0o4751)
    for text in ("one", "two"):
        (source / "f").write_text(text)
        time.sleep(0.03)
        nights.backup()
    assert nights.problems() == []
    flip(nights.current / "d" / "same")
    (nights.folders()[0] / "d" / "new").write_text("x")
    assert {p.problem for p in nights.problems()} == {faults.ROTTEN, findings.FOREIGN}


# --- much at once, and what nobody knew ------------------------------------------------------


@pytest.mark.parametrize("helpers", [0, 1 << 40])
def test_metadata_of_all_files(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, helpers: int
) -> None:
    """What is wrong with nothing but metadata needs no closer look; what is, gets one."""
    fill(nights)
    nights.backup(always=True)
    os.link(nights.source / "d1" / "f1", nights.source / "d2" / "linked")
    nights.backup()
    for path in nights.current.rglob("f*"):
        path.chmod(0o606)
    flip(nights.current / "d3" / "f3")
    (nights.folders()[0] / "d4" / "f4").unlink()
    monkeypatch.setattr(review, "WORTH_HELPERS", (helpers, helpers))
    looked: list[int] = []
    look = examine.Examiner.look

    def counted(self: Any, number: int, **rest: Any) -> Any:
        looked.append(number)
        return look(self, number, **rest)

    monkeypatch.setattr(examine.Examiner, "look", counted)
    found = {(p.path, p.problem): p for p in nights.problems()}
    assert len(found) == 62 and all(p.repairable for p in found.values())
    assert len(looked) == 3, "the linked one, the rotten one, the missing one"
    one = found[b"d0/f0", "permissions are 0606, not 0644"]
    assert one.snapshots == EVERY
    assert one.location == os.fsencode(nights.current / "d0" / "f0")
    assert len(nights.marked()) == 60
    assert nights.repair().left == 0
    assert nights.problems() == []


def without_digests(nights: Nights) -> None:
    """A catalog made anew where there was none to take digests from."""
    for name in ("catalog.db", "catalog.blake3"):
        (nights.repository / ".mirrorback" / name).unlink()
    result = rebuild(str(nights.repository), RebuildOptions(force=True), nights.now, Heard())
    assert result is not None and unknown(nights) > 0


def unknown(nights: Nights) -> int:
    with contextlib.closing(sqlite3.connect(nights.repository / ".mirrorback/catalog.db")) as db:
        query = "SELECT count(*) FROM object WHERE kind = 1 AND digest IS NULL"
        found: int = db.execute(query).fetchone()[0]
        return found


def test_digests_that_a_rebuilt_catalog_lacks_are_learnt(three: Nights) -> None:
    with (three.source / "sparse").open("wb") as file:
        file.truncate(2 << 30)
    three.backup()
    without_digests(three)
    found, _outcome = check(three, Slice(1, 2))
    assert found == [] and unknown(three) > 0
    assert three.problems() == [] and unknown(three) == 0
    flip(three.current / "d" / "same")
    assert {p.path: p.problem for p in three.problems()} == {b"d/same": faults.ROTTEN}
    assert three.repair().left == 0
    assert three.problems() == []
    assert three.backup().summary.bytes_copied == 0


def test_a_digest_is_not_learnt_of_what_was_touched(three: Nights) -> None:
    without_digests(three)
    (three.current / "f").write_text("other")
    [problem] = three.problems()
    assert problem.path == b"f" and unknown(three) == 1


@pytest.mark.parametrize("name", ["d/hard", "hard"])
def test_a_hard_link_that_only_one_snapshot_shows_is_missing(nights: Nights, name: str) -> None:
    """Under its other name, in another folder, it is sound."""
    (nights.source / "d").mkdir()
    (nights.source / "hard").write_text("one")
    os.link(nights.source / "hard", nights.source / "d" / "hard")
    nights.backup()
    (nights.source / "hard").chmod(0o640)
    nights.backup()
    assert nights.problems() == []
    missing = nights.current / name
    st = missing.parent.stat()
    missing.unlink()
    os.utime(missing.parent, ns=(st.st_atime_ns, st.st_mtime_ns))
    assert [(p.path, p.problem) for p in nights.problems()] == [(os.fsencode(name), "missing")]
    assert nights.repair().left == 0 and nights.problems() == []
    assert missing.samefile(nights.current / "hard")
    assert missing.samefile(nights.current / "d" / "hard")
