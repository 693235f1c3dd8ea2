"""Where the nights of large files work: each has a source and a repository of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from log import Log
from measure import Failed
from peers import Mirrorback, Tool, all_peers, remove

SUFFIX = ".rdiff.zst"  # of a reverse delta


@dataclass(frozen=True)
class Sizes:
    """How large it all is: bytes, but for `versions`."""

    image: int
    mailbox: int
    database: int
    history: int  # of the file that has `versions` versions
    versions: int
    huge: int  # of the file that memory is measured with


@dataclass(frozen=True)
class Ground:
    """What one night works with; `work` is empty, and beside the source."""

    source: Path
    work: Path
    mirrorback: Mirrorback
    peers: Sequence[Tool]

    def delta(self, name: str, snapshot: str) -> int:
        """The size of the reverse delta that a snapshot has of a file.  Raises Failed."""
        path = self.mirrorback.place / snapshot / (name + SUFFIX)
        try:
            return path.stat().st_size
        except FileNotFoundError:
            raise Failed(f"mirrorback has kept {name} whole: there is no {path}") from None


@dataclass(frozen=True)
class Grounds:
    """Makes them."""

    log: Log
    rounds: int
    sizes: Sizes
    program: str
    rsyncs: Sequence[str]

    @contextmanager
    def ground(self, night: str) -> Iterator[Ground]:
        """One that is gone afterwards."""
        work, drive = (top / f"large-{night}" for top in (self.log.work, self.log.drive))
        source, cache = work / "source", work / "cache"
        for folder in (source, work / "rest", drive):
            folder.mkdir(parents=True)
        mirrorback = Mirrorback(source, drive / "repository", cache, self.program)
        mirrorback.options = ("--large-files", "delta")
        peers = all_peers(source, drive, cache, self.rsyncs)
        try:
            yield Ground(source, work / "rest", mirrorback, peers)
        finally:
            remove(work)
            remove(drive)


def require_equal(one: Path, other: Path) -> None:
    """Raises Failed where two files are not equal."""
    if subprocess.run(["cmp", "--", str(one), str(other)], check=False).returncode:
        raise Failed(f"{one} is not what it was")
