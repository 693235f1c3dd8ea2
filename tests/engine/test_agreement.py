"""What verify says can be mended, a repair mends, and nothing else."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import Heard, LargeNights, Nights, change_pages
from test_repair import flip

from mirrorback.engine import preparing
from mirrorback.engine.rebuild import RebuildOptions, rebuild

Harm = Callable[[Nights], None]


def agree(nights: Nights) -> dict[bytes, bool]:
    """By path: what verify said, having seen that a dry run, and a repair, come to the same."""
    told: dict[bytes, bool] = {}
    for problem in nights.problems():
        if problem.path and not problem.problem.startswith("is not in the backup"):
            told[problem.path] = told.get(problem.path, True) and problem.repairable
    dry = nights.repair(dry_run=True)
    done = nights.repair()
    by_number = {(one.path, one.snapshots): one.repaired for one in dry.repairs}
    for one in done.repairs:
        assert by_number[one.path, one.snapshots] == one.repaired, (one, dry)
    left = {one.path for one in done.repairs if not one.repaired}
    assert left == {path for path, repairable in told.items() if not repairable}
    after = {p.path: p.repairable for p in nights.problems() if p.path}
    assert set(after) == left and not any(after.values())
    return told


def ruin(path: Path) -> None:
    """Flip a bit in each page."""
    for at in range(0, path.stat().st_size, 4096):
        flip(path, at)


def history(large: LargeNights, image: Path, nights: int = 4) -> list[bytes]:
    contents = []
    for seed in range(nights):
        change_pages(image, 100 + seed)
        time.sleep(0.03)
        large.backup()
        contents.append(image.read_bytes())
    return contents


def test_a_source_that_only_looks_unchanged(nights: Nights) -> None:
    for name in ("f", "g"):
        (nights.source / name).write_text(f"some text of {name}")
    nights.backup()
    flip(nights.current / "f", 2)
    flip(nights.current / "g", 2)
    flip(nights.source / "g", 3)  # with the time it had
    assert agree(nights) == {b"f": True, b"g": False}


def test_a_source_that_only_looks_changed(nights: Nights) -> None:
    (nights.source / "f").write_text("some text")
    nights.backup()
    flip(nights.current / "f", 2)
    os.utime(nights.source / "f", (1, 1))
    assert agree(nights) == {b"f": True}


def test_a_twin_that_is_a_delta_over_the_damaged_file_itself(
    large: LargeNights, image: Path
) -> None:
    first = image.read_bytes()
    large.backup()
    change_pages(image, 2)
    time.sleep(0.03)
    large.backup()
    image.write_bytes(first)
    time.sleep(0.03)
    large.backup()
    ruin(large.current / "d" / "image")
    image.unlink()
    assert agree(large) == {b"d/image": False}


def test_what_older_deltas_still_have_of_a_damaged_file(large: LargeNights, image: Path) -> None:
    """The damage lies where the version between differed: there its deltas have the bytes."""
    first = image.read_bytes()
    large.backup()
    with image.open("r+b") as file:
        file.seek(1 << 20)
        file.write(random.Random(3).randbytes(1 << 16))
    time.sleep(0.03)
    large.backup()
    image.write_bytes(first)
    time.sleep(0.03)
    large.backup()
    flip(large.current / "d" / "image", (1 << 20) + 5000)
    image.unlink()
    assert agree(large) == {b"d/image": True}
    assert (large.current / "d" / "image").read_bytes() == first


@pytest.mark.parametrize("lost", [False, True])
def test_the_base_of_a_chain(large: LargeNights, image: Path, lost: bool) -> None:
    history(large, image)
    ruin(large.current / "d" / "image")
    if lost:
        image.unlink()
    assert agree(large) == {b"d/image": not lost}


@pytest.mark.parametrize("harm", ["flip", "remove", "another's"])
@pytest.mark.parametrize("twin", [False, True])
def test_a_delta_in_the_middle(large: LargeNights, image: Path, harm: str, twin: bool) -> None:
    large.backup()
    change_pages(image, 1)
    time.sleep(0.03)
    if twin:
        shutil.copy2(image, large.source / "twin")
    large.backup()
    for seed in (2, 3):
        change_pages(image, seed)
        time.sleep(0.03)
        large.backup()
    delta = large.folders()[1] / "d" / "image.rdiff.zst"
    if harm == "flip":
        flip(delta, 200)
    elif harm == "remove":
        delta.unlink()
    else:
        delta.write_bytes((large.folders()[0] / "d" / "image.rdiff.zst").read_bytes())
    before = len(large.folders())
    assert agree(large) == {b"d/image": twin}
    assert len(large.folders()) == before


def test_a_twin_of_what_depends_on_what_can_be_mended(large: LargeNights, image: Path) -> None:
    """The lost file has the content of an old version, of which the delta is right, but not
    what that is over; the source has it."""
    shutil.copy2(image, large.source / "d" / "old")
    large.backup()
    change_pages(image, 1)
    time.sleep(0.03)
    large.backup()
    (large.source / "d" / "old").unlink()
    ruin(large.current / "d" / "image")
    ruin(large.current / "d" / "old")
    assert agree(large) == {b"d/image": True, b"d/old": True}


def test_a_part_that_sees_the_delta_only(large: LargeNights, image: Path) -> None:
    """Verify has looked at the delta, and not at what it is over; repair finds that itself."""
    history(large, image, 3)
    ruin(large.current / "d" / "image")
    large.mark("d/image", at=large.folders()[0].name)
    assert large.repair(dry_run=True).left == 0
    assert large.repair().left == 0
    assert large.problems() == []


def test_two_that_became_one(nights: Nights) -> None:
    """Whichever is looked at first."""
    for name in ("z", "a"):
        (nights.source / name).write_text("the same")
        os.utime(nights.source / name, ns=(5, 1_500_000_000_000_000_000))
        nights.backup()
    nights.backup(always=True)
    (nights.current / "a").unlink()
    os.link(nights.current / "z", nights.current / "a")
    (nights.folders()[1] / "a").unlink()
    os.link(nights.current / "z", nights.folders()[1] / "a")
    assert agree(nights) == {b"a": True}
    assert not os.path.samefile(nights.current / "a", nights.current / "z")


def test_symlinks_that_became_one(nights: Nights) -> None:
    for name in ("z", "a"):
        (nights.source / name).symlink_to("where")
        os.utime(nights.source / name, ns=(5, 10**18), follow_symlinks=False)
    nights.backup()
    (nights.current / "a").unlink()
    os.link(nights.current / "z", nights.current / "a", follow_symlinks=False)
    [problem] = nights.problems()
    assert problem.repairable and "is the same file as" in problem.problem
    assert nights.repair().left == 0
    assert nights.problems() == []


def test_metadata_alone(nights: Nights) -> None:
    (nights.source / "d").mkdir()
    for name in ("d/mode", "d/time", "d/attribute"):
        (nights.source / name).write_text(name)
    nights.backup()
    nights.backup(always=True)
    shutil.rmtree(nights.source / "d")
    (nights.source / "d").mkdir()
    (nights.current / "d/mode").chmod(0o711)
    (nights.folders()[0] / "d").chmod(0o711)
    os.utime(nights.current / "d/time", (1, 1))
    os.setxattr(nights.current / "d/attribute", "user.x", b"1")
    told = agree(nights)
    assert told == dict.fromkeys((b"d", b"d/mode", b"d/time", b"d/attribute"), True)


def test_a_moved_folder_is_remembered_as_wrong(nights: Nights) -> None:
    """It stands in two places, and is as it should be in one of them."""
    for name in ("a", "z"):
        (nights.source / name).mkdir()
        (nights.source / name / "f").write_text(name)
    nights.backup()
    (nights.source / "a").rename(nights.source / "y")
    (nights.source / "z").rename(nights.source / "b")
    nights.backup()
    (nights.folders()[0] / "a").chmod(0o711)
    (nights.folders()[0] / "z").chmod(0o711)
    assert agree(nights) == {b"a": True, b"z": True}


# --- metadata of large files -----------------------------------------------------------------


def test_metadata_of_a_large_file_is_put_right_on_the_file_itself(
    large: LargeNights, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy would take as much room again."""
    monkeypatch.setattr(preparing.Preparing, "_clones", lambda self: False)
    large.backup()
    large.backup(always=True)
    path = large.current / "d" / "image"
    before = path.stat()
    path.chmod(0o777)
    os.utime(path, (1, 1))
    os.setxattr(path, "user.x", b"1")
    assert agree(large) == {b"d/image": True}
    after = path.stat()
    assert (after.st_ino, after.st_nlink) == (before.st_ino, 2)
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert os.listxattr(path) == []
    assert not (large.repository / ".mirrorback/damaged").exists()


def test_but_not_where_somebody_else_has_a_name_of_it(
    large: LargeNights, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing.Preparing, "_clones", lambda self: False)
    large.backup()
    path = large.current / "d" / "image"
    os.link(path, large.repository / "mine")
    path.chmod(0o777)
    assert agree(large) == {b"d/image": True}
    assert (large.repository / "mine").stat().st_mode & 0o777 == 0o777
    assert not os.path.samefile(path, large.repository / "mine")


def test_metadata_of_what_has_no_known_digest(nights: Nights) -> None:
    """Content that nobody can prove is not copied, but it may get its metadata back."""
    for name in ("f", "g"):
        (nights.source / name).write_text(name)
    nights.backup()
    for name in ("catalog.db", "catalog.blake3"):  # or it would take the digests from there
        (nights.repository / ".mirrorback" / name).unlink()
    rebuild(str(nights.repository), RebuildOptions(force=True), nights.now, Heard())
    for name in ("f", "g"):
        (nights.current / name).chmod(0o777)
    os.link(nights.current / "g", nights.repository / "mine")
    assert agree(nights) == {b"f": True, b"g": False}
