"""Repair: whatever happens to files on the drive, what can be got back is got back exactly."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import LargeNights, Nights, change_pages
from trees import Tree, describe, require_same

from mirrorback.engine import examine, faults, preparing
from mirrorback.engine.read_back import ReadBack
from mirrorback.errors import Damaged, DriveError, Locked, NoRepository, UsageError
from mirrorback.model import Repair
from mirrorback.store import mend, record
from mirrorback.store.catalog import Catalog
from mirrorback.store.lock import Lock

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NIGHTS = 5


class Kept:
    """What every snapshot showed before anything was damaged."""

    def __init__(self, nights: Nights) -> None:
        self.nights = nights
        self.trees: dict[Path, Tree] = {p: describe(p) for p in self.folders()}

    def folders(self) -> list[Path]:
        return [*self.nights.folders(), self.nights.current]

    def require(self) -> None:
        """Every snapshot is exact, between snapshots too, and nothing is left behind."""
        for folder, tree in self.trees.items():
            require_same(tree, describe(folder))
        assert self.nights.problems() == []
        assert self.nights.marked() == []
        inner = self.nights.repository / ".mirrorback"
        assert list((inner / "redo").iterdir()) == []
        assert list((inner / "trash").iterdir()) == []

    def inodes(self, path: str) -> set[int]:
        """The inodes of a path in all snapshots that have it."""
        return {(p / path).lstat().st_ino for p in self.folders() if os.path.lexists(p / path)}

    def apart(self) -> list[bytes]:
        """What has been set apart: its content."""
        folder = self.nights.repository / ".mirrorback/damaged"
        if not folder.exists():
            return []
        return sorted(path.read_bytes() for path in folder.iterdir() if path.is_file())


def fill(source: Path) -> None:
    (source / "d" / "deep").mkdir(parents=True)
    (source / "d" / "deep" / "letter").write_bytes(b"a letter\n" * 1000)
    (source / "other").write_text("other")
    os.link(source / "other", source / "d" / "linked")
    (source / "s").symlink_to("other")
    os.mkfifo(source / "p")
    (source / "empty").touch()
    os.setxattr(source / "d" / "deep" / "letter", "user.colour", b"red")
    (source / "d" / "deep" / "letter").chmod(0o640)
    os.utime(source / "d" / "deep", ns=(5, 1_500_000_000_000_000_001))
    os.utime(source / "d" / "deep" / "letter", ns=(5, 1_500_000_000_123_456_789))
    time.sleep(0.03)


LETTER = "d/deep/letter"


def some_nights(nights: Nights, count: int = NIGHTS) -> Kept:
    fill(nights.source)
    for number in range(count):
        (nights.source / "count").write_text(str(number))
        time.sleep(0.03)
        nights.backup()
    return Kept(nights)


def flip(path: Path, at: int = 100) -> None:
    """Flip a bit, as a drive does that forgets: no time changes."""
    st = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 4]))
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


def only(nights: Nights, **options: object) -> Repair:
    [found] = nights.repair(**options).repairs  # type: ignore[arg-type]
    return found


@pytest.fixture(params=["ext4", "xfs", "btrfs", "ntfs"])
def drive(request: pytest.FixtureRequest, mount: Callable[[str], Path], source: Path) -> Nights:
    """Nights on a file system of its own."""
    return Nights(source, mount(request.param) / "r")


# --- content ---------------------------------------------------------------------------


def test_a_flipped_bit_comes_back_from_the_source(drive: Nights) -> None:
    kept = some_nights(drive)
    assert len(kept.inodes(LETTER)) == 1
    flip(drive.current / LETTER)
    drive.mark(LETTER)
    damaged = (drive.current / LETTER).read_bytes()
    found = only(drive)
    assert (found.repaired, found.origin, found.path) == (True, "source", os.fsencode(LETTER))
    assert len(found.snapshots) == NIGHTS
    kept.require()
    assert len(kept.inodes(LETTER)) == 1
    assert kept.apart() == [damaged]
    assert found.set_apart is not None
    assert Path(os.fsdecode(found.set_apart)).read_bytes() == damaged
    assert drive.repair().repairs == []


def test_the_source_is_trusted_by_its_digest_alone(nights: Nights) -> None:
    kept = some_nights(nights)
    flip(nights.current / LETTER)
    nights.mark(LETTER)
    flip(nights.source / LETTER, at=7)
    found = only(nights)
    assert (found.repaired, found.origin, found.set_apart) == (False, None, None)
    assert nights.repair().left == 1
    assert kept.apart() == []
    flip(nights.source / LETTER, at=7)
    os.utime(nights.source / LETTER)  # another time, the right content
    assert only(nights).origin == "source"
    kept.require()


def test_content_comes_back_from_a_twin(nights: Nights) -> None:
    fill(nights.source)
    (nights.source / "copy").write_bytes((nights.source / LETTER).read_bytes())
    time.sleep(0.03)
    nights.backup()
    (nights.source / "copy").unlink()
    (nights.source / LETTER).write_text("shorter")
    time.sleep(0.03)
    nights.backup()
    kept = Kept(nights)
    [old] = nights.folders()
    flip(old / LETTER)
    nights.mark(LETTER, at=old.name)
    assert only(nights).origin == "history"
    kept.require()


def test_what_moved_in_the_source_is_found_there(nights: Nights) -> None:
    kept = some_nights(nights)
    (nights.source / LETTER).rename(nights.source / "moved")
    nights.backup()
    kept = Kept(nights)
    flip(nights.folders()[0] / LETTER)
    nights.mark("moved")
    assert only(nights).origin == "source"
    kept.require()


def test_the_source_may_be_elsewhere(nights: Nights, tmp_path: Path) -> None:
    kept = some_nights(nights)
    flip(nights.current / LETTER)
    nights.mark(LETTER)
    nights.source.rename(tmp_path / "elsewhere")
    assert not only(nights).repaired
    assert only(nights, source=tmp_path / "elsewhere").origin == "source"
    kept.require()
    with pytest.raises(UsageError, match="not a folder"):
        nights.repair(source=tmp_path / "nowhere")


def test_an_edit_through_a_hard_link_is_set_apart(drive: Nights) -> None:
    kept = some_nights(drive)
    with (drive.folders()[1] / "other").open("w") as file:
        file.write("what someone wrote here")
    drive.mark("other")
    found = only(drive)
    assert found.repaired
    kept.require()
    assert kept.apart() == [b"what someone wrote here"]
    assert b"2026-11-02" in (found.set_apart or b"")
    assert (found.set_apart or b"").endswith((b",other", b",d%2Flinked"))


def test_nothing_is_made_up(nights: Nights) -> None:
    kept = some_nights(nights)
    (nights.source / LETTER).unlink()
    flip(nights.current / LETTER)
    nights.mark(LETTER)
    before = describe(nights.repository)
    result = nights.repair()
    assert (result.left, result.repairs[0].repaired) == (1, False)
    assert len(nights.marked()) == 1
    assert kept.apart() == []
    after = describe(nights.repository)
    assert {p for p in before if b".mirrorback" not in p} == {
        p for p in after if b".mirrorback" not in p
    }


def test_large_names_and_odd_ones_are_set_apart(nights: Nights) -> None:
    names = [b"n" * 255, b"odd\xff\n%", b"d" * 200]
    for name in names:
        (nights.source / os.fsdecode(name)).write_bytes(name)
    time.sleep(0.03)
    nights.backup()
    kept = Kept(nights)
    for name in names:
        (nights.current / os.fsdecode(name)).write_bytes(b"edited")
    nights.mark()
    assert sum(one.set_apart is not None for one in nights.repair().repairs) == 3
    kept.require()
    assert kept.apart() == [b"edited"] * 3


# --- names ------------------------------------------------------------------------------


def test_a_removed_name_is_linked_again(drive: Nights) -> None:
    kept = some_nights(drive)
    (drive.folders()[2] / LETTER).unlink()
    drive.mark(LETTER)
    found = only(drive)
    assert (found.origin, found.set_apart) == ("links", None)
    kept.require()
    assert len(kept.inodes(LETTER)) == 1


def test_a_replaced_name_is_linked_again(drive: Nights) -> None:
    kept = some_nights(drive)
    path = drive.folders()[2] / LETTER
    path.unlink()
    path.write_text("an editor's new file")
    drive.mark(LETTER)
    assert only(drive).origin == "links"
    kept.require()
    assert len(kept.inodes(LETTER)) == 1
    assert kept.apart() == [b"an editor's new file"]


def test_a_group_of_links_is_one_again(nights: Nights) -> None:
    kept = some_nights(nights)
    for folder in kept.folders():
        (folder / "d" / "linked").unlink()
        shutil.copy2(folder / "other", folder / "d" / "linked")
    nights.mark("other")
    assert only(nights).origin == "links"
    kept.require()
    assert kept.inodes("other") == kept.inodes("d/linked")


def test_files_that_someone_has_fused_are_parted(nights: Nights) -> None:
    for name in ("one", "two"):
        (nights.source / name).write_text("the same")
        os.utime(nights.source / name, ns=(5, 1_500_000_000_000_000_000))
    nights.backup()
    nights.backup(always=True)
    kept = Kept(nights)
    for folder in kept.folders():
        (folder / "two").unlink()
        os.link(folder / "one", folder / "two")
    nights.mark("two")
    only(nights)
    assert kept.inodes("one") != kept.inodes("two")
    assert len(kept.inodes("two")) == 1


@pytest.mark.parametrize("name", ["s", "p", "other", "empty", LETTER])
@pytest.mark.parametrize("instead", ["file", "folder", "symlink", "fifo"])
def test_something_else_in_its_place(nights: Nights, name: str, instead: str) -> None:
    kept = some_nights(nights, 2)
    for folder in kept.folders():
        path = folder / name
        path.unlink()
        if instead == "file":
            path.write_text("strange")
        elif instead == "folder":
            path.mkdir()
            (path / "within").write_text("strange")
        elif instead == "symlink":
            path.symlink_to("/etc")
        else:
            os.mkfifo(path)
    nights.mark(name)
    found = only(nights)
    assert found.repaired
    assert found.set_apart is not None
    assert os.path.lexists(found.set_apart)
    kept.require()


def test_a_symlink_gets_its_target_again(drive: Nights) -> None:
    kept = some_nights(drive)
    for folder in kept.folders():
        (folder / "s").unlink()
        (folder / "s").symlink_to("elsewhere")
    drive.mark("s")
    found = only(drive)
    assert (found.repaired, found.origin) == (True, "catalog")
    kept.require()
    assert os.readlink(os.fsencode(found.set_apart or b"")) == b"elsewhere"


def test_an_empty_file_needs_nothing(nights: Nights) -> None:
    kept = some_nights(nights)
    (nights.current / "empty").write_text("no more")
    (nights.source / "empty").unlink()
    nights.mark("empty")
    assert only(nights).origin == "catalog"
    kept.require()


# --- metadata ----------------------------------------------------------------------------


def test_permissions_are_right_again_on_another_inode(drive: Nights) -> None:
    kept = some_nights(drive)
    before = kept.inodes(LETTER)
    (drive.current / LETTER).chmod(0o666)
    os.utime(drive.current / LETTER)
    drive.mark(LETTER)
    found = only(drive)
    assert found.origin == "itself"
    assert len(kept.inodes(LETTER)) == 1
    assert kept.inodes(LETTER) != before
    apart = Path(os.fsdecode(found.set_apart or b""))
    assert {apart.stat().st_ino} == before
    assert apart.stat().st_mode & 0o777 == 0o666
    kept.require()


@as_root
def test_owner_and_attributes_come_back(nights: Nights) -> None:
    fill(nights.source)
    os.chown(nights.source / LETTER, 12, 34)
    os.chmod(nights.source / LETTER, 0o4755)
    time.sleep(0.03)
    nights.backup()
    kept = Kept(nights)
    os.setxattr(nights.current / LETTER, "user.colour", b"green")
    os.chown(nights.current / LETTER, 0, 0)
    nights.mark(LETTER)
    assert only(nights).repaired
    kept.require()


def test_a_folder_is_put_right(drive: Nights) -> None:
    kept = some_nights(drive)
    folder = drive.folders()[1] / "d" / "deep"
    folder.chmod(0o777)
    os.utime(folder)
    drive.mark("d/deep")
    assert only(drive).origin == "catalog"
    kept.require()


# --- folders ------------------------------------------------------------------------------


def test_a_missing_folder_comes_back_with_all_it_held(drive: Nights) -> None:
    (drive.source / "d" / "deep" / "none").mkdir(parents=True)
    shutil.rmtree(drive.source / "d")
    fill(drive.source)
    (drive.source / "d" / "deep" / "none").mkdir()
    (drive.source / "d" / "deep" / "none").chmod(0o750)
    for _ in range(3):
        drive.backup(always=True)
    kept = Kept(drive)
    shutil.rmtree(drive.folders()[1] / "d")
    drive.mark(LETTER)
    result = drive.repair()
    assert result.left == 0
    kept.require()
    assert len(kept.inodes("d/linked")) == 1


def test_a_file_in_the_place_of_a_folder(nights: Nights) -> None:
    kept = some_nights(nights)
    path = nights.current / "d"
    shutil.rmtree(path)
    path.write_text("no folder")
    nights.mark("d", LETTER)
    result = nights.repair()
    assert result.left == 0
    kept.require()
    assert kept.apart() == [b"no folder"]
    assert any(one.path == b"d" and one.set_apart for one in result.repairs)


def test_a_symlink_in_the_place_of_a_folder_leads_nowhere(nights: Nights, tmp_path: Path) -> None:
    kept = some_nights(nights)
    trap = tmp_path / "trap"
    (trap / "deep").mkdir(parents=True)
    (trap / "deep" / "letter").write_text("mine")
    path = nights.folders()[0] / "d"
    shutil.rmtree(path)
    path.symlink_to(trap)
    nights.mark(LETTER)
    assert nights.repair().left == 0
    kept.require()
    assert (trap / "deep" / "letter").read_text() == "mine"


def rich(nights: Nights) -> Kept:
    """Some nights, with something of each kind that only one of them shows."""
    (nights.source / "short").mkdir(parents=True)
    (nights.source / "short" / "link").symlink_to("nowhere")
    (nights.source / "short" / "only here").write_text("what only this night shows")
    nights.backup()
    shutil.rmtree(nights.source / "short")
    return some_nights(nights)


def test_a_dated_folder_that_is_gone_is_made_anew(drive: Nights) -> None:
    kept = rich(drive)
    gone = drive.folders()[2]
    shutil.rmtree(gone)
    assert [(p.snapshots, p.repairable) for p in drive.problems()] == [((gone.name,), True)]
    dry = drive.repair(dry_run=True)
    assert not gone.exists()
    result = drive.repair()
    told = [(one.path, one.snapshots, one.repaired, one.origin) for one in result.repairs]
    assert told[0] == (b"", (gone.name,), True, "links")
    assert told[1:] == [(b"count", (gone.name,), False, None)], "what only it had"
    assert result.repairs == dry.repairs and (result.left, dry.left) == (1, 1)
    assert result.absent == dry.absent == []
    wanted = kept.trees.pop(gone)
    found = describe(gone)
    assert wanted.pop(b"count") and not (gone / "count").exists()
    require_same(wanted, found)
    assert len(kept.inodes(LETTER)) == 1 and len(drive.marked()) == 1
    for folder, tree in kept.trees.items():
        require_same(tree, describe(folder))
    assert [p.path for p in drive.problems()] == [b"count"]
    drive.delete(gone.name)
    kept.require()


def test_what_only_the_source_still_has_of_a_folder_that_is_gone(nights: Nights) -> None:
    kept = rich(nights)
    gone = nights.folders()[0]
    shutil.rmtree(gone)
    (nights.source / "short").mkdir()
    (nights.source / "short" / "only here").write_text("what only this night shows")
    dry = nights.repair(dry_run=True)
    result = nights.repair()
    assert [(one.path, one.origin) for one in result.repairs] == [
        (b"", "links"),
        (b"short/only here", "source"),
    ]
    assert result.repairs == dry.repairs and result.left == 0
    kept.require()


@pytest.mark.parametrize("instead", ["file", "symlink"])
def test_something_in_the_place_of_a_dated_folder(
    nights: Nights, tmp_path: Path, instead: str
) -> None:
    kept = some_nights(nights, 2)
    [gone] = nights.folders()
    shutil.rmtree(gone)
    if instead == "file":
        gone.write_text("strange")
    else:
        gone.symlink_to(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert all(problem.repairable for problem in nights.problems() if not problem.path)
    nights.repair()
    assert gone.is_dir() and not gone.is_symlink() and sorted(tmp_path.iterdir()) == before
    assert len(list((nights.repository / ".mirrorback/damaged").iterdir())) == 1
    kept.trees[gone].pop(b"count")
    found = describe(gone)
    require_same(kept.trees[gone], found)


def test_deltas_of_a_dated_folder_that_is_gone(large: LargeNights, image: Path) -> None:
    """One that others show comes back; over one that is lost, older ones are lost as well."""
    large.backup()
    (large.source / "count").write_text("1")
    large.backup()
    for seed in (2, 3):
        change_pages(image, seed)
        time.sleep(0.03)
        large.backup()
    kept = Kept(large)
    first, second, third = large.folders()
    shutil.rmtree(second)
    assert large.repair().left == 0
    kept.require()
    shutil.rmtree(third)
    dry = large.repair(dry_run=True)
    result = large.repair()
    assert result.repairs == dry.repairs and result.left == 1
    lost = {one.snapshots for one in large.problems() if not one.repairable}
    assert lost == {(third.name,), (first.name, second.name)}


def test_cut_before_it_has_all_it_should_show(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The marks are there before the folder is: the next repair goes on."""
    kept = rich(nights)
    gone = nights.folders()[0]
    (nights.source / "short").mkdir()
    (nights.source / "short" / "only here").write_text("what only this night shows")
    shutil.rmtree(gone)

    def cut(*_rest: Any, **_more: Any) -> None:
        raise KeyboardInterrupt

    for at in ("make_top", "look"):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            if at == "look":
                patched.setattr(examine.Examiner, "look", cut)
            else:
                patched.setattr(mend, "make_top", cut)
            nights.repair()
    assert list(gone.iterdir()) == []
    assert nights.repair().left == 0
    kept.require()


