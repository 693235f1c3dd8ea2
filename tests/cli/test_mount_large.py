"""`mount` shows large files whole, whatever they are on the drive, while nights go on."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounts import is_mounted, mounted, require_fuse
from program import run
from runs import LargeNights
from trees import describe, require_same

SIZE = 3 << 20


@pytest.fixture
def large(source: Path, tmp_path: Path) -> LargeNights:
    (source / "image").write_bytes(random.Random(1).randbytes(SIZE))
    return LargeNights(source, tmp_path / "drive")


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    """An empty folder, on which nothing is mounted in the end."""
    require_fuse()
    folder = tmp_path / "point"
    folder.mkdir()
    yield folder
    if is_mounted(folder):
        subprocess.run(["umount", "--lazy", folder], check=True)


def change(path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with path.open("r+b") as file:
        for _ in range(20):
            file.seek(chance.randrange(SIZE))
            file.write(chance.randbytes(300))


def test_whole_under_their_own_names(large: LargeNights, point: Path) -> None:
    states = []
    image = large.source / "image"
    os.setxattr(image, "user.one", b"1")
    for night in range(5):
        change(image, night)
        if night == 2:
            image.chmod(0o640)
        if night == 3:
            image.rename(large.source / "moved")
            image = large.source / "moved"
        states.append(describe(large.source))
        large.backup()
    names = [*(folder.name for folder in large.folders()), "current"]
    assert (large.folders()[0] / "image.rdiff.zst").exists()
    with mounted(large.repository, point):
        for name, wanted in zip(names, states, strict=True):
            require_same(wanted, describe(point / name))


@pytest.mark.parametrize("lose", [False, True])
@pytest.mark.parametrize("command", [["cp", "-a"], ["rsync", "-aH"]])
def test_a_copy_and_one_whose_catalog_was_made_anew(
    large: LargeNights, point: Path, tmp_path: Path, command: list[str], lose: bool
) -> None:
    """As on a bigger drive: all is shown as before, and the next night copies nothing."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]}")
    image, states = large.source / "image", []
    (large.source / "linked").hardlink_to(image)
    for night in range(3):
        change(image, night)
        (large.source / "small").write_text(f"night {night}")
        time.sleep(0.03)
        states.append(describe(large.source))
        large.backup()
    names = [*(folder.name for folder in large.folders()), "current"]
    more = ""
    if command[0] == "rsync":
        more = "/"
        time.sleep(1.1)  # of a folder it sets no time that is the same second's
    subprocess.run([*command, f"{large.repository}{more}", tmp_path / "copy"], check=True)
    shutil.rmtree(large.repository)
    large.repository = tmp_path / "copy"
    if lose:
        (large.repository / ".mirrorback" / "catalog.db").unlink()
        assert run("rebuild", large.repository, "--json").json["problems"] == 0
    with mounted(large.repository, point):
        for name, state in zip(names, states, strict=True):
            require_same(state, describe(point / name))
        assert run("backup", large.source, large.repository, "--json").summary["unchanged"] is True
        for name, state in zip(names, states, strict=True):
            require_same(state, describe(point / name))
    assert large.problems() == []


def test_several_readers_while_nights_go_on(large: LargeNights, point: Path) -> None:
    """What a folder shows never changes, though the file under it does."""
    image = large.source / "image"
    contents = {}
    large.backup()
    change(image, 100)
    newest = large.backup().summary.snapshot
    assert newest is not None
    contents[large.folders()[0].name] = random.Random(1).randbytes(SIZE)
    wrong: list[str] = []
    seen: Counter[str] = Counter()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            for name, wanted in list(contents.items()):
                try:
                    fd = os.open(point / name / "image", os.O_RDONLY)
                except FileNotFoundError:
                    continue  # the view looks for new ones now and then
                try:
                    for at in range(0, SIZE, 1 << 17):
                        data = os.pread(fd, 1 << 17, at)
                        if data != wanted[at : at + (1 << 17)]:
                            wrong.append(f"{name} at {at}")
                finally:
                    os.close(fd)
                seen[name] += 1

    with mounted(large.repository, point):
        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for night in range(8):
                was = image.read_bytes()
                before = newest
                change(image, night)
                newest = large.backup().summary.snapshot
                assert newest is not None
                contents[before] = was
            deadline = time.monotonic() + 60
            while len(seen) < len(contents) and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert not wrong and seen.keys() == contents.keys()


def test_a_file_kept_open_over_nights(large: LargeNights, point: Path) -> None:
    image = large.source / "image"
    large.backup()
    old = image.read_bytes()
    with mounted(large.repository, point):
        fd = os.open(point / "current" / "image", os.O_RDONLY)
        try:
            half = os.pread(fd, SIZE // 2, 0)
            for night in range(3):
                change(image, night)
                large.backup()
            assert half + os.pread(fd, SIZE, SIZE // 2) == old
        finally:
            os.close(fd)
