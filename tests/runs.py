"""Running use cases within the test's own process, with a clock of our own."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mirrorback.engine.backup import BackupResult, backup
from mirrorback.engine.backup_options import BackupOptions
from mirrorback.engine.delete import delete
from mirrorback.engine.events import Events
from mirrorback.engine.history import History
from mirrorback.engine.mending import RepairResult
from mirrorback.engine.prune import prune
from mirrorback.engine.repair import repair
from mirrorback.engine.restore import RestoreOptions, RestoreResult, restore
from mirrorback.engine.thinning import Thinned
from mirrorback.engine.verify import verify
from mirrorback.model import Problem
from mirrorback.plan.retention import Policy
from mirrorback.store import past, record
from mirrorback.store.catalog import Catalog

LARGE = 1 << 18  # bytes
PAGE = 4096
IMAGE = 1 << 22  # bytes of a large file
FIRST_NIGHT = datetime(2026, 11, 1, 2, 0, 0, tzinfo=UTC)


class Heard(Events):
    """Keeps what a run tells."""

    def __init__(self) -> None:
        self.warnings: list[tuple[str, bytes | None]] = []
        self.errors: list[tuple[str, bytes | None]] = []

    def warning(self, message: str, path: bytes | None = None) -> None:
        self.warnings.append((message, path))

    def error(self, message: str, path: bytes | None = None) -> None:
        self.errors.append((message, path))


class Nights:
    """A source, a repository, and one backup after another."""

    def __init__(self, source: Path, repository: Path) -> None:
        self.source = source
        self.repository = repository
        self.now = FIRST_NIGHT
        self.heard = Heard()

    def backup(self, **options: Any) -> BackupResult:
        """Make a backup, a day after the one before."""
        self.now += timedelta(days=1)
        self.heard = Heard()
        return backup(
            str(self.source),
            str(self.repository),
            BackupOptions(**({"init": True} | options)),
            self.now,
            self.heard,
        )

    @property
    def current(self) -> Path:
        """The mirror."""
        return self.repository / "current"

    def folders(self) -> list[Path]:
        """The dated folders, oldest first."""
        return sorted(path for path in self.repository.iterdir() if path.name.startswith("20"))

    def history(self) -> History:
        """The open history."""
        return History.open(str(self.repository), self.now)

    def restore(
        self, to: Path, *paths: bytes, at: str | None = None, **options: Any
    ) -> RestoreResult:
        """Restore into a folder."""
        with self.history() as history:
            return restore(history, paths, at, RestoreOptions(to=str(to), **options), Heard())

    def delete(self, *names: str) -> None:
        """Delete snapshots."""
        self.heard = Heard()
        delete(str(self.repository), names, dry_run=False, now=self.now, events=self.heard)

    def prune(self, *, dry_run: bool = False, **rules: Any) -> Thinned:
        """Let snapshots go by a policy."""
        policy = Policy(**rules)
        return prune(str(self.repository), policy, dry_run=dry_run, now=self.now, events=self.heard)

    def repair(self, *, dry_run: bool = False, source: Path | None = None) -> RepairResult:
        """Mend what is marked as damaged."""
        top = None if source is None else str(source)
        return repair(
            str(self.repository), dry_run=dry_run, source=top, now=self.now, events=Heard()
        )

    def mark(self, *paths: str, at: str | None = None) -> None:
        """Note that something is wrong with what is shown at some paths; with none, with all
        that there is."""
        with self.history() as history:
            snapshot = history.resolve(at)
            numbers = [history.entry(os.fsencode(path), snapshot).object for path in paths]
            if not paths:
                rows = history.catalog.db.execute("SELECT id FROM object ORDER BY id")
                numbers = [row[0] for row in rows]
        catalog = Catalog.open(os.fsencode(self.repository / ".mirrorback/catalog.db"), write=True)
        with contextlib.closing(catalog):
            for number in numbers:
                record.damaged(catalog, number, 1, "content is not what was backed up")

    def marked(self) -> list[int]:
        """The objects that are marked as damaged."""
        with self.history() as history:
            return [number for number, _problem in past.marked(history.catalog)]

    def problems(self) -> list[Problem]:
        """What verify finds."""
        found: Iterator[Problem] = verify(str(self.repository), self.now, Heard())
        return list(found)


class LargeNights(Nights):
    """Nights on which files are large from 256 KiB on, on a drive taken to have no reflinks."""

    form = "delta"

    def backup(self, **options: Any) -> BackupResult:
        """See `Nights`."""
        return super().backup(**({"delta_min_size": LARGE, "large_files": self.form} | options))


def noise(size: int, seed: int) -> bytes:
    """Bytes that nothing can compress, always the same for the same seed."""
    return random.Random(seed).randbytes(size)


def change_pages(path: Path, seed: int, count: int = 10) -> None:
    """Write some pages of a file anew, in place."""
    chance = random.Random(seed)
    with path.open("r+b") as file:
        for _ in range(count):
            file.seek(chance.randrange(path.stat().st_size // PAGE) * PAGE)
            file.write(chance.randbytes(PAGE))