def test_a_dated_folder_that_was_renamed_gets_its_name_back(drive: Nights) -> None:
    kept = some_nights(drive)
    folder = drive.folders()[1]
    flip(folder / LETTER)
    drive.mark(LETTER)
    folder.rename(drive.repository / "my birthday")
    [problem] = [p for p in drive.problems() if not p.path]
    assert problem.repairable
    dry = drive.repair(dry_run=True)
    assert (drive.repository / "my birthday").exists()
    result = drive.repair()
    assert result.repairs[0].origin == "name" and result.left == dry.left == 0
    assert [one.origin for one in dry.repairs] == [one.origin for one in result.repairs]
    kept.require()


def test_a_renamed_folder_that_may_be_another_is_only_told(nights: Nights) -> None:
    some_nights(nights)
    folder = nights.folders()[1]
    other = nights.repository / "my birthday"
    folder.rename(other)
    (other / "other").unlink()
    [problem] = [p for p in nights.problems() if not p.path]
    assert not problem.repairable
    result = nights.repair()
    assert result.absent == [(folder.name, os.fsencode(folder))]
    assert other.exists() and not folder.exists()


def test_the_mirror_that_was_renamed_gets_its_name_back(nights: Nights) -> None:
    kept = some_nights(nights)
    nights.current.rename(nights.repository / "mirror")
    assert nights.repair().left == 0
    kept.require()
    shutil.rmtree(nights.current)
    assert nights.repair(dry_run=True).absent == nights.repair().absent != []


