"""Pulls the drive in the middle of a use case, puts it back, and looks at what is left.

    pulled.py KIND SCENARIO FOLDER COUNT

The drive answers each request with EIO, from the n-th on, for COUNT numbers n spread over a
whole run of a scenario (`tests/crash`).  The run must come to its end soon, with
an error that is one of a drive's.  Then the drive is there again; it is mounted, and all must be
as after a power cut.  Prints, for each n, how the run has ended.
"""

from __future__ import annotations

import errno
import gc
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from crash.scenario import Scenario
from crash.scenarios import scenarios
from powercut import devices
from powercut.checking import source_of_its_own
from powercut.children import in_child
from powercut.devices import KINDS, Kind
from powercut.disk import served

from mirrorback.cli.ending import told

ENDS_SOON_S = 30  # on a busy machine
ALLOWED = (0, 1, 12)


@dataclass(frozen=True)
class Ended:
    """How a run has ended: exit code and message."""

    words: str
    seconds: float
    requests: int


class Drive:
    """A scenario's drive, which can be taken away."""

    def __init__(self, kind: Kind, scenario: Scenario, folder: Path) -> None:
        self._kind = kind
        self.scenario = scenario
        self.folder = folder
        self.template = folder / "template"

    def prepare(self) -> None:
        """Bring the scenario about."""
        devices.make(self._kind, self.template)
        with devices.mounted(self._kind, self.template, self.scenario.place):
            self.scenario.nights.source.mkdir(parents=True)
            self.scenario.prepare()
            self.scenario.begin()
            gc.collect()

    def run(self, pulled_at: int | None) -> Ended:
        """The use case, upon a copy of the template, which is then in `image`; the drive fails
        from a request on."""
        image = self.folder / "image"
        devices.copy_sparse(self.template, image)
        with ExitStack() as stack:
            disk = stack.enter_context(served(image, self.folder / "log", self.folder / "served"))
            place = self.scenario.place
            stack.callback(disk.recover)  # or some never let go
            mount = devices.mounted(self._kind, disk.block_file, place, direct=True)
            stack.enter_context(mount)
            before = disk.requests()
            if pulled_at is not None:
                disk.fail(errno.EIO, pulled_at)
            began = time.monotonic()
            problem = in_child(self._end, ENDS_SOON_S)
            seconds = time.monotonic() - began
            assert problem is None, f"pulled at {pulled_at}: {problem}"
            ended = (self.folder / "ended").read_text()
            return Ended(ended, seconds, disk.requests() - before)

    def _end(self) -> None:
        ended = "0"
        try:
            self.scenario.run()
        except BaseException as error:
            message, code = told(error)
            ended = f"{code} {message}"
            assert code in ALLOWED and not message.startswith("internal error"), ended
            assert "\n" not in message, ended
        (self.folder / "ended").write_text(ended)

    def back(self) -> str | None:
        """What is wrong when the drive is there again; None where nothing is."""
        with (
            devices.mounted(self._kind, self.folder / "image", self.scenario.place),
            source_of_its_own(self.scenario),
        ):
            return in_child(self.scenario.after, devices.PATIENCE_S * 10)


def points(kind: Kind, scenario: type[Scenario], folder: Path, count: int) -> None:
    """Pull the drive at so many requests."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    drive = Drive(kind, scenario(folder / "top", folder / "drive"), folder)
    drive.prepare()
    sound = drive.run(None)
    assert sound.words == "0", sound
    failed = 0
    for number in range(count):
        at = sound.requests * number // count
        ended = drive.run(at)
        print(f"{at} of {sound.requests}: {ended.seconds:.1f} s, {ended.words}", flush=True)
        problem = drive.back()
        assert problem is None, f"pulled at {at}, ended with {ended.words}: {problem}"
        failed += ended.words != "0"
    assert failed >= count // 4, "the drive was not needed"


def main() -> None:
    """See above."""
    kind, name, folder, count = sys.argv[1:]
    devices.die_with_parent()
    devices.own_mounts()
    scenario: type[Scenario] = scenarios()[name]
    scenario.lenient = True
    points(KINDS[kind], scenario, Path(folder), int(count))


if __name__ == "__main__":
    main()
