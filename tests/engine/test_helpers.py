"""Helper processes and scouts: what they do is what the run would have done by itself."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from filesystems import require_root
from runs import Nights
from trees import describe, require_same

from mirrorback.engine import backup, build, walking
from mirrorback.engine.listing import Listing, Same, Scout, Wanted
from mirrorback.engine.source import Source
from mirrorback.errors import MirrorbackError, Trouble
from mirrorback.plan.selection import Selection
from mirrorback.store import copier, helper
from mirrorback.store.node import Dress


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes help from the first folder on."""
    monkeypatch.setattr(walking, "SCOUT_FROM", 0)
    monkeypatch.setattr(walking, "FEWEST_SENT", 1)
    monkeypatch.setattr(build, "MOST_ROWS", 3)
    monkeypatch.setattr(backup, "COPIES_FOR_HELPERS", 0)
    monkeypatch.setattr(backup, "NAMES_FOR_HELPERS", 0)


def fill(top: Path) -> None:
    for number in range(60):
        folder = top / f"d{number % 7}" / f"e{number % 11}" / f"f{number}"
        folder.mkdir(parents=True)
        (folder / "file").write_text(f"{number}\n" * number)
        (folder / "link").symlink_to("file")
        os.utime(folder, ns=(1, number * 1_000_000_007))
        if number % 5 == 0:
            folder.chmod(0o2750)
            os.setxattr(folder, b"user.\xff", b"x")
            os.link(folder / "file", folder / "other")
    with (top / "holes").open("wb") as file:
        file.truncate(1 << 24)


def test_every_night_is_exact(eager: None, nights: Nights) -> None:
    source = nights.source
    fill(source)
    then = []

    def night() -> None:
        nights.backup()
        then.append(describe(source))

    night()
    for number in range(0, 60, 9):
        (source / f"d{number % 7}" / f"e{number % 11}" / f"f{number}" / "file").write_text("new")
    night()
    (source / "d1").rename(source / "d2" / "moved")
    shutil.rmtree(source / "d3")
    (source / "d0" / "e0" / "f0" / "link").unlink()
    (source / "d4" / "e4" / "f4").chmod(0o700)
    night()
    for number in range(600):  # more than are copied in one go
        (source / "d5" / f"many{number}").write_text(str(number))
    night()
    for folder, tree in zip([*nights.folders(), nights.current], then, strict=True):
        require_same(tree, describe(folder))
    assert nights.problems() == []
    assert nights.backup().summary.unchanged


def test_the_selection_holds_for_a_scout(eager: None, nights: Nights, tmp_path: Path) -> None:
    fill(nights.source)
    tag = nights.source / "d1" / "e1" / "CACHEDIR.TAG"
    tag.write_bytes(b"Signature: 8a477f597d28d172789f06886806bc55")
    (nights.source / "d2" / ".nobackup").touch()
    result = nights.backup(
        exclude=("f4*", "!f46", "/d0/"),
        exclude_caches=True,
        exclude_if_present=(".nobackup",),
        exclude_larger_than=1 << 20,
    )
    top = nights.current
    assert not (top / "d0").exists() and not (top / "d2").exists() and not (top / "holes").exists()
    assert not (top / "d1" / "e1").exists()
    names = {path.name for path in top.rglob("f*")}
    assert {"f33", "f41", "f46", "f54"} & names == {"f33", "f46", "f54"}
    assert result.summary.dirs == sum(path.is_dir() for path in top.rglob("*")) + 1