def test_a_folder_closed_for_writing(nights: Nights) -> None:
    fill(nights.source)
    (nights.source / "d" / "deep").chmod(0o555)
    os.utime(nights.source / "d" / "deep", ns=(5, 1_500_000_000_000_000_001))
    time.sleep(0.03)
    nights.backup()
    nights.backup(always=True)
    kept = Kept(nights)
    flip(nights.current / LETTER)
    nights.mark(LETTER)
    assert only(nights).repaired
    kept.require()


# --- large files -------------------------------------------------------------------------


def chain(large: LargeNights, image: Path, count: int = 4) -> Kept:
    large.backup()
    for seed in range(2, count + 1):
        change_pages(image, seed)
        time.sleep(0.03)
        large.backup()
    return Kept(large)


def restores(large: LargeNights, tmp_path: Path) -> list[bytes]:
    found = []
    with large.history() as history:
        names = [snapshot.name for snapshot in history.snapshots()]
    for name in names:
        to = tmp_path / "back" / name
        large.restore(to, at=name)
        found.append((to / "d" / "image").read_bytes())
    return found


def test_the_base_of_a_chain_is_mended_and_the_chain_with_it(
    large: LargeNights, image: Path, tmp_path: Path
) -> None:
    kept = chain(large, image)
    versions = restores(large, tmp_path)
    shutil.rmtree(tmp_path / "back")
    signature = {
        p.name: p.read_bytes() for p in (large.repository / ".mirrorback/signatures").iterdir()
    }
    for at in range(0, image.stat().st_size, 4096):
        flip(large.current / "d" / "image", at)
    large.mark("d/image")
    for folder in large.folders():
        large.mark("d/image", at=folder.name)
    assert len(large.problems()) == 4
    dry = large.repair(dry_run=True)
    assert [one.origin for one in dry.repairs].count("source") == 1
    assert dry.left == 0
    result = large.repair()
    assert sorted(str(one.origin) for one in result.repairs) == [
        "delta",
        "delta",
        "delta",
        "source",
    ]
    kept.require()
    assert restores(large, tmp_path) == versions
    left = {p.name: p.read_bytes() for p in (large.repository / ".mirrorback/signatures").iterdir()}
    assert left == signature
    change_pages(image, 9)
    time.sleep(0.03)
    large.backup()
    assert (large.folders()[-1] / "d" / "image.rdiff.zst").exists()
    assert large.problems() == []


