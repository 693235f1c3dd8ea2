"""Removals: snapshots that go, by name and by a policy, with what depends on them."""

from __future__ import annotations

import os
import random
import shutil
import time
from datetime import timedelta
from pathlib import Path

from crash.nightly import LARGE, Large
from crash.scenario import AfterCut, Scenario, change, fill, mark_pinned
from runs import Heard
from trees import require_same

from mirrorback.engine.backup import BackupResult
from mirrorback.engine.delete import delete
from mirrorback.plan.retention import Policy


class Delete(Scenario):
    """Deleting a snapshot in the middle."""

    alters_source = True

    def prepare(self) -> None:
        fill(self.nights.source)
        self.night()
        change(self.nights.source)
        self.night()
        (self.nights.source / "small").write_text("third")
        self.night()
        self.victim = sorted(self.then)[1]

    def run(self) -> None:
        self.nights.delete(self.victim)

    def require_done(self) -> None:
        self._require_gone(self.victim)

    def after(self) -> None:
        wanted = self.then.pop(self.victim)
        for folder in self.nights.folders():
            if folder.name != self.victim:
                require_same(self.then[folder.name], self.seen(folder))
        names = self._names()
        if self.victim in names:
            require_same(wanted, self.seen(self.nights.repository / self.victim))
            self.nights.delete(self.victim)
        (self.nights.source / "small").write_text("fourth")
        self.nights.now += timedelta(hours=1)
        self.nights.backup()  # which ends what was begun
        assert not (self.nights.repository / self.victim).exists()
        self._require_all(self.seen(self.nights.source))


