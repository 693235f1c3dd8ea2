"""What depends on a snapshot that goes, where some of it is damaged; and what is in its folder."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filesystems import require_root
from program import complaint, run
from runs import Heard, LargeNights, Nights, change_pages

from mirrorback.engine import rebase, removal
from mirrorback.engine.delete import delete
from mirrorback.engine.rebuild import RebuildOptions, rebuild
from mirrorback.engine.repair import repair
from mirrorback.errors import (
    Damaged,
    DeltaTooLarge,
    DriveError,
    MirrorbackError,
    NoSpace,
    Refused,
)
from mirrorback.store import clearing, in_use, past, placed, record, supersede
from mirrorback.store.delta_writer import DeltaWriter

DELTA = "d/image.rdiff.zst"


@pytest.fixture
def contents(large: LargeNights, image: Path) -> list[bytes]:
    """Four nights of a large file, the last of them the mirror; what it was in each."""
    found = []
    for night in range(4):
        change_pages(image, night)
        found.append(image.read_bytes())
        large.backup()
    return found


def flip(path: Path, at: int) -> None:
    """A bit flips, and no time tells."""
    st = path.stat()
    with path.open("r+b") as file:
        file.seek(at % st.st_size)
        byte = file.read(1)
        file.seek(at % st.st_size)
        file.write(bytes([byte[0] ^ 4]))
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


def remove(nights: Nights, name: str, *, even_damaged: bool = False) -> Heard:
    """Delete a snapshot; what it says."""
    heard = Heard()
    delete(
        str(nights.repository),
        [name],
        dry_run=False,
        now=nights.now,
        events=heard,
        even_damaged=even_damaged,
    )
    assert name not in [folder.name for folder in nights.folders()]
    return heard


def restored(nights: Nights, to: Path, at: str) -> bytes:
    """A version of the large file."""
    nights.restore(to, at=at)
    return (to / "d" / "image").read_bytes()


def damaged(nights: Nights) -> list[Path]:
    """What has been set apart."""
    top = nights.repository / ".mirrorback" / "damaged"
    return sorted(top.iterdir()) if top.exists() else []


def test_a_delta_in_the_middle_is_damaged(
    large: LargeNights, contents: list[bytes], tmp_path: Path
) -> None:
    """The version before it cannot be rebuilt: the snapshot goes, and what it held is kept."""
    first, second, third = large.folders()
    flip(second / DELTA, 30)
    was = (second / DELTA).read_bytes()
    said = complaint("delete", large.repository, second.name, code=4)
    assert "repair" in said and "--even-damaged" in said
    assert second.exists() and damaged(large) == []
    heard = remove(large, second.name, even_damaged=True)
    [kept] = damaged(large)
    assert kept.read_bytes() == was
    [(said, path)] = heard.warnings
    assert path == b"d/image" and kept.name in said and second.name in said
    assert restored(large, tmp_path / "third", third.name) == contents[2]
    assert [(p.path, p.snapshots) for p in large.problems()] == [(b"d/image", (first.name,))]
    remove(large, first.name)
    remove(large, third.name)
    assert large.problems() == [] and damaged(large) == [kept]


def test_a_version_that_is_damaged_itself_costs_no_other(
    large: LargeNights, contents: list[bytes], tmp_path: Path
) -> None:
    first, second, third = large.folders()
    flip(first / DELTA, 30)
    was = (second / DELTA).read_bytes()
    run("delete", large.repository, second.name)
    assert [path.read_bytes() for path in damaged(large)] == [was]
    assert restored(large, tmp_path / "third", third.name) == contents[2]


def test_a_lost_index_loses_nothing(
    large: LargeNights, contents: list[bytes], tmp_path: Path
) -> None:
    """The frames tell all that it did."""
    first, second, _third = large.folders()
    flip(first / DELTA, -3)
    assert remove(large, second.name).warnings == []
    assert restored(large, tmp_path / "first", first.name) == contents[0]
    assert damaged(large) == []


def test_what_the_deltas_are_over_is_damaged(
    large: LargeNights, contents: list[bytes], tmp_path: Path
) -> None:
    """They give the same as before when the mirror's file is what it was again."""
    first, second, third = large.folders()
    image = large.current / "d" / "image"
    flip(image, 12345)
    for name in (second.name, third.name):
        assert remove(large, name).warnings == []
    assert damaged(large) == []
    flip(image, 12345)
    assert restored(large, tmp_path / "first", first.name) == contents[0]
    assert large.problems() == []


