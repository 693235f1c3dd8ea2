"""Use cases in some state of a repository, and what must be there when one of them was cut.

They are cut at system calls (`points.py`) and by power cuts (`tests/powercut`).
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from crash.cutting import NEVER, in_child
from runs import Nights
from trees import SUFFIX, Tree, describe, differences, require_same, require_shown

from mirrorback.engine.backup import BackupResult
from mirrorback.engine.rebuild import RebuildOptions, rebuild
from mirrorback.errors import Damaged
from mirrorback.plan.retention import Policy
from mirrorback.store.catalog import Catalog

KEPT_INSIDE = {"repository.toml", "catalog.db", "catalog.blake3", "mirror.toml", "trash", "reserve",
               "lock", "log", "redo", "signatures", "damaged"}  # fmt: skip
LARGE = 1 << 18  # bytes
CHOSEN = {"victim", "victims", "pinned"}  # what a scenario has chosen to go, and to stay


class Scenario:
    """A repository in some state, and a use case that is to be cut."""

    is_a_night = False  # done, the mirror is the source
    alters_source = False  # in `after`
    lenient = False  # the power may have gone: folders' times may not have been put back yet
    recovery_may_be_cut = True  # `after` knows what that leaves, too
    kinds: tuple[str, ...] = ()  # of file systems that it can be on, if not on all

    def __init__(self, top: Path, drive: Path | None = None) -> None:
        self.top = top
        self.place = drive or top
        self.nights = Nights(top / "source", self.place / "drive")
        self.then: dict[str, Tree] = {}  # the source, by snapshot
        self.promised: list[str] = []  # what `run` had promised before it was cut
        self.promise: Callable[[str], None] = self.promised.append

    def prepare(self) -> None:
        """Make the state, once."""

    def measure(self) -> None:
        """What has to be known before, found out in a copy of that state."""

    def begin(self) -> None:
        """What is to be done each time, in the copy of that state."""

    def backup(self) -> BackupResult:
        """One backup."""
        return self.nights.backup()

    def run(self) -> None:
        """The use case; raises what it raises."""
        self.backup()

    def night(self) -> None:
        """One whole backup, remembered."""
        name = self.backup().summary.snapshot
        assert name is not None
        self.then[name] = describe(self.nights.source)

    def require_done(self) -> None:
        """What `run` must have left when it has ended, before the next command."""
        assert self.is_a_night, "who ends must have done something"
        wanted = describe(self.nights.source)
        require_same(wanted, describe(self.nights.current))
        assert len(self._names()) == len(self.then) + 1
        assert {folder.name for folder in self.nights.folders()} == self.then.keys()

    def recover(self) -> None:
        """The next command, which brings in order what a cut has left."""
        self.nights.now += timedelta(hours=1)
        self.backup()

    def _require_gone(self, *names: str) -> None:
        assert not set(names) & set(self._names())
        assert not set(names) & {folder.name for folder in self.nights.folders()}

    def removable(self) -> set[str]:
        """Snapshots that may have gone, or not."""
        return set()

    def _names(self) -> list[str]:
        with self.nights.history() as history:
            return [snapshot.name for snapshot in history.snapshots()]

    def _seen(self, tree: Tree) -> Tree:
        """A tree as it is compared before a recovery."""
        if not self.lenient:
            return tree
        return {
            path: node._replace(mtime=0) if stat.S_ISDIR(node.format) else node
            for path, node in tree.items()
        }

    def after(self) -> None:
        """Look at what a cut has left; bring it in order; look again."""
        wanted = describe(self.nights.source)
        self._require_published(wanted)
        self.nights.now += timedelta(hours=1)
        self.backup()
        self._require_all(wanted)

    def _require_published(self, wanted: Tree) -> None:
        """Whatever has its name is exact at any moment."""
        for folder in self.nights.folders() if self.nights.repository.exists() else []:
            require_same(self._seen(self.then[folder.name]), self._seen(describe(folder)))
        expected = set(sorted(self.then)[:-1])
        assert not expected or expected <= {folder.name for folder in self.nights.folders()}
        if self.nights.current.exists():
            found = self._seen(describe(self.nights.current))
            states = [wanted, *(self.then[name] for name in sorted(self.then)[-1:])]
            told = [differences(self._seen(state), found) for state in states]
            assert [] in told, told
        else:
            assert not self.then, "there is no mirror"

    def _require_all(self, wanted: Tree) -> None:
        require_same(wanted, describe(self.nights.current))
        names = self._names()
        assert set(self.then) - {names[-1]} <= {f.name for f in self.nights.folders()}
        for folder in self.nights.folders():
            require_shown(self.then.get(folder.name, wanted), describe(folder))
        assert self.nights.problems() == []
        self._require_tidy()

    def _require_tidy(self) -> None:
        inner = self.nights.repository / ".mirrorback"
        left = {path.name for path in inner.iterdir()} - KEPT_INSIDE
        assert not left, left
        assert list((inner / "trash").iterdir()) == []
        top = {path.name for path in self.nights.repository.iterdir()}
        folders = {folder.name for folder in self.nights.folders()}
        assert top == folders | {"current", "README.txt", ".mirrorback"}, top


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


class Recovery(Night):
    """The run after a night that was cut, itself cut."""

    percent = 0  # of the calls of the night, done before it was cut
    at = 0

    def measure(self) -> None:
        _code, calls = in_child(self.backup, NEVER, 0, 0)
        type(self).at = calls * self.percent // 100

    def begin(self) -> None:
        code, _calls = in_child(self.backup, self.at, 0, 0)
        assert self.at and code == 128 + 9, "the night was not cut"


class Week(Scenario):
    """Some nights one after another, each with a promise of its own."""

    recovery_may_be_cut = False

    def prepare(self) -> None:
        fill(self.nights.source)
        self.night()

    def run(self) -> None:
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

    def _promised_night(self) -> None:
        time.sleep(0.03)
        self.night()
        self.promise(max(self.then))

    def require_done(self) -> None:
        require_same(describe(self.nights.source), describe(self.nights.current))
        assert self._names() == sorted(self.then)

    def after(self) -> None:
        wanted = describe(self.nights.source)
        nights = sorted(self.then)
        sure = nights.index(self.promised[-1]) if self.promised else 0
        states = {name: self._seen(self.then[name]) for name in nights}
        folders = self.nights.folders()
        for folder in folders:
            require_same(states[folder.name], self._seen(describe(folder)))
        assert {folder.name for folder in folders} >= set(nights[:sure])
        found = self._seen(describe(self.nights.current))
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

    form = "delta"

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
            then = self.then.get(name, wanted)
            self.nights.restore(self.top / "back", at=name)
            require_same(then, describe(self.top / "back"))
            shutil.rmtree(self.top / "back")
        for folder in self.nights.folders():
            found = describe(folder)
            then = self.then.get(folder.name, wanted)
            for path in then.keys() & found.keys():
                assert then[path].content == found[path].content, path
            assert all(path in found or path + SUFFIX in found for path in then)

    def _require_all(self, wanted: Tree) -> None:
        super()._require_all(wanted)
        self._require_published(wanted)
        assert not any((self.nights.repository / ".mirrorback" / "redo").iterdir())


class LargeRecovery(Large):
    """The run after such a night that was cut, itself cut."""

    percent = 0
    at = 0
    measure = Recovery.measure
    begin = Recovery.begin


class LargeShared(Large):
    """The same on a drive where files can share blocks."""

    form = "reflink"
    kinds = ("xfs", "btrfs")


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
        wanted = describe(self.nights.source)
        self._require_published(wanted)
        names = self._names()
        if self.victim in names:
            self.nights.delete(self.victim)
        del self.then[self.victim]
        self._change(5)
        self.nights.now += timedelta(hours=1)
        self.backup()
        assert not (self.nights.repository / self.victim).exists()
        self._require_all(describe(self.nights.source))


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
                require_same(self.then[folder.name], describe(folder))
        names = self._names()
        if self.victim in names:
            require_same(wanted, describe(self.nights.repository / self.victim))
            self.nights.delete(self.victim)
        (self.nights.source / "small").write_text("fourth")
        self.nights.now += timedelta(hours=1)
        self.nights.backup()  # which ends what was begun
        assert not (self.nights.repository / self.victim).exists()
        self._require_all(describe(self.nights.source))


class DeleteTouched(Delete):
    """The same, where someone has put things into the folder, which are nowhere else."""

    mine = ("mine", "d/mine", "own/below/mine")

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
        names = self._names()
        if self.victim in names:
            self.nights.delete(self.victim)
        (self.nights.source / "small").write_text("fourth")
        self.nights.now += timedelta(hours=1)
        self.nights.backup()  # which ends what was begun
        assert not (top / self.victim).exists()
        found = {str(p.relative_to(aside)): p.read_text() for p in aside.rglob("*") if p.is_file()}
        assert found == {path: path for path in self.mine}
        shutil.rmtree(aside)
        self._require_all(describe(self.nights.source))


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
            require_same(self.then[folder.name], describe(folder))
        self.run()
        kept = sorted(self.then)[-2:]
        assert [folder.name for folder in self.nights.folders()] == kept[:1]
        assert self.nights.prune(last=2).removed == []
        self.then = {name: self.then[name] for name in kept}
        (self.nights.source / "small").write_text("another")
        self.nights.now += timedelta(hours=1)
        self.nights.backup()
        self._require_all(describe(self.nights.source))


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
        require_same(describe(self.nights.source), describe(self.nights.current))
        names = self._names()
        assert len(names) == 3 and names[:2] == [min(self.then), max(self.then)]
        self._require_gone(*self.removable())

    def recover(self) -> None:
        self.policy = Policy(last=2)
        super().recover()

    def after(self) -> None:
        self.policy = Policy(last=2)
        wanted = describe(self.nights.source)
        self._require_published(wanted)
        self.nights.now += timedelta(hours=1)
        self._change(6)
        name = self.backup().summary.snapshot or ""
        names = [folder.name for folder in self.nights.folders()]
        assert names[0] == min(self.then) and len(names) == 2  # what is pinned, and one
        self.then = {n: self.then.get(n, wanted) for n in names}
        self.then[name] = describe(self.nights.source)
        self._require_all(describe(self.nights.source))


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
        self._require_published(describe(self.nights.source))
        self.nights.now += timedelta(hours=1)
        self._change(9)
        name = self.backup().summary.snapshot or ""  # ends what was begun
        names = self._names()
        gone = self.then.keys() - set(names)
        assert gone <= set(self.victims), gone
        self.then = {one: tree for one, tree in self.then.items() if one not in gone}
        self.then[name] = describe(self.nights.source)
        assert sorted(self.then) == names
        assert [folder.name for folder in self.nights.folders()] == names[:-1]
        self._require_all(self.then[name])


class MixedPrune(Mixed):
    """The same by a policy."""

    def run(self) -> None:
        self.nights.prune(last=2)


class MixedRecovery(MixedPrune):
    """The run after one that was cut, itself cut."""

    percent = 0  # of the calls of the first, done before it was cut
    at = 0

    def measure(self) -> None:
        _code, calls = in_child(self.run, NEVER, 0, 0)
        type(self).at = calls * self.percent // 100

    def begin(self) -> None:
        code, _calls = in_child(self.run, self.at, 0, 0)
        assert self.at and code == 128 + 9, "it was not cut"


DAMAGED = b"damaged"


class _Rebuilding(Scenario):
    """A catalog that is to be made anew."""

    def lose(self) -> None:
        """Damage the catalog beyond reading."""
        inner = self.nights.repository / ".mirrorback"
        (inner / "catalog.db").write_bytes(DAMAGED * 999)
        # It could bring back all that has been changed of it.
        (inner / "catalog.db-journal").unlink(missing_ok=True)

    def rebuild(self) -> None:
        """Make it anew."""
        options = RebuildOptions()
        rebuild(str(self.nights.repository), options, self.nights.now, self.nights.heard)

    def finish(self) -> None:
        """Make it anew, where that has not been done; the old one is there still, and goes."""
        if self.is_lost():
            self.rebuild()
        inner = self.nights.repository / ".mirrorback"
        kept = list(inner.glob("catalog.db.before-rebuild-*"))
        assert kept and all(path.read_bytes().startswith(DAMAGED) for path in kept)
        for path in kept:
            path.unlink()

    def is_lost(self) -> bool:
        """Whether the catalog is still damaged."""
        try:
            with self.nights.history() as history:
                history.snapshots()
        except Damaged:
            return True
        return False


class Rebuild(_Rebuilding):
    """Making the catalog anew, the old one damaged."""

    def prepare(self) -> None:
        Night.prepare(self)  # type: ignore[arg-type]
        self.night()

    def begin(self) -> None:
        self.lose()

    def run(self) -> None:
        self.rebuild()

    def require_done(self) -> None:
        assert self._names() == sorted(self.then)

    def recover(self) -> None:
        if self.is_lost():
            self.rebuild()

    def after(self) -> None:
        for folder in (*self.nights.folders(), self.nights.current):
            name = max(self.then) if folder.name == "current" else folder.name
            require_same(self.then[name], describe(folder))
        self.finish()
        assert self._names() == sorted(self.then)
        self.nights.now += timedelta(hours=1)
        assert self.backup().summary.unchanged
        self._require_all(describe(self.nights.source))


class RebuildRecovery(Rebuild):
    """The same after an attempt that was cut."""

    percent = 0
    at = 0

    def measure(self) -> None:
        self.lose()
        _code, calls = in_child(self.rebuild, NEVER, 0, 0)
        type(self).at = calls * self.percent // 100

    def begin(self) -> None:
        self.lose()
        code, _calls = in_child(self.rebuild, self.at, 0, 0)
        assert self.at and code == 128 + 9, "the first attempt was not cut"

    def run(self) -> None:
        if self.is_lost():
            self.rebuild()
        else:
            self.backup()


class LostNight(_Rebuilding, Large):
    """Making the catalog anew, which was lost with a night that was cut."""

    is_a_night = False
    percent = 0
    at = 0
    measure = Recovery.measure

    def begin(self) -> None:
        Recovery.begin(self)  # type: ignore[arg-type]
        self.lose()

    def run(self) -> None:
        self.rebuild()

    def after(self) -> None:
        wanted = describe(self.nights.source)
        self.finish()
        names = self._names()
        assert names[: len(self.then)] == sorted(self.then) and len(names) <= len(self.then) + 1
        self._require_published(wanted)
        self.nights.now += timedelta(hours=1)
        self.backup()
        self._require_all(wanted)


class LostSmallNight(LostNight):
    """The same with some of every change of small files."""

    def prepare(self) -> None:
        Night.prepare(self)  # type: ignore[arg-type]


class Repair(Scenario):
    """Mending some of every damage."""

    DAMAGED = (b"flipped by the drive", b"an editor's own")

    alters_source = True

    def prepare(self) -> None:
        fill(self.nights.source)
        for count in range(3):
            (self.nights.source / "small").write_text(str(count))
            time.sleep(0.03)
            self.night()
        old, older = self.nights.folders()
        mirror = self.nights.current
        overwrite(mirror / "d" / "deep" / "g", self.DAMAGED[0])
        (older / "large").unlink()
        (older / "large").write_bytes(self.DAMAGED[1])
        (old / "s").unlink()
        (old / "s").symlink_to("elsewhere")
        (mirror / "d" / "f").chmod(0o777)
        shutil.rmtree(older / "d" / "deep")
        self.nights.mark()

    def run(self) -> None:
        self.nights.repair()

    def require_done(self) -> None:
        assert self.nights.marked() == [] and self.nights.problems() == []

    def recover(self) -> None:
        self.run()

    def after(self) -> None:
        wanted = describe(self.nights.source)
        self._require_kept()
        self._require_sound_names()
        self._next()
        result = self.nights.repair()
        assert result.left == 0, result
        assert self.nights.marked() == []
        (self.nights.source / "small").write_text("last")
        self.nights.now += timedelta(hours=1)
        self.backup()
        wanted = describe(self.nights.source)
        self._require_all(wanted)
        self._require_kept()

    def _next(self) -> None:
        """The next command, which ends what was begun."""

    def _require_kept(self) -> None:
        """What was damaged is not lost."""
        top = self.nights.repository
        found = {path.read_bytes() for path in top.rglob("*") if is_plain(path)}
        assert set(self.DAMAGED) <= found

    def _require_sound_names(self) -> None:
        """What was not damaged is as it was, and what was is so, or mended."""
        for folder in [*self.nights.folders(), self.nights.current]:
            then = self.then.get(folder.name, self.then[max(self.then)])
            found = describe(folder)
            for path, node in then.items():
                if path not in found:
                    assert path.startswith(b"d/deep") or path in (b"large", b"s"), path
                elif node.content != found[path].content:
                    assert path in (b"d/deep/g", b"large", b"s"), path


class RepairThenBackup(Repair):
    """The same, after which a night comes first."""

    def _next(self) -> None:
        (self.nights.source / "small").write_text("next")
        time.sleep(0.03)
        self.nights.now += timedelta(hours=1)
        self.night()
        require_same(describe(self.nights.source), describe(self.nights.current))


class LargeRepair(Large):
    """Mending a reverse delta, and the large file that it is over."""

    alters_source = True

    def prepare(self) -> None:
        super().prepare()
        source = self.nights.source
        shutil.copy2(source / "d/pages", source / "twin")
        self.night()
        self._change(4)
        self.night()
        old = self.nights.folders()[-1]
        for path in (old / "d/pages.rdiff.zst", self.nights.current / "d/pages"):
            overwrite(path, b"damaged", at=100)
        self.nights.mark()

    def run(self) -> None:
        self.nights.repair()

    def require_done(self) -> None:
        assert self.nights.marked() == [] and self.nights.problems() == []

    def recover(self) -> None:
        self.run()

    def after(self) -> None:
        assert self.nights.repair().left == 0
        assert self.nights.marked() == []
        self._change(5)
        self.nights.now += timedelta(hours=1)
        self.backup()
        self._require_all(describe(self.nights.source))


def overwrite(path: Path, content: bytes, at: int = 0) -> None:
    """Write into a file, so that no time tells."""
    st = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)
        if not at:
            file.truncate()
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


def is_plain(path: Path) -> bool:
    """Whether there is a file that may be read."""
    return path.is_file() and not path.is_symlink()


class Restore(Scenario):
    """A restore over files that someone has changed, on the drive."""

    @property
    def target(self) -> Path:
        """Where to."""
        return self.place / "target"

    def prepare(self) -> None:
        fill(self.nights.source)
        self.night()
        target = self.target
        target.mkdir()
        (target / "small").write_text("precious")
        (target / "mine").write_text("mine")

    def run(self) -> None:
        self.nights.restore(self.target)

    def require_done(self) -> None:
        self._require_restored(self.target)

    def recover(self) -> None:
        self.run()

    def after(self) -> None:
        target = self.target
        assert (target / "mine").read_text() == "mine"
        found = [path.read_text() for path in target.glob("small*")]
        assert "precious" in found
        for path in target.rglob("*"):
            # Until all is synced a power cut may leave what is no file of anybody's yet.
            if path.is_file() and path.name == "large" and not self.lenient:
                assert path.read_bytes() == (self.nights.source / "large").read_bytes()
        self.run()
        unfinished = [p for p in target.rglob(".mirrorback-*") if p.is_symlink() or p.is_file()]
        assert unfinished == []
        self._require_restored(target)

    def _require_restored(self, target: Path) -> None:
        wanted = describe(self.nights.source)
        left = {p: n for p, n in describe(target).items() if p in wanted and p}
        assert set(left) == set(wanted) - {b""}
        for path, node in left.items():
            assert node == wanted[path], path


class RestoreElsewhere(Restore):
    """The same on another disk, which is not cut."""

    @property
    def target(self) -> Path:
        """Where to."""
        return self.top / "target"


class Verify(Large):
    """Reading everything back."""

    is_a_night = False

    def run(self) -> None:
        found = self.nights.problems()
        assert found == [], "what was not there to be read was told as damage"

    def require_done(self) -> None:
        assert len(self._names()) == len(self.then)


def mark_pinned(nights: Nights, name: str) -> None:
    """Pin a snapshot."""
    catalog = Catalog.open(os.fsencode(nights.repository / ".mirrorback/catalog.db"), write=True)
    with catalog.transaction() as db:
        db.execute("UPDATE snapshot SET pinned = 'by hand' WHERE name = ?", (name,))
    catalog.close()


def fill(top: Path) -> None:
    """A small tree with some of everything."""
    (top / "d" / "deep").mkdir(parents=True)
    (top / "small").write_text("one")
    (top / "large").write_bytes(bytes(range(256)) * 8192)
    (top / "d" / "f").write_text("two")
    (top / "d" / "deep" / "g").write_text("three")
    os.link(top / "d" / "f", top / "linked")
    (top / "s").symlink_to("small")
    os.mkfifo(top / "p")
    os.setxattr(top / "small", "user.one", b"1")
    os.chown(top / "d" / "f", 12, 34)
    os.utime(top / "d", ns=(5, 1_500_000_000_000_000_001))
    os.utime(top, ns=(5, 1_500_000_000_000_000_002))
    time.sleep(0.03)


def change(top: Path) -> None:
    """Some of every change."""
    (top / "small").write_text("something else")
    (top / "d" / "deep").rename(top / "moved")
    (top / "moved" / "g").rename(top / "moved" / "h")
    (top / "d" / "f").chmod(0o600)
    (top / "s").unlink()
    (top / "new").mkdir()
    (top / "new" / "n").write_bytes(b"new" * 1000)
    time.sleep(0.03)
