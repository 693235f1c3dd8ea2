"""A use case recorded on a disk that writes down what is written to it."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from crash.scenario import Scenario
from powercut import cuts, devices
from powercut.cuts import Cut, Epoch
from powercut.devices import Kind
from powercut.disk import served

DONE = "done"  # the promise of a use case that has ended
PAUSES_S = (0.004, 0.02, 0.1)
Act = Callable[[], object]


@dataclass
class Recording:
    """What was recorded: the disk before it, and the epochs that came after."""

    kind: Kind
    folder: Path
    epochs: list[Epoch]

    @property
    def base(self) -> Path:
        """The disk as it was before."""
        return self.folder / "base"

    def plan(self, chance: random.Random, count: int) -> list[tuple[int, Cut]]:
        """Cuts with the numbers of their epochs, at most so many random ones an epoch.  No two
        leave the same disk; of such the one with most promises stays."""
        found: dict[int, tuple[int, Cut]] = {}
        promised: list[str] = []
        image = self.folder / "planned"
        devices.copy_sparse(self.base, image)
        fd = os.open(image, os.O_RDWR)
        fingerprint = cuts.Fingerprint(image)
        try:
            for number, epoch in enumerate(self.epochs):
                for cut in cuts.possible(epoch, chance, count):
                    key = fingerprint.after(cut.writes)
                    before = found.get(key)
                    everything = Cut(cut.words, cut.writes, promised + cut.promised)
                    if before is None or len(before[1].promised) < len(everything.promised):
                        found[key] = (number, everything)
                writes, marks = _parted(epoch)
                fingerprint.advance(writes)
                cuts.apply(fd, writes)
                promised = promised + marks
        finally:
            fingerprint.close()
            os.close(fd)
            image.unlink()
        return sorted(found.values(), key=lambda one: one[0])

    def states(self, planned: list[tuple[int, Cut]], image: Path) -> Iterator[tuple[int, Cut]]:
        """Leave each cut's disk in `image`, in the order of the epochs; `base` moves on."""
        at = 0
        fd = os.open(self.base, os.O_RDWR)
        try:
            for number, cut in planned:
                for epoch in self.epochs[at:number]:
                    cuts.apply(fd, _parted(epoch)[0])
                at = number
                devices.copy_sparse(self.base, image)
                scratch = os.open(image, os.O_RDWR)
                try:
                    cuts.apply(scratch, cut.writes)
                finally:
                    os.close(scratch)
                yield number, cut
        finally:
            os.close(fd)


def _parted(epoch: Epoch) -> tuple[list[cuts.Write], list[str]]:
    writes = [entry for entry in epoch if isinstance(entry, cuts.Write)]
    return writes, [entry for entry in epoch if isinstance(entry, str)]


def record(scenario: Scenario, kind: Kind, folder: Path, chance: random.Random) -> Recording:
    """Bring a scenario about on a new disk, and record its use case."""
    folder.mkdir(parents=True)
    image = folder / "image"
    devices.make(kind, image)
    with devices.mounted(kind, image, scenario.place):
        scenario.nights.source.mkdir(parents=True)
        scenario.prepare()
        scenario.begin()
        (scenario.place / "other").touch()
        gc.collect()  # nothing is to be open when it is unmounted
    return _record(scenario, kind, folder, scenario.run, chance)


def record_recovery(
    scenario: Scenario, kind: Kind, folder: Path, image: Path, chance: random.Random
) -> Recording:
    """Record what comes after a cut that has left the disk in `image`."""
    folder.mkdir(parents=True)
    image.rename(folder / "image")
    return _record(scenario, kind, folder, scenario.recover, chance)


def _record(
    scenario: Scenario, kind: Kind, folder: Path, act: Act, chance: random.Random
) -> Recording:
    image = folder / "image"
    devices.copy_sparse(image, folder / "base")
    with (
        served(image, folder / "log", folder / "served") as disk,
        devices.mounted(kind, disk.block_file, scenario.place, direct=True),
    ):
        scenario.promise = disk.mark
        with _others(scenario.place / "other", chance):
            act()
        disk.mark(DONE)
        _touch(scenario.place / "other")  # what the run has left to be written, is written
        disk.mark(cuts.END)
        gc.collect()
    image.unlink()
    return Recording(kind, folder, cuts.read_log(folder / "log"))


@contextlib.contextmanager
def _others(file: Path, chance: random.Random) -> Iterator[None]:
    """In half of all recordings another program syncs a file of its own now and then, so that
    the file system commits what it has at hand."""
    pause = chance.choice(PAUSES_S)
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(pause * (0.5 + chance.random())):
            _touch(file)

    thread = threading.Thread(target=go_on)
    if chance.random() < 0.5:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread.ident is not None:
            thread.join()


def _touch(file: Path) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_CREAT)
    try:
        os.pwrite(fd, os.urandom(8), 0)
        os.fsync(fd)
    finally:
        os.close(fd)