def test_a_damaged_delta_is_made_again_of_a_twin(
    large: LargeNights, image: Path, tmp_path: Path
) -> None:
    shutil.copy2(image, image.parent / "twin")
    time.sleep(0.03)
    kept = chain(large, image, 2)
    versions = restores(large, tmp_path)
    shutil.rmtree(tmp_path / "back")
    [old] = large.folders()
    delta = old / "d" / "image.rdiff.zst"
    flip(delta, 200)
    (image.parent / "twin").write_text("gone")
    large.mark("d/image", at=old.name)
    found = only(large)
    assert (found.repaired, found.origin) == (True, "history")
    assert delta.exists()
    assert not (old / "d" / "image").exists()
    assert large.problems() == []
    assert large.marked() == []
    assert restores(large, tmp_path) == versions
    require_same(kept.trees[old], describe(old))


def test_a_delta_whose_base_is_lost_becomes_whole(
    large: LargeNights, image: Path, tmp_path: Path
) -> None:
    shutil.copy2(image, image.parent / "twin")
    time.sleep(0.03)
    chain(large, image, 2)
    [old] = large.folders()
    content = (image.parent / "twin").read_bytes()
    (old / "d" / "image").write_text("put here by someone")
    for at in range(0, image.stat().st_size, 4096):
        flip(large.current / "d" / "image", at)
    image.unlink()
    large.mark("d/image")
    large.mark("d/image", at=old.name)
    result = large.repair()
    assert result.left == 1
    assert (old / "d" / "image").read_bytes() == content
    assert not (old / "d" / "image.rdiff.zst").exists()
    apart = large.repository / ".mirrorback/damaged"
    assert sorted(path.name.partition(",")[2] for path in apart.iterdir()) == [
        "d%2Fimage", "d%2Fimage.rdiff.zst",
    ]  # fmt: skip
    assert len(large.problems()) == 1
    large.restore(tmp_path / "back", at=old.name)
    assert (tmp_path / "back/d/image").read_bytes() == content


