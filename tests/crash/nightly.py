"""Backups: the first, a night of small changes, a night of large files, and what follows a cut."""

from __future__ import annotations

import os
import random
import shutil
import time

from crash.scenario import AfterCut, Scenario, change, fill
from trees import SUFFIX, Tree, differences, require_same

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


class Week(Scenario):
    """Some nights one after another, each with a promise of its own."""

    recovery_may_be_cut = False

    def prepare(self) -> None:
        fill(self.nights.source)
        self.night()

    def run(self) -> int | None:
        source = self.nights.source
        change(source)
        self._promised_night()
        (source / "d" / "two").write_bytes(bytes(50_000))
        (source / "moved").rename(source / "d" / "again")
        (source / "small").unlink()
        self._promised_night()
        os.link(source / "large", source / "d" / "large")
        os.setxattr(source / "d" / "two", "user.one", b"2")
        (source / "linked").unlink()
        self._promised_night()
        return 0

    def _promised_night(self) -> None:
        time.sleep(0.03)
        self.night()
        self.promise(max(self.then))

    def require_done(self) -> None:
        require_same(self.seen(self.nights.source), self.seen(self.nights.current))
        assert self._names() == sorted(self.then)

    def after(self) -> None:
        wanted = self.seen(self.nights.source)
        nights = sorted(self.then)
        sure = nights.index(self.promised[-1]) if self.promised else 0
        states = {name: self._settled(self.then[name]) for name in nights}
        folders = self.nights.folders()
        for folder in folders:
            require_same(states[folder.name], self._settled(self.seen(folder)))
        assert {folder.name for folder in folders} >= set(nights[:sure])
        found = self._settled(self.seen(self.nights.current))
        told = [differences(states[name], found) for name in nights[sure : sure + 2]]
        assert [] in told, told
        self.recover()
        names = self._names()
        known = [name for name in nights if name in names]
        assert len(known) > sure and names[: len(known)] == nights[: len(known)]
        self.then = {name: self.then[name] for name in known}
        self._require_all(wanted)


class Large(Scenario):
    """A night on which large files change: in place, by a shift, all over, their metadata."""

    is_a_night = True
    form = "delta"

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
        return self.nights.backup(delta_min_size=LARGE // 2, large_files=self.form)

    def _require_published(self, wanted: Tree) -> None:
        """Restored, every snapshot is exact at any moment; and a folder shows each version,
        whole, or its delta, or for a moment both."""
        if not self.nights.current.exists():
            assert not self.then, "there is no mirror"
            return
        names = self._names()
        assert self.then.keys() - self.removable() <= set(names), (self.then.keys(), names)
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


class LargeShared(Large):
    """Such a night on a drive where files can share blocks."""

    form = "reflink"
    kinds = ("xfs", "btrfs")


class ReadBack(Large):
    """Reading everything back."""

    is_a_night = False

    def run(self) -> int | None:
        found = self.nights.problems()
        assert found == [], "what was not there to be read was told as damage"
        return 0

    def require_done(self) -> None:
        assert len(self._names()) == len(self.then)