def test_a_scout_stays_on_one_file_system(eager: None, nights: Nights) -> None:
    require_root()
    fill(nights.source)
    point = nights.source / "d5" / "mnt"
    point.mkdir()
    nights.backup(one_file_system=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
    try:
        (point / "theirs").write_text("x")
        nights.backup(one_file_system=True)
        nights.backup(one_file_system=True)
        assert list((nights.current / "d5" / "mnt").iterdir()) == []
        nights.backup()
        assert (nights.current / "d5" / "mnt" / "theirs").exists()
    finally:
        subprocess.run(["umount", point], check=True)


@pytest.fixture
def opened(source: Path) -> Iterator[Source]:
    fd = os.open(source, os.O_RDONLY)
    yield Source(
        os.fsencode(source),
        fd,
        Selection(("left-out",)),
        repository=(0, 0),
        one_file_system=False,
    )
    os.close(fd)


def test_a_scout_lists(opened: Source, source: Path) -> None:
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "file").write_bytes(b"12345")
    (source / "a" / "left-out").touch()
    scout = Scout(opened)
    try:
        scout.send([Wanted(b"a", None), Wanted(b"gone", None)])
        first, gone = scout.received()
        assert isinstance(first, Listing) and [row[0] for row in first.rows] == ["b", "file"]
        assert isinstance(gone, Trouble) and gone.vanished
        scout.send([Wanted(b"a", first.fingerprint)])
        assert scout.received() == [Same(1, 5, ["b"], [])]
    finally:
        scout.close()


def test_a_scout_is_sent_no_more_than_its_pipe_holds(opened: Source) -> None:
    """Else it could wait for us to read, and we for it."""
    scout = Scout(opened)
    try:
        lot = [Wanted(b"%02d" % number * 2000, None) for number in range(64)]
        assert scout.send(lot) and not scout.send(lot)
        assert scout.send(lot[:8])  # 32 kB; a pipe holds 64
        for _ in range(2):
            assert all(isinstance(one, Trouble) for one in scout.received())
        assert scout.send(lot)
        assert len(scout.received()) == 64
    finally:
        scout.close()


def test_a_scout_that_is_killed_fails_the_run(opened: Source) -> None:
    scout = Scout(opened)
    try:
        os.kill(scout._process._process.pid, signal.SIGKILL)
        with pytest.raises(MirrorbackError, match="run it again"):
            scout.send([Wanted(b"", None)])
            scout.received()
    finally:
        scout.close()


def resident(pid: int) -> int:
    """The memory of a process in KiB."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines()
              if line.startswith("VmRSS:")]  # fmt: skip
    return int(line.split()[1])


def test_troubles_leave_nothing_in_a_helper(tmp_path: Path) -> None:
    """They hold what they passed on their way, and that holds them."""
    for name in ("source", "incoming"):
        (tmp_path / name).mkdir()
    fds = [os.open(tmp_path / name, os.O_RDONLY) for name in ("source", "incoming")]
    one = helper.Helper(copier.Roots(fds[0], None, fds[1]))
    work = copier.Work(b"", copies=[b"vanished%d" % number for number in range(500)])
    try:
        one.fill([work] * 60, lambda count: None)
        before = resident(one._process._process.pid)
        for _ in range(3):
            one.fill([work] * 60, lambda count: None)
        assert resident(one._process._process.pid) < before + 8_000
    finally:
        one.close()
        for fd in fds:
            os.close(fd)


def test_what_a_helper_cannot_link_is_told(tmp_path: Path) -> None:
    for name in ("source", "mirror/d", "incoming/d"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "mirror" / "d" / "there").write_text("x")
    fds = [os.open(tmp_path / name, os.O_RDONLY) for name in ("source", "mirror", "incoming")]
    one = helper.Helper(copier.Roots(*fds))
    try:
        dress = Dress(0o750, os.getuid(), os.getgid(), -5_000_000_001, ((b"user.x", b"1"),))
        work = copier.Work(b"d", [b"below"], b"there/lost", [b"vanished"], dress)
        [filled] = one.fill([work], lambda count: None)
        assert [name for name, _error in filled.refused] == [b"lost"]
        assert isinstance(filled.copied[0], Trouble) and filled.missed == []
        into = tmp_path / "incoming" / "d"
        assert into.stat().st_mtime_ns == -5_000_000_001 and os.getxattr(into, "user.x") == b"1"
        assert (into / "there").samefile(tmp_path / "mirror" / "d" / "there")
        assert (into / "below").is_dir()
        with pytest.raises(FileNotFoundError):
            one.fill([copier.Work(b"nowhere")], lambda count: None)
        [again] = one.fill([copier.Work(b"")], lambda count: None)
        assert again == ([], [], [])
    finally:
        one.close()
        for fd in fds:
            os.close(fd)