def test_content_comes_back_through_a_twin_that_is_a_delta(large: LargeNights, image: Path) -> None:
    """The file was copied, then the first name changed: history has it as a delta only."""
    first = image.read_bytes()
    large.backup()
    change_pages(image, 2)
    time.sleep(0.03)
    large.backup()
    (image.parent / "again").write_bytes(first)
    time.sleep(0.03)
    large.backup()
    kept = Kept(large)
    flip(large.current / "d" / "again")
    (image.parent / "again").unlink()
    large.mark("d/again")
    assert only(large).origin == "delta"
    kept.require()


def test_metadata_of_a_delta(large: LargeNights, image: Path) -> None:
    kept = chain(large, image, 3)
    old = large.folders()[0]
    (old / "d" / "image.rdiff.zst").chmod(0o777)
    large.mark("d/image", at=old.name)
    assert only(large).origin == "itself"
    kept.require()


def test_a_delta_that_is_missing_in_one_folder(large: LargeNights, image: Path) -> None:
    large.backup()
    (large.source / "count").write_text("1")
    time.sleep(0.03)
    large.backup()
    change_pages(image, 2)
    time.sleep(0.03)
    large.backup()
    kept = Kept(large)
    (large.folders()[0] / "d" / "image.rdiff.zst").unlink()
    large.mark("d/image", at=large.folders()[0].name)
    assert only(large).origin == "links"
    kept.require()