def test_what_the_deltas_are_over_cannot_be_read(
    large: LargeNights,
    contents: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second, _third = large.folders()
    whole = (large.current / "d" / "image").stat().st_ino
    pread = os.pread

    def bad(fd: int, size: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == whole:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(fd, size, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", bad)
        remove(large, second.name)
    assert damaged(large) == []
    assert restored(large, tmp_path / "first", first.name) == contents[0]
    assert large.problems() == []


def test_the_last_whole_version_is_damaged(
    large: LargeNights, contents: list[bytes], image: Path
) -> None:
    """All that can be read of the version before it becomes whole; `verify` knows it."""
    image.unlink()
    large.backup()
    *_, before, last = large.folders()
    flip(last / "d" / "image", 12345)
    assert remove(large, last.name).warnings == []
    found = (before / "d" / "image").read_bytes()
    assert [at for at in range(len(found)) if found[at] != contents[2][at]] == [12345]
    assert before.name in [name for p in large.problems() for name in p.snapshots]


def test_the_last_whole_version_cannot_be_read(
    large: LargeNights,
    contents: list[bytes],
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image.unlink()
    large.backup()
    first, _second, _before, last = large.folders()
    whole = (last / "d" / "image").stat().st_ino
    pread = os.pread

    def bad(fd: int, size: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == whole and offset <= 1 << 20 < offset + size:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(fd, size, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", bad)
        with pytest.raises(Damaged, match="stays"):
            remove(large, last.name)
        assert last.exists() and damaged(large) == []
        heard = remove(large, last.name, even_damaged=True)
    [kept] = damaged(large)
    assert kept.read_bytes() == contents[3]
    assert [path for _said, path in heard.warnings] == [b"d/image"]
    redo = large.repository / ".mirrorback" / "redo"
    assert list(redo.iterdir()) == []
    for name in (first.name, large.folders()[0].name, large.folders()[-1].name):
        if (large.repository / name).exists():
            remove(large, name, even_damaged=True)
    assert kept.read_bytes() == contents[3]


def test_a_composed_delta_with_too_many_parts_becomes_whole(
    large: LargeNights,
    contents: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_rest: Any) -> int:
        raise DeltaTooLarge("too many")

    first, second, _third = large.folders()
    with monkeypatch.context() as patched:
        patched.setattr(DeltaWriter, "finish", full)
        remove(large, second.name)
    assert (first / "d" / "image").read_bytes() == contents[0]
    assert large.problems() == []


def test_what_the_drive_does_not_read_back_removes_nothing(
    large: LargeNights, contents: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delta that is not right never takes the place of one that is."""
    literal = DeltaWriter.literal

    def wrong(self: DeltaWriter, data: bytes) -> None:
        literal(self, bytes([data[0] ^ 1]) + data[1:])

    _first, second, _third = large.folders()
    with monkeypatch.context() as patched:
        patched.setattr(DeltaWriter, "literal", wrong)
        with pytest.raises(Exception, match="cannot be read back"):
            remove(large, second.name)
    assert second.exists() and large.problems() == []
    assert list((large.repository / ".mirrorback" / "redo").iterdir()) == []
    remove(large, second.name)
    assert large.problems() == []


def test_no_room_for_all_leaves_nothing_of_some(
    large: LargeNights, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two files the first was written anew: what that took is free again."""
    twin = image.parent / "twin"
    twin.write_bytes(image.read_bytes()[::-1])
    for night in range(3):
        change_pages(image, night)
        change_pages(twin, 100 + night)
        large.backup()
    written = []
    one = rebase._Rebase.one

    def full(self: Any, number: int, base: int) -> Any:
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(number)
        return one(self, number, base)

    with monkeypatch.context() as patched:
        patched.setattr(rebase._Rebase, "one", full)
        with large.history() as history, pytest.raises(OSError, match="No space"):
            rebase.rebase(history, history.snapshots()[1].id)
    assert written
    assert list((large.repository / ".mirrorback" / "redo").iterdir()) == []


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_snapshot_goes_while_the_mirror_waits_for_room(
    large: LargeNights,
    contents: list[bytes],
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    victim: int,
) -> None:
    """Also the one that only the version shows whose delta has just been made."""
    patch = supersede.patch
    full = [True]

    def no_room(*rest: Any) -> None:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        patch(*rest)

    monkeypatch.setattr(supersede, "patch", no_room)
    change_pages(image, 9)
    contents.append(image.read_bytes())
    with pytest.raises(NoSpace):
        large.backup()
    name = large.folders()[-1 - victim].name
    going = removal.Removal._remove

    def makes_room(self: Any, snapshot: Any) -> None:
        going(self, snapshot)
        full.clear()

    monkeypatch.setattr(removal.Removal, "_remove", makes_room)
    large.delete(name)
    assert (large.current / "d" / "image").read_bytes() == contents[-1]
    assert large.problems() == []
    del contents[3 - victim]
    for number, folder in enumerate(large.folders()):
        assert restored(large, tmp_path / folder.name, folder.name) == contents[number]


# --- what is in its folder -------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["alone", "helped"])
def three(
    nights: Nights, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Nights]:
    """Three nights of some folders, one of which has nothing in it; with and without helpers."""
    if request.param:
        monkeypatch.setattr(removal, "HELPED", 0)
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for number in range(60):
        folder = nights.source / f"d{number % 7}" / f"e{number}"
        folder.mkdir(parents=True)
        (folder / os.fsdecode(b"odd\xff\n")).write_text("odd")
        (folder / "plain").write_text("plain")
    (nights.source / "empty").mkdir()
    (nights.source / "deep" / "/".join(["x" * 200] * 15)).mkdir(parents=True)
    for night in range(3):
        (nights.source / "small").write_text(str(night))
        time.sleep(0.03)
        nights.backup()
    yield nights


def test_nothing_is_left_of_it(three: Nights) -> None:
    first, second = three.folders()
    assert remove(three, first.name).warnings == []
    assert list((three.repository / ".mirrorback" / "trash").iterdir()) == []
    assert three.problems() == []
    assert remove(three, second.name).warnings == [] and three.problems() == []


def test_what_is_not_its_own_is_set_aside(three: Nights) -> None:
    first, _second = three.folders()
    (first / "empty" / "mine").write_text("1")
    (first / "d1" / "plain.rdiff.zst").write_text("2")
    e = first / "d0" / "e0"
    (e / "plain.rdiff.zst").write_text("3")
    (e / "plain").unlink()
    (e / "plain").mkdir()
    (e / "plain" / "mine").write_text("4")
    (first / "d2" / "e2" / "mine").symlink_to("/etc")
    heard = remove(three, first.name)
    assert len(heard.warnings) == 1 and "5 in the folder" in heard.warnings[0][0]
    aside = three.repository / f"{first.name}.set-aside"
    found = [p for p in aside.rglob("*") if p.is_symlink() or not p.is_dir()]
    assert sorted(str(p.relative_to(aside)) for p in found) == [
        "d0/e0/plain.rdiff.zst",
        "d0/e0/plain/mine",
        "d1/plain.rdiff.zst",
        "d2/e2/mine",
        "empty/mine",
    ]
    assert three.problems() == []


def test_a_failing_drive_ends_it_and_the_next_goes_on(
    three: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _second = three.folders()
    calls = []
    rmdir = os.rmdir

    def fail(name: Any, *rest: Any, **more: Any) -> None:
        calls.append(name)
        if len(calls) == 5:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rmdir(name, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", fail)
        with pytest.raises(Exception, match="drive failed"):
            three.delete(first.name)
    three.backup()
    assert list((three.repository / ".mirrorback" / "trash").iterdir()) == []
    assert three.problems() == []


def backed_up(nights: Nights) -> Heard:
    nights.backup()
    return nights.heard


def pruned(nights: Nights) -> Heard:
    nights.heard = Heard()
    nights.prune(last=9)
    return nights.heard


def repaired(nights: Nights) -> Heard:
    heard = Heard()
    repair(str(nights.repository), dry_run=False, source=None, now=nights.now, events=heard)
    return heard


def rebuilt(nights: Nights) -> Heard:
    heard = Heard()
    rebuild(str(nights.repository), RebuildOptions(force=True), nights.now, heard)
    return heard


@pytest.mark.parametrize(
    ("failing", "recovering"),
    [
        ("before", backed_up),
        ("between", backed_up),
        ("after", backed_up),
        ("between", pruned),
        ("after", repaired),
        ("after", rebuilt),
    ],
)
def test_what_is_set_aside_is_told_by_who_ends_a_removal(
    three: Nights,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    recovering: Callable[[Nights], Heard],
) -> None:
    first, _second = three.folders()
    (first / "mine").write_text("1")
    (first / "d0" / "mine").write_text("2")
    taken = three.repository / f"{first.name}.set-aside"
    taken.write_text("is no folder")
    where = {"before": (clearing, "clear"), "between": (os, "rmdir"), "after": (record, "deleted")}

    def fail(*_arguments: object, **_more: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(*where[failing], fail)
        with pytest.raises(DriveError):
            remove(three, first.name)
    heard = recovering(three)
    assert not first.exists() and three.problems() == []
    [(words, place)] = heard.warnings
    assert first.name in words and "set aside, not deleted" in words
    assert place is not None and place.startswith(os.fsencode(taken.name) + b"-2")
    aside = three.repository / f"{taken.name}-2"
    assert (aside / "mine").read_text() + (aside / "d0" / "mine").read_text() == "12"
    assert backed_up(three).warnings == []  # it is told once


def test_where_nothing_is_set_aside_nothing_is_told(
    three: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _second = three.folders()

    def fail(*_arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(record, "deleted", fail)
        with pytest.raises(DriveError):
            remove(three, first.name)
    assert backed_up(three).warnings == [] and not first.exists()


@contextlib.contextmanager
def bound(what: Path, at: Path) -> Iterator[None]:
    """A folder that is seen at another place as well."""
    require_root()
    subprocess.run(["mount", "--bind", what, at], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", at], check=True)


def test_what_is_mounted_in_its_folder_is_not_gone_into(three: Nights) -> None:
    """It has just the names that the snapshot has."""
    first, second = three.folders()
    with bound(three.source / "d1", first / "d1"):
        with pytest.raises(Refused, match="unmount it"):
            three.delete(second.name, first.name)
        assert (three.source / "d1" / "e1" / "plain").read_text() == "plain"
        assert first.exists() and second.exists(), "nothing at all is deleted"
        three.prune(last=1)
        assert [folder.name for folder in three.folders()] == [first.name]
        assert "unmount it" in three.heard.warnings[0][0]
    three.delete(first.name)
    assert three.problems() == []


def test_what_is_mounted_there_after_the_commit(
    three: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _second = three.folders()
    inner = three.repository / ".mirrorback"

    def cut(*_rest: Any, **_more: Any) -> None:
        raise InterruptedError(errno.EINTR, "cut here")

    with monkeypatch.context() as patched:
        patched.setattr(clearing, "clear", cut)
        with pytest.raises(MirrorbackError):
            three.delete(first.name)
    folder = inner / "trash" / first.name if not first.exists() else first
    with bound(three.source / "d1", folder / "d1"):
        with pytest.raises(MirrorbackError, match="unmount it"):
            three.backup()
        assert (three.source / "d1" / "e1" / "plain").read_text() == "plain"
    three.backup()
    assert not first.exists() and list((inner / "trash").iterdir()) == []
    assert three.problems() == []


def test_a_folder_that_cannot_be_opened_may_be_in_use(
    three: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no descriptor left nobody knows whether it is being read: it stays."""
    first, _second = three.folders()
    opened = os.open

    def none_left(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if path == os.fsencode(first.name):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(path, flags, *rest, **more)

    with three.history() as history, monkeypatch.context() as patched:
        patched.setattr(os, "open", none_left)
        with pytest.raises(OSError, match="Too many"), in_use.alone(history.repo, first.name):
            pass


def test_many_names_at_the_top_are_not_all_asked_for(
    three: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a folder is, its first names tell: a million of them would not fit into memory."""
    asked: list[bytes] = []
    entry = past.entry

    def counted(catalog: Any, directory: int, name: bytes, snapshot: int) -> Any:
        asked.append(name)
        return entry(catalog, directory, name, snapshot)

    def never(*_rest: Any) -> Any:
        raise AssertionError("all entries of a folder")

    first, _second = three.folders()
    with three.history() as history, monkeypatch.context() as patched:
        patched.setattr(past, "entry", counted)
        patched.setattr(past, "entries", never)
        number = history.snapshots()[0].id
        found = placed.at(history.repo, history.catalog, number, first.name)
    assert found is placed.Place.OURS and len(asked) == 1
