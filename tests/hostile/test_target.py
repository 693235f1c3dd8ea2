"""A restore as root into a folder where someone else has been, or is: nothing outside of it
changes, and nobody gains rights."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filesystems import require_root
from hostility import state_of
from program import run
from runs import Nights

from mirrorback.engine.writer import Writer
from mirrorback.errors import Refused
from mirrorback.store import node, xattrs

MALLORY = 4711
ALICE = 4712
CAPABLE = bytes.fromhex("0100000200040000000000000000000000000000")  # of revision 2: cap_net_raw


@pytest.fixture
def drive(nights: Nights) -> Nights:
    """A backup with what a restore gives rights to."""
    require_root()
    for name, owner, mode in (
        ("plain", ALICE, 0o644),
        ("of-root", 0, 0o755),
        ("setuid-root", 0, 0o4755),
        ("setuid-mallory", MALLORY, 0o6755),
        ("shared", 0, 0o666),
    ):
        path = nights.source / name
        path.write_text(name)
        os.chown(path, owner, owner)
        path.chmod(mode)
    capable = nights.source / "capable"
    capable.write_text("capable")
    os.setxattr(capable, "security.capability", CAPABLE)
    folder = nights.source / "d"
    folder.mkdir()
    (folder / "f").write_text("f")
    os.chown(folder / "f", MALLORY, MALLORY)
    (folder / "symlink").symlink_to("f")
    os.mkfifo(folder / "fifo")
    os.mknod(folder / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    for name in ("symlink", "fifo", "device"):
        os.chown(folder / name, MALLORY, MALLORY, follow_symlinks=False)
        os.utime(folder / name, ns=(1, 1), follow_symlinks=False)
    nights.backup()
    return nights


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder of Mallory's to restore into."""
    folder = tmp_path / "target"
    folder.mkdir(mode=0o755)
    (folder / "hers").write_text("hers")
    os.chown(folder, MALLORY, MALLORY)
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """What is none of the restore's business, and not changed by it."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "victim").write_text("victim")
    (folder / "victim").chmod(0o600)
    (folder / "d").mkdir()
    os.mkfifo(folder / "fifo")
    os.mknod(folder / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    (folder / "symlink").symlink_to("f")
    before = state_of(folder)
    yield folder
    after = state_of(folder)
    for state in (before, after):
        state.pop(str(folder))
    assert before == after


def swapped(
    monkeypatch: pytest.MonkeyPatch, where: object, call: str, swap: Callable[..., None]
) -> None:
    """Let something happen right after each call of a function."""
    before = getattr(where, call)

    def and_then(*arguments: Any, **named: Any) -> Any:
        found = before(*arguments, **named)
        swap(*arguments)
        return found

    monkeypatch.setattr(where, call, and_then)


# --- links in the way --------------------------------------------------------------------


def test_a_target_that_is_someone_elses_symlink_is_refused(
    drive: Nights, tmp_path: Path, outside: Path
) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    place.chmod(0o1777)
    for link in (place / "link", place / "up" / "link"):
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(outside / "d")
        os.chown(link, MALLORY, MALLORY, follow_symlinks=False)
        for to in (link, link / "new"):
            with pytest.raises(Refused, match="symlink"):
                drive.restore(to)
            run("restore", drive.repository, "--to", to, code=5)
    assert list((outside / "d").iterdir()) == []


def test_a_persons_own_symlink_is_followed(drive: Nights, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("there")
    (tmp_path / "there").mkdir()
    drive.restore(tmp_path / "link")
    assert (tmp_path / "there" / "plain").read_text() == "plain"
    drive.restore(tmp_path / "link" / ".." / "more" / "new")
    assert (tmp_path / "more" / "new" / "plain").read_text() == "plain"


def test_in_place_follows_no_symlink_of_someone_else(drive: Nights, outside: Path) -> None:
    drive.source.rename(drive.source.with_name("elsewhere"))
    drive.source.symlink_to(outside / "d")
    os.chown(drive.source, MALLORY, MALLORY, follow_symlinks=False)
    run("restore", drive.repository, "--in-place", code=5)
    assert list((outside / "d").iterdir()) == []


@pytest.mark.parametrize("overwrite", ["if-changed", "always", "if-newer"])
@pytest.mark.parametrize("keep", [True, False])
def test_links_planted_at_every_name(
    drive: Nights, target: Path, outside: Path, overwrite: str, keep: bool
) -> None:
    for name in ("plain", "setuid-root", "capable"):
        (target / name).symlink_to(outside / "victim")
    (target / "setuid-mallory").hardlink_to(outside / "victim")
    (target / "d").mkdir()
    (target / "d" / "f").symlink_to(outside / "victim")
    for name in ("fifo", "device", "symlink"):
        os.link(outside / name, target / "d" / name, follow_symlinks=False)
    (target / "shared").symlink_to(outside / "d")
    run(
        *("restore", drive.repository, "--to", target, "--overwrite", overwrite, "--delete"),
        *([] if keep else ["--no-keep"]),
    )
    assert (outside / "victim").read_text() == "victim"
    if overwrite != "if-newer":
        assert (target / "setuid-root").lstat().st_mode == stat.S_IFREG | 0o4755
        assert (target / "d" / "fifo").lstat().st_uid == MALLORY


def test_what_is_no_file_is_replaced_and_not_opened(drive: Nights, target: Path) -> None:
    os.mkfifo(target / "plain")
    os.mknod(target / "of-root", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    (target / "shared").mkdir()
    (target / "shared" / "in").write_text("in")
    drive.restore(target)
    for name in ("plain", "of-root", "shared"):
        assert (target / name).read_text() == name


@pytest.mark.parametrize("kind", ["symlink", "fifo", "device"])
def test_a_node_that_is_swapped_for_a_hard_link_gives_no_owner_to_it(
    drive: Nights, target: Path, outside: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swap(folder: int, name: bytes, *_: object) -> None:
        os.unlink(name, dir_fd=folder)
        with contextlib.suppress(FileExistsError):
            os.link(outside / "victim", name, dst_dir_fd=folder)

    swapped(monkeypatch, node, "make_other", swap)
    assert drive.restore(target, os.fsencode(f"d/{kind}")).errors == 1


@pytest.mark.parametrize("kind", ["symlink", "fifo", "device"])
def test_a_node_that_is_swapped_for_another_of_its_kind(
    drive: Nights, target: Path, outside: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swap(folder: int, name: bytes, *_: object) -> None:
        os.unlink(name, dir_fd=folder)
        os.link(outside / kind, name, dst_dir_fd=folder, follow_symlinks=False)

    swapped(monkeypatch, node, "make_other", swap)
    assert drive.restore(target, os.fsencode(f"d/{kind}")).errors == 1


@pytest.mark.parametrize("name", ["d/fifo", "d/symlink", "of-root"])
def test_what_is_there_already_is_swapped_before_it_is_dressed(
    drive: Nights, tmp_path: Path, outside: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    drive.restore(target)
    os.utime(target / name, ns=(5, 5), follow_symlinks=False)

    def swap(*_: object) -> None:
        (target / name).unlink()
        os.link(outside / "victim", target / name)

    swapped(monkeypatch, Writer, "has_content", swap)
    assert drive.restore(target, os.fsencode(name)).errors == 1


# --- who gains rights ------------------------------------------------------------------


def test_a_setuid_file_is_not_given_to_another_owner(drive: Nights, tmp_path: Path) -> None:
    """Its content is Mallory's: as root's it would let her be root."""
    for again in (False, True):
        drive.restore(tmp_path / "out", owner=False)
        st = (tmp_path / "out" / "setuid-mallory").stat()
        assert (st.st_uid, stat.S_IMODE(st.st_mode)) == (0, 0o755), again
        assert stat.S_IMODE((tmp_path / "out" / "setuid-root").stat().st_mode) == 0o4755
        (tmp_path / "out" / "setuid-mallory").chmod(0o700)


@pytest.mark.parametrize("name", ["of-root", "setuid-root", "capable", "shared"])
def test_a_file_that_someone_may_hold_open_is_replaced(
    drive: Nights, target: Path, name: str
) -> None:
    """It has the right content, and Mallory a descriptor to write by."""
    (target / name).write_text(name)
    os.chown(target / name, MALLORY, MALLORY)
    held = os.open(target / name, os.O_RDWR)
    drive.restore(target)
    os.pwrite(held, b"evil", 0)
    os.close(held)
    assert (target / name).read_text() == name
    assert (target / name).stat().st_uid == 0


def test_a_file_that_all_could_write_to_is_replaced(drive: Nights, target: Path) -> None:
    (target / "of-root").write_text("of-root")
    (target / "of-root").chmod(0o777)
    held = os.open(target / "of-root", os.O_RDWR)
    drive.restore(target)
    os.pwrite(held, b"evil", 0)
    os.close(held)
    assert (target / "of-root").read_text() == "of-root"


def test_what_is_ours_is_not_written_anew(drive: Nights, tmp_path: Path) -> None:
    drive.restore(tmp_path / "out")
    before = {path: path.lstat().st_ino for path in (tmp_path / "out").rglob("*")}
    again = drive.restore(tmp_path / "out")
    assert again.restored == again.kept_aside == 0
    assert before == {path: path.lstat().st_ino for path in (tmp_path / "out").rglob("*")}


def test_a_file_with_the_right_content_is_swapped_for_an_evil_one(
    drive: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    drive.restore(target)
    os.utime(target / "setuid-root", ns=(5, 5))

    def swap(*_: object) -> None:
        (target / "evil").write_text("evil")
        os.chown(target / "evil", MALLORY, MALLORY)
        (target / "evil").rename(target / "setuid-root")

    swapped(monkeypatch, Writer, "has_content", swap)
    assert drive.restore(target, b"setuid-root").errors == 1
    st = (target / "setuid-root").stat()
    assert (st.st_uid, stat.S_IMODE(st.st_mode)) == (MALLORY, 0o644)


def test_rights_come_last(drive: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each step, a file that has them has the right owner and content."""
    target = tmp_path / "out"
    seen = set()

    def look(*_: object) -> None:
        for path in target.rglob("*"):
            st = path.lstat()
            if not stat.S_ISREG(st.st_mode):
                continue
            content = path.read_text()
            capable = "security.capability" in os.listxattr(path)
            if st.st_mode & 0o6000 or capable:
                assert content in ("setuid-root", "setuid-mallory", "capable")
                assert (st.st_uid == MALLORY) == (content == "setuid-mallory")
                seen.add(content)

    for where, call in (
        *((os, name) for name in ("fchown", "fchmod", "utime", "rename", "pwrite", "open")),
        (xattrs, "write"),
    ):
        swapped(monkeypatch, where, call, look)
    for _ in "12":
        drive.restore(target)
        for name in ("setuid-root", "setuid-mallory", "capable"):
            os.utime(target / name, ns=(5, 5))
            (target / name).chmod(0o600)
    assert seen == {"setuid-root", "setuid-mallory", "capable"}