# --- the backup after ----------------------------------------------------------------------


def test_the_next_backup_copies_what_could_not_be_mended(drive: Nights) -> None:
    fill(drive.source)
    drive.backup()
    kept = Kept(drive)
    before = kept.trees[drive.current]
    flip(drive.current / LETTER)
    moved = drive.source.rename(drive.source.parent / "away")
    drive.mark(LETTER)
    assert not only(drive).repaired
    moved.rename(drive.source)
    summary = drive.backup().summary
    assert not summary.unchanged
    assert summary.bytes_copied == (drive.source / LETTER).stat().st_size
    assert (summary.files_changed, summary.files_new, summary.files_metadata) == (0, 0, 0)
    require_same(before, describe(drive.current))
    assert len(kept.inodes(LETTER)) == 2
    assert drive.backup().summary.unchanged
    assert len(drive.marked()) == 1
    # Now there is a twin, and the old one can be mended.
    assert only(drive).repaired
    for folder in drive.folders():
        require_same(before, describe(folder))
    assert drive.problems() == []


@pytest.mark.parametrize("how", ["chmod", "rename", "rename of the folder", "link", "touch"])
def test_a_damaged_file_is_never_gone_on_from(nights: Nights, how: str) -> None:
    fill(nights.source)
    nights.backup()
    flip(nights.current / LETTER)
    flip(nights.current / "other", 2)
    nights.mark(LETTER, "other")
    source = nights.source
    if how == "chmod":
        (source / LETTER).chmod(0o600)
        (source / "other").chmod(0o600)
    elif how == "rename":
        (source / LETTER).rename(source / "letter")
        (source / "other").rename(source / "another")
    elif how == "rename of the folder":
        (source / "d").rename(source / "e")
    elif how == "link":
        os.link(source / LETTER, source / "linked")
        os.link(source / "other", source / "linked too")
    else:
        os.utime(source / LETTER)
        os.utime(source / "other")
    time.sleep(0.03)
    nights.backup()
    require_same(describe(source), describe(nights.current))
    nights.backup(always=True)
    require_same(describe(source), describe(nights.current))