class _Saying(Heard):
    """Writes what is told into a file, too."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def warning(self, message: str, path: bytes | None = None) -> None:
        super().warning(message, path)
        with self._file.open("a") as file:
            file.write(f"{message}: {path!r}\n")


class DeleteTouched(Delete):
    """The same, where someone has put things into the folder, which are nowhere else."""

    mine = ("mine", "d/mine", "own/below/mine")

    @property
    def said(self) -> Path:
        """Where what is cut writes what it has told: not below what is cut."""
        return self.top.parent / "said"

    def begin(self) -> None:
        self.said.unlink(missing_ok=True)

    def run(self) -> None:
        self.nights.heard = _Saying(self.said)
        delete(
            str(self.nights.repository),
            [self.victim],
            dry_run=False,
            now=self.nights.now,
            events=self.nights.heard,
        )

    def prepare(self) -> None:
        super().prepare()
        for path in self.mine:
            file = self.nights.repository / self.victim / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(path)

    def after(self) -> None:
        del self.then[self.victim]
        top = self.nights.repository
        aside = top / f"{self.victim}.set-aside"
        places = (top / self.victim, top / ".mirrorback/trash" / self.victim, aside)
        for path in self.mine:
            assert [(p / path).read_text() for p in places if (p / path).exists()] == [path]
        told = self.said.read_text() if self.said.exists() else ""
        names = self._names()
        if self.victim in names:
            self.nights.delete(self.victim)
            told += str(self.nights.heard.warnings)
        (self.nights.source / "small").write_text("fourth")
        self.nights.now += timedelta(hours=1)
        self.nights.backup()  # which ends what was begun
        told += str(self.nights.heard.warnings)
        assert aside.name in told, "nobody was told"
        assert not (top / self.victim).exists()
        found = {str(p.relative_to(aside)): p.read_text() for p in aside.rglob("*") if p.is_file()}
        assert found == {path: path for path in self.mine}
        shutil.rmtree(aside)
        self._require_all(self.seen(self.nights.source))


class Prune(Scenario):
    """Letting snapshots go by a policy, some of them in the middle."""

    alters_source = True

    def prepare(self) -> None:
        fill(self.nights.source)
        self.night()
        change(self.nights.source)
        self.night()
        for number in range(3):
            (self.nights.source / "small").write_text(f"night {number}")
            self.night()

    def run(self) -> None:
        self.nights.prune(last=2)

    def require_done(self) -> None:
        kept = sorted(self.then)[-2:]
        assert self._names() == kept
        assert [folder.name for folder in self.nights.folders()] == kept[:1]

    def after(self) -> None:
        for folder in self.nights.folders():
            require_same(self.then[folder.name], self.seen(folder))
        self.run()
        kept = sorted(self.then)[-2:]
        assert [folder.name for folder in self.nights.folders()] == kept[:1]
        assert self.nights.prune(last=2).removed == []
        self.then = {name: self.then[name] for name in kept}
        (self.nights.source / "small").write_text("another")
        self.nights.now += timedelta(hours=1)
        self.nights.backup()
        self._require_all(self.seen(self.nights.source))


class LargeDelete(Large):
    """Deleting a snapshot on which deltas of others depend."""

    alters_source = True

    def prepare(self) -> None:
        super().prepare()
        self.night()
        self._change(4)
        self.night()
        self.victim = sorted(self.then)[1]

    def run(self) -> None:
        self.nights.delete(self.victim)

    def removable(self) -> set[str]:
        return {self.victim}

    def require_done(self) -> None:
        self._require_gone(self.victim)

    def after(self) -> None:
        wanted = self.seen(self.nights.source)
        self._require_published(wanted)
        names = self._names()
        if self.victim in names:
            self.nights.delete(self.victim)
        del self.then[self.victim]
        self._change(5)
        self.nights.now += timedelta(hours=1)
        self.backup()
        assert not (self.nights.repository / self.victim).exists()
        self._require_all(self.seen(self.nights.source))


class LargePrune(Large):
    """The same, where deltas of what stays depend on what goes; after a backup."""

    alters_source = True

    def prepare(self) -> None:
        super().prepare()
        self.night()
        self._change(4)
        self.night()
        mark_pinned(self.nights, min(self.then))
        self._change(5)

    def backup(self) -> BackupResult:
        return self.nights.backup(
            delta_min_size=LARGE // 2, large_files="delta", policy=self.policy
        )

    policy: Policy | None = None

    def run(self) -> None:
        self.policy = Policy(last=2)
        self.backup()

    def removable(self) -> set[str]:
        return set(sorted(self.then)[1:-1])

    def require_done(self) -> None:
        require_same(self.seen(self.nights.source), self.seen(self.nights.current))
        names = self._names()
        assert len(names) == 3 and names[:2] == [min(self.then), max(self.then)]
        self._require_gone(*self.removable())

    def recover(self) -> None:
        self.policy = Policy(last=2)
        super().recover()

    def after(self) -> None:
        self.policy = Policy(last=2)
        wanted = self.seen(self.nights.source)
        self._require_published(wanted)
        self.nights.now += timedelta(hours=1)
        self._change(6)
        name = self.backup().summary.snapshot or ""
        names = [folder.name for folder in self.nights.folders()]
        assert names[0] == min(self.then) and len(names) == 2  # what is pinned, and one
        self.then = {n: self.then.get(n, wanted) for n in names}
        self.then[name] = self.seen(self.nights.source)
        self._require_all(self.seen(self.nights.source))


class Mixed(Large):
    """Deleting the oldest snapshot and one in the middle, beside one that is pinned; deltas of
    what stays depend on them, and names are hard-linked."""

    alters_source = True

    def prepare(self) -> None:
        source = self.nights.source
        (source / "d").mkdir()
        (source / "image").write_bytes(random.Random(1).randbytes(LARGE))
        (source / "d" / "one").write_text("linked")
        os.link(source / "d" / "one", source / "two")
        os.link(source / "image", source / "d" / "disk")
        for night in range(5):
            self._change(night)
            self.night()
        first, self.pinned, middle, *_rest = sorted(self.then)
        self.victims = (first, middle)
        mark_pinned(self.nights, self.pinned)

    def _change(self, seed: int) -> None:
        source = self.nights.source
        with (source / "image").open("r+b") as file:
            file.seek(seed * 20_000)
            file.write(random.Random(seed).randbytes(100))
        (source / "d" / "small").write_text(f"night {seed}")
        time.sleep(0.03)

    def run(self) -> None:
        self.nights.delete(*self.victims)

    def removable(self) -> set[str]:
        return set(self.victims)

    def require_done(self) -> None:
        self._require_gone(*self.victims)

    def after(self) -> None:
        self._require_published(self.seen(self.nights.source))
        self.nights.now += timedelta(hours=1)
        self._change(9)
        name = self.backup().summary.snapshot or ""  # ends what was begun
        names = self._names()
        gone = self.then.keys() - set(names)
        assert gone <= set(self.victims), gone
        self.then = {one: tree for one, tree in self.then.items() if one not in gone}
        self.then[name] = self.seen(self.nights.source)
        assert sorted(self.then) == names
        assert [folder.name for folder in self.nights.folders()] == names[:-1]
        self._require_all(self.then[name])


class MixedPrune(Mixed):
    """The same by a policy."""

    def run(self) -> None:
        self.nights.prune(last=2)


class MixedRecovery(AfterCut, MixedPrune):
    """The run after one that was cut, itself cut."""

    def first(self) -> object:
        return self.run()
