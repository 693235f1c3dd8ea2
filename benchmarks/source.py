"""Makes the source tree, the same every time, and changes a hundredth of it."""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass
from pathlib import Path

MEDIAN = 4096  # bytes of a file
SIGMA = 1.3  # of the logarithm: the mean is 2.3 times the median
LARGEST = 16 << 20
FAN = 8  # folders in a folder
FIRST_MTIME = 1_600_000_000
SPAN_S = 100_000_000  # mtimes are spread over this


@dataclass(frozen=True)
class Source:
    """A tree of `files` files in `folders` folders below `root`."""

    root: Path
    files: int
    folders: int
    seed: int = 1

    def make(self) -> int:
        """Make the tree; returns the bytes in its files."""
        self.root.mkdir()
        for number in range(1, self.folders):
            os.mkdir(self.folder(number))
        total = 0
        for number in range(self.files):
            rng = random.Random(f"{self.seed}/{number}")
            path = self.file(number)
            total += _write(path, rng)
            mtime = FIRST_MTIME + rng.randrange(SPAN_S)
            os.utime(path, (mtime, mtime))
        return total

    def change(self, night: int) -> int:
        """Write a hundredth of the files anew; returns how many."""
        count = max(1, self.files // 100)
        chosen = random.Random(f"{self.seed}/night/{night}").sample(range(self.files), count)
        for number in chosen:
            _write(self.file(number), random.Random(f"{self.seed}/{night}/{number}"))
        return count

    def folder(self, number: int) -> str:
        """The path of a folder; 0 is the root."""
        names: list[str] = []
        while number:
            names.append(f"folder-{number:06}")
            number = (number - 1) // FAN
        return os.path.join(self.root, *reversed(names))

    def file(self, number: int) -> str:
        """The path of a file."""
        return os.path.join(self.folder(number % self.folders), f"file-{number:07}.dat")


def _write(path: str, rng: random.Random) -> int:
    """Write a file of a random size and content; returns the size."""
    size = min(LARGEST, int(rng.lognormvariate(math.log(MEDIAN), SIGMA)))
    with open(path, "wb") as file:
        file.write(rng.randbytes(size))
    return size