def test_a_damaged_large_file_is_no_base(large: LargeNights, image: Path) -> None:
    chain(large, image, 2)
    flip(large.current / "d" / "image", 5000)
    large.mark("d/image")
    change_pages(image, 3)
    time.sleep(0.03)
    large.backup()
    assert (large.current / "d" / "image").read_bytes() == image.read_bytes()
    assert (large.folders()[-1] / "d" / "image").exists()  # no delta over what was damaged
    assert not (large.folders()[-1] / "d" / "image.rdiff.zst").exists()


def test_a_mark_for_a_name_in_history_costs_the_next_backup_nothing(nights: Nights) -> None:
    some_nights(nights)
    (nights.folders()[0] / LETTER).unlink()
    nights.mark(LETTER)
    assert nights.backup().summary.unchanged


def test_an_unreadable_source_keeps_what_there_is(nights: Nights) -> None:
    fill(nights.source)
    nights.backup()
    flip(nights.current / LETTER)
    nights.mark(LETTER)
    (nights.source / LETTER).unlink()
    os.mkfifo(nights.source / LETTER)
    nights.backup()
    assert len(nights.marked()) == 1


# --- the whole ----------------------------------------------------------------------------


def test_all_marked_and_nothing_wrong(nights: Nights) -> None:
    kept = some_nights(nights)
    nights.mark()
    before = describe(nights.current)
    result = nights.repair()
    assert all(one.repaired and one.origin is None for one in result.repairs)
    require_same(before, describe(nights.current))
    kept.require()
    assert kept.apart() == []


def test_a_dry_run_writes_nothing(nights: Nights) -> None:
    some_nights(nights)
    flip(nights.current / LETTER)
    (nights.folders()[1] / "other").unlink()
    shutil.rmtree(nights.folders()[2] / "d")
    (nights.current / "s").unlink()
    nights.mark()
    before = describe(nights.repository)
    result = nights.repair(dry_run=True)
    require_same(before, describe(nights.repository))
    told = {one.path: one.origin for one in result.repairs if one.origin is not None}
    assert told[os.fsencode(LETTER)] == "source"
    assert told[b"s"] == "links"
    assert told[b"d"] == "catalog"
    assert result.left == 0


def test_nothing_is_marked(nights: Nights) -> None:
    some_nights(nights)
    before = describe(nights.repository)
    assert nights.repair().repairs == []
    nights.repair(dry_run=True)
    after = describe(nights.repository)
    assert before.keys() == after.keys()


def test_another_run_holds_it(nights: Nights) -> None:
    some_nights(nights, 1)
    inner = os.open(nights.repository / ".mirrorback", os.O_RDONLY)
    held = Lock.take(inner)
    try:
        for dry_run in (False, True):
            with pytest.raises(Locked):
                nights.repair(dry_run=dry_run)
    finally:
        held.release()
        os.close(inner)


def test_a_dry_run_leaves_a_cut_run_alone(nights: Nights) -> None:
    some_nights(nights, 2)
    catalog = Catalog.open(os.fsencode(nights.repository / ".mirrorback/catalog.db"), write=True)
    record.mending(catalog, {1: None})
    catalog.close()
    with pytest.raises(DriveError, match="cut short"):
        nights.repair(dry_run=True)
    nights.repair()
    nights.repair(dry_run=True)


def test_no_repository(nights: Nights) -> None:
    with pytest.raises(NoRepository):
        nights.repair()


