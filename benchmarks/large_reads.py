"""Reading large files: the encoder by itself, an old version restored and through `mount`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import large
from ground import Ground, Grounds, require_equal
from large_nights import IMAGE_FILE
from log import Log, say
from measure import Command, Failed, run
from mounted import mounted
from peers import remove

FUSE = "/dev/fuse"
ENCODER_TIMES = 3  # what the encoder may take, in times of `cmp`
MOUNT_TIMES = 4  # the same of reading a whole file through `mount`
MOUNT_MB = 256  # what its server may hold meanwhile
OPEN_S = 0.1  # to open the oldest version, and to read its first byte


# --- the encoder --------------------------------------------------------------------------------


def encoder(grounds: Grounds) -> None:
    """Comparing two large files, in times of `cmp` of two equal ones."""
    sizes = grounds.sizes
    cases = {"image": sizes.image, "mailbox": sizes.mailbox, "database": sizes.database}
    for name, size in cases.items():
        with TemporaryDirectory(dir=grounds.log.work) as folder:
            _encode(grounds, name, size, Path(folder))


def _encode(grounds: Grounds, name: str, size: int, folder: Path) -> None:
    old, new = folder / "old", folder / "new"
    say(f"making the {name} that the encoder gets")
    large.make(name, old, new, size)
    with grounds.ground("encoder") as ground:
        interpreter = ground.mirrorback.interpreter()
    command = [interpreter, large.__file__, "--measure", str(old), str(new)]
    larger = max(old, new, key=lambda path: path.stat().st_size)
    ratios = []
    for _ in range(grounds.rounds):
        yardstick = large.cmp_seconds(larger)
        figures = json.loads(large.warm_run(command, old, new, name))
        if not figures["kept"]:
            raise Failed(f"the encoder gives up on the {name}")
        ratios.append(figures["seconds"] / yardstick)
    grounds.log.figure("encoder", name, ratios, ENCODER_TIMES, "x cmp")


# --- an old version -----------------------------------------------------------------------------


@dataclass(frozen=True)
class History:
    """A file of many versions; `oldest` is a copy of its first."""

    ground: Ground
    snapshot: str  # the oldest
    oldest: Path


class OldVersions:
    """The nights that read them; the history is made for the first that asks for it."""

    def __init__(self, grounds: Grounds, stack: ExitStack) -> None:
        self._grounds = grounds
        self._stack = stack
        self._history: History | None = None

    def oldest(self) -> None:
        """The oldest version restored, beside `cp` of a whole file of its size, and opened."""
        history = self._made()
        log, place = self._grounds.log, history.ground.mirrorback.place
        target = history.ground.work / "restored"
        restore = history.ground.mirrorback.restore(history.snapshot, target)
        copy = Command(["cp", str(place / "current" / IMAGE_FILE), str(target)])
        for number in range(self._grounds.rounds):
            log.run("oldest", "mirrorback", restore, number, after=[log.work])
            require_equal(target / IMAGE_FILE, history.oldest)
            remove(target)
            log.run("oldest", "cp", copy, number, after=[log.work])
            remove(target)
        if _can_mount():
            opened = [_open_seconds(history) for _ in range(self._grounds.rounds)]
            log.figure("oldest", "open", opened, OPEN_S, "s")

    def mount(self) -> None:
        """Whole files through a new mount, compared with what they should be."""
        if not _can_mount():
            return
        history = self._made()
        log, ground = self._grounds.log, history.ground
        twin = ground.work / "twin"
        shutil.copyfile(history.oldest, twin)
        cases = {
            "oldest": (history.snapshot, history.oldest),
            "mirror": ("current", ground.source / IMAGE_FILE),
        }
        ratios: dict[str, list[float]] = {name: [] for name in cases}
        held: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(self._grounds.rounds):
            _warm(history.oldest, twin, ground.source / IMAGE_FILE)
            yardstick = _cmp(log, "cmp", history.oldest, twin, number)
            for name, (snapshot, expected) in cases.items():
                with mounted(ground.mirrorback, ground.work / "mounted") as server:
                    shown = server.point / snapshot / IMAGE_FILE
                    took = _cmp(log, f"cmp, {name} mounted", shown, expected, number)
                    held[name].append((server.peak() or 0) / 1e6)
                ratios[name].append(took / yardstick)
        for name, values in ratios.items():
            log.figure("mount", name, values, MOUNT_TIMES, "x cmp")
            if all(held[name]):
                log.figure("mount", f"{name}, server", held[name], MOUNT_MB, "MB")

    def _made(self) -> History:
        if self._history is None:
            ground = self._stack.enter_context(self._grounds.ground("history"))
            self._history = _make_history(self._grounds, ground)
        return self._history


def _make_history(grounds: Grounds, ground: Ground) -> History:
    """A hundredth of the file is new in each version."""
    sizes, mirrorback = grounds.sizes, ground.mirrorback
    say(f"making {sizes.versions} versions of a file of {sizes.history:,} bytes")
    file, oldest = ground.source / IMAGE_FILE, ground.work / "oldest"
    large.random_file(file, sizes.history, 1)
    shutil.copyfile(file, oldest)
    for night in range(sizes.versions):
        if night:
            large.change_pages(file, f"night {night}")
        run(mirrorback.backup(night))
    dated = mirrorback.snapshots(mirrorback.place)
    for name in dated:
        ground.delta(IMAGE_FILE, name)
    if len(dated) != sizes.versions - 1:
        raise Failed(f"mirrorback has {len(dated) + 1} of {sizes.versions} versions")
    return History(ground, dated[0], oldest)


def _open_seconds(history: History) -> float:
    """To open the oldest version through a new mount, and to read its first byte."""
    with mounted(history.ground.mirrorback, history.ground.work / "mounted") as server:
        began = time.perf_counter()
        fd = os.open(server.point / history.snapshot / IMAGE_FILE, os.O_RDONLY)
        try:
            os.pread(fd, 1, 0)
            return time.perf_counter() - began
        finally:
            os.close(fd)


def _warm(*files: Path) -> None:
    """Have files in the page cache."""
    subprocess.run(["cat", *files], check=True, stdout=subprocess.DEVNULL)


def _cmp(log: Log, label: str, one: Path, other: Path, number: int) -> float:
    """The time of a comparison; raises Failed where they differ."""
    command = Command(["cmp", str(one), str(other)])
    return log.run("mount", label, command, number, after=[]).figures.wall


def _can_mount() -> bool:
    if os.path.exists(FUSE):
        return True
    say(f"there is no {FUSE}: nothing is mounted")
    return False
