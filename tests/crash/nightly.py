"""Backups: the first, a night of small changes, a night of large files, and what follows a cut."""

from __future__ import annotations

import random
import shutil
import time

from scenario import AfterCut, Scenario, change, fill
from trees import SUFFIX, Tree, require_same

from mirrorback.engine.backup import BackupResult

LARGE = 1 << 18  # bytes


class First(Scenario):
    """The first backup, into nothing."""

    is_a_night = True

    def prepare(self) -> None:
        fill(self.nights.source)


class Night(Scenario):
    """A night with some of every change."""

    is_a_night = True

    def prepare(self) -> None:
        fill(self.nights.source)
        self.night()
        (self.nights.source / "small").write_text("other")
        self.night()
        change(self.nights.source)


class Recovery(AfterCut, Night):
    """The run after a night that was cut, itself cut."""


class Large(Scenario):
    """A night on which large files change: in place, by a shift, all over, their metadata."""

    is_a_night = True

    def prepare(self) -> None:
        source = self.nights.source
        (source / "d").mkdir()
        chance = random.Random(1)
        for name in ("d/pages", "shifted", "other", "owned", "moved"):
            (source / name).write_bytes(chance.randbytes(LARGE))
        time.sleep(0.03)
        self.night()
        self._change(2)
        self.night()
        self._change(3)

    def _change(self, seed: int) -> None:
        source, chance = self.nights.source, random.Random(seed)
        for number in (1, 7):
            with (source / "d/pages").open("r+b") as file:
                file.seek(number * 9000)
                file.write(chance.randbytes(50))
        shifted = (source / "shifted").read_bytes()
        (source / "shifted").write_bytes(b"in front" + shifted)
        (source / "other").write_bytes(chance.randbytes(LARGE))
        (source / "owned").chmod(0o600 + seed)
        [moved] = source.glob("moved*")
        with moved.open("ab") as file:
            file.write(chance.randbytes(1000))
        moved.rename(source / f"moved{seed}")
        time.sleep(0.03)

    def backup(self) -> BackupResult:
        return self.nights.backup(delta_min_size=LARGE // 2, large_files="delta")

    def _require_published(self, wanted: Tree) -> None:
        """Restored, every snapshot is exact at any moment; and a folder shows each version,
        whole, or its delta, or for a moment both."""
        if not self.nights.current.exists():
            return
        with self.nights.history() as history:
            names = [snapshot.name for snapshot in history.snapshots()]
        for name in names:
            if self.incomplete and name not in self.then:
                continue  # some of that night, and some of the one before
            then = self.then.get(name, wanted)
            self.nights.restore(self.top / "back", at=name)
            require_same(then, self.seen(self.top / "back"))
            shutil.rmtree(self.top / "back")
        for folder in self.nights.folders():
            if self.incomplete and folder.name not in self.then:
                continue
            found = self.seen(folder)
            then = self.then.get(folder.name, wanted)
            for path in then.keys() & found.keys():
                assert then[path].content == found[path].content, path
            assert all(path in found or path + SUFFIX in found for path in then)

    def _require_all(self, wanted: Tree) -> None:
        super()._require_all(wanted)
        self._require_published(wanted)
        assert not any((self.nights.repository / ".mirrorback" / "redo").iterdir())


class LargeRecovery(AfterCut, Large):
    """The run after such a night that was cut, itself cut."""