def test_more_links_than_the_drive_allows(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit of links another inode takes over, and the catalog knows."""
    link, limit = os.link, 20

    def few(src: Any, dst: Any, *, src_dir_fd: int, dst_dir_fd: int, **rest: Any) -> None:
        if os.stat(src, dir_fd=src_dir_fd, follow_symlinks=False).st_nlink >= limit:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        link(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, **rest)

    def inodes() -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in nights.current.iterdir()}

    (nights.source / "f").write_text("one")
    for number in range(30):
        link(nights.source / "f", nights.source / f"g{number:02}")
    time.sleep(0.03)
    monkeypatch.setattr(os, "link", few)
    nights.backup()
    assert len(set(inodes().values())) == 2
    for path in list(nights.current.iterdir()):
        path.unlink()
        path.write_text("replaced")
    nights.mark("f")
    assert only(nights).origin == "source"
    assert {path.read_text() for path in nights.current.iterdir()} == {"one"}
    assert len(set(inodes().values())) == 2
    assert nights.problems() == []
    (nights.source / "other").write_text("two")
    time.sleep(0.03)
    nights.backup()
    assert nights.problems() == []
    # Sound inodes of an object that is split stay where they are.
    before = inodes()
    (nights.current / "g15").unlink()
    nights.mark("f")
    assert only(nights).origin in ("links", "itself")
    after = inodes()
    assert (nights.current / "g15").read_text() == "one"
    del before["g15"], after["g15"]
    assert before == after
    assert nights.problems() == []


def test_a_damaged_file_with_all_links_is_set_apart_as_a_copy(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = some_nights(nights, 3)
    (nights.current / LETTER).write_text("edited")
    link, full = os.link, (nights.current / LETTER).stat().st_ino

    def few(src: Any, dst: Any, *, src_dir_fd: int, dst_dir_fd: int, **rest: Any) -> None:
        if os.stat(src, dir_fd=src_dir_fd, follow_symlinks=False).st_ino == full:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        link(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, **rest)

    monkeypatch.setattr(os, "link", few)
    nights.mark(LETTER)
    assert only(nights).repaired
    kept.require()
    assert kept.apart() == [b"edited"]


def test_a_bad_sector_is_damage(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read is mended, and what it was is kept for who can."""
    kept = some_nights(nights, 3)
    lost = (nights.current / LETTER).stat().st_ino
    pread = os.pread

    def bad(fd: int, size: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == lost:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(fd, size, offset)

    nights.mark(LETTER)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", bad)
        assert only(nights).origin == "source"
    kept.require()
    assert lost not in kept.inodes(LETTER)


def test_what_cannot_be_proven_is_not_given(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drive does not hold what was written to it: nothing on it changes."""
    kept = some_nights(nights, 3)
    flip(nights.current / LETTER)
    nights.mark(LETTER)
    inode = kept.inodes(LETTER)
    with monkeypatch.context() as patched:
        patched.setattr(preparing, "_has", lambda fd, digest: False)
        result = nights.repair()
    assert (result.left, result.repairs[0].set_apart) == (1, None)
    assert kept.inodes(LETTER) == inode
    assert len(nights.marked()) == 1
    assert list((nights.repository / ".mirrorback" / "redo").iterdir()) == []
    assert only(nights).repaired
    kept.require()


def test_a_removal_does_not_build_on_damage(
    large: LargeNights, image: Path, tmp_path: Path
) -> None:
    """A delta that is composed over what is damaged is right when that is: a later repair
    mends both."""
    content = image.read_bytes()
    chain(large, image, 3)
    for at in range(0, image.stat().st_size, 4096):
        flip(large.current / "d" / "image", at)
    away = image.rename(tmp_path / "away")
    large.mark("d/image")
    assert large.repair().left == 1
    large.delete(large.folders()[1].name)
    [old] = large.folders()
    assert {p.repairable for p in large.problems()} == {False}
    away.rename(image)
    assert large.repair().left == 0
    large.restore(tmp_path / "back", at=old.name)
    assert (tmp_path / "back" / "d" / "image").read_bytes() == content
    assert large.problems() == [] and large.marked() == []


def test_damage_is_never_restored_silently(nights: Nights, tmp_path: Path) -> None:
    some_nights(nights, 2)
    (nights.source / LETTER).unlink()
    flip(nights.current / LETTER)
    nights.mark(LETTER)
    assert nights.repair().left == 1
    with pytest.raises(Damaged):
        nights.restore(tmp_path / "back")
    assert not (tmp_path / "back" / LETTER).exists()


def test_a_fifo_for_which_no_more_links_are_allowed(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(nights.source / "p")
    (nights.source / "s").symlink_to("nowhere")
    for content in ("1", "2"):
        (nights.source / "f").write_text(content)
        nights.backup()
    [old] = nights.folders()
    then = describe(old)
    for name in ("p", "s"):
        (old / name).unlink()
    nights.mark()
    link = os.link

    def full(src: Any, dst: Any, **rest: Any) -> None:
        if src.endswith(b".undo"):
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        link(src, dst, **rest)

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", full)
        assert nights.repair().left == 0
    assert describe(old) == then
    assert nights.problems() == [] and nights.marked() == []


def test_a_folder_that_the_drive_did_not_give_once_is_not_set_apart(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nights.source / "d").mkdir()
    (nights.source / "d" / "f").write_text("1")
    nights.backup()
    nights.mark("d")
    real, asked = ReadBack.folder_fault, [0]

    def once(self: ReadBack, *arguments: Any) -> Any:
        asked[0] += 1
        if asked[0] == 1:
            return faults.unreadable(OSError(errno.EIO, os.strerror(errno.EIO)))
        return real(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(ReadBack, "folder_fault", once)
        assert nights.repair().left == 0
    assert asked[0] > 1 and (nights.current / "d" / "f").read_text() == "1"
    assert nights.problems() == [] and nights.marked() == []