def _race(target: Path, outside: Path, until: float) -> None:
    """As Mallory: put links to what is not hers wherever something appears."""
    os.setgid(MALLORY)
    os.setuid(MALLORY)
    turn = 0
    while time.monotonic() < until:
        for folder in (target, target / "d"):
            with contextlib.suppress(OSError):
                for name in os.listdir(folder):
                    turn += 1
                    with contextlib.suppress(OSError):
                        (folder / name).rename(target / f"moved-{turn}")
                    with contextlib.suppress(OSError):
                        (folder / name).symlink_to(outside / ("victim" if turn % 2 else "d"))


def test_a_racing_process_changes_nothing_outside(
    drive: Nights, target: Path, outside: Path
) -> None:
    until = time.monotonic() + 3
    racer = multiprocessing.get_context("fork").Process(target=_race, args=(target, outside, until))
    racer.start()
    try:
        while time.monotonic() < until:
            for overwrite in ("if-changed", "always"):
                with contextlib.suppress(Exception):
                    drive.restore(target, overwrite=overwrite, delete=True, keep=False)
    finally:
        racer.join()
    assert list((outside / "d").iterdir()) == []


# --- the repository itself ---------------------------------------------------------------


def test_a_target_in_the_repository_is_refused(drive: Nights, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(drive.repository)
    for place in (drive.repository, drive.current, drive.repository / "new", tmp_path / "link/x"):
        run("restore", drive.repository, "--to", place, code=5)
    assert sorted(p.name for p in drive.repository.iterdir()) == [
        ".mirrorback",
        "README.txt",
        "current",
    ]


def test_a_repository_in_the_target_stays(drive: Nights, tmp_path: Path) -> None:
    moved = tmp_path / "target" / "in" / "drive"
    moved.parent.mkdir(parents=True)
    drive.repository.rename(moved)
    run("restore", moved, "--to", tmp_path / "target", "--delete", "--no-keep")
    assert run("verify", moved, "--json").json == []
