"""Cuts a use case at its calls, one after another, and looks at what is left.

Run as a program with `cut.so` preloaded:

    points.py SCENARIO FOLDER FROM STEP [ERROR [ON]]

Without ERROR the process is killed before its n-th call, for n = FROM, FROM + STEP,
and so on to the last; with one that call fails with it, and all after it with ON.
Prints the number of points that were tried.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from runs import Nights
from trees import SUFFIX, Tree, describe, differences, require_same, require_shown

from mirrorback.engine.backup import BackupResult
from mirrorback.engine.rebuild import RebuildOptions, rebuild
from mirrorback.errors import Damaged, MirrorbackError
from mirrorback.plan.retention import Policy
from mirrorback.store.catalog import Catalog

ALLOWED_CODES = {1, 12}
KEPT_INSIDE = {"repository.toml", "catalog.db", "catalog.blake3", "mirror.toml", "trash", "reserve",
               "lock", "log", "redo", "signatures", "damaged"}  # fmt: skip
LIBRARY = ctypes.CDLL(None)
LARGE = 1 << 18  # bytes
CHOSEN = {"victim", "victims", "pinned"}  # what a scenario has chosen to go, and to stay
NEVER = 1 << 40  # no run has so many calls


class Scenario:
    """A repository in some state, and a use case that is to be cut."""

    is_a_night = False  # done, the mirror is the source

    def __init__(self, top: Path) -> None:
        self.top = top
        self.nights = Nights(top / "source", top / "drive")
        self.then: dict[str, Tree] = {}  # the source, by snapshot

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
            require_same(self.then[folder.name], describe(folder))
        if self.nights.current.exists():
            found = describe(self.nights.current)
            older = self.then[max(self.then)] if self.then else None
            assert not differences(wanted, found) or (older and not differences(older, found))

    def _require_all(self, wanted: Tree) -> None:
        require_same(wanted, describe(self.nights.current))
        with self.nights.history() as history:
            names = [snapshot.name for snapshot in history.snapshots()]
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


class LargeDelete(Large):
    """Deleting a snapshot on which deltas of others depend."""

    def prepare(self) -> None:
        super().prepare()
        self.night()
        self._change(4)
        self.night()
        self.victim = sorted(self.then)[1]

    def run(self) -> None:
        self.nights.delete(self.victim)

    def after(self) -> None:
        wanted = describe(self.nights.source)
        self._require_published(wanted)
        with self.nights.history() as history:
            names = [snapshot.name for snapshot in history.snapshots()]
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

    def after(self) -> None:
        wanted = self.then.pop(self.victim)
        for folder in self.nights.folders():
            if folder.name != self.victim:
                require_same(self.then[folder.name], describe(folder))
        with self.nights.history() as history:
            names = [snapshot.name for snapshot in history.snapshots()]
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
        with self.nights.history() as history:
            names = [snapshot.name for snapshot in history.snapshots()]
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

    def after(self) -> None:
        self._require_published(describe(self.nights.source))
        self.nights.now += timedelta(hours=1)
        self._change(9)
        name = self.backup().summary.snapshot or ""  # ends what was begun
        with self.nights.history() as history:
            names = [snapshot.name for snapshot in history.snapshots()]
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

    def after(self) -> None:
        for folder in (*self.nights.folders(), self.nights.current):
            name = max(self.then) if folder.name == "current" else folder.name
            require_same(self.then[name], describe(folder))
        self.finish()
        with self.nights.history() as history:
            assert [snapshot.name for snapshot in history.snapshots()] == sorted(self.then)
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
        with self.nights.history() as history:
            names = [snapshot.name for snapshot in history.snapshots()]
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
    """A restore over files that someone has changed."""

    def prepare(self) -> None:
        fill(self.nights.source)
        self.night()
        target = self.top / "target"
        target.mkdir()
        (target / "small").write_text("precious")
        (target / "mine").write_text("mine")

    def run(self) -> None:
        self.nights.restore(self.top / "target")

    def after(self) -> None:
        target = self.top / "target"
        assert (target / "mine").read_text() == "mine"
        found = [path.read_text() for path in target.glob("small*")]
        assert "precious" in found
        for path in target.rglob("*"):
            if path.is_file() and path.name == "large":
                assert path.read_bytes() == (self.nights.source / "large").read_bytes()
        self.run()
        unfinished = [p for p in target.rglob(".mirrorback-*") if p.is_symlink() or p.is_file()]
        assert unfinished == []
        wanted = describe(self.nights.source)
        left = {p: n for p, n in describe(target).items() if p in wanted and p}
        assert set(left) == set(wanted) - {b""}
        for path, node in left.items():
            assert node == wanted[path], path


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


def in_child(act: Callable[[], object], at: int, error: int, on: int) -> tuple[int, int]:
    """Run in a process of its own, cut at a call.  Returns the exit code, 128 and the
    signal's number where it was killed, and how many calls there were (if it lived)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            LIBRARY.cut_arm(ctypes.c_long(at), ctypes.c_long(error), ctypes.c_long(on))
            try:
                act()
                code = 0
            except MirrorbackError as problem:
                code = problem.exit_code
            os.write(writing, b"%d" % LIBRARY.cut_calls())
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    _pid, status = os.waitpid(child, 0)
    told = os.read(reading, 20)
    os.close(reading)
    code = os.waitstatus_to_exitcode(status)
    return (128 - code if code < 0 else code), int(told or 0)


def restored(template: Path, top: Path) -> None:
    """The state that a scenario has made, once more."""
    if top.exists():
        shutil.rmtree(top)
    subprocess.run(["cp", "-a", template, top], check=True)


def points(kind: type[Scenario], folder: Path, first: int, step: int, error: int, on: int) -> int:
    """Try every point; how many there were."""
    top = folder / "run"
    shutil.rmtree(top, ignore_errors=True)
    made = kind(top)
    made.nights.source.mkdir(parents=True)
    made.prepare()
    template = folder / "template"
    shutil.rmtree(template, ignore_errors=True)
    subprocess.run(["cp", "-a", top, template], check=True)
    restored(template, top)
    kind(top).measure()
    tried = 0
    at = first
    while True:
        restored(template, top)
        scenario = kind(top)
        scenario.then = dict(made.then)
        scenario.nights.now = made.nights.now
        scenario.__dict__.update({k: v for k, v in made.__dict__.items() if k in CHOSEN})
        scenario.begin()
        code, calls = in_child(scenario.run, at, error, on)
        if error:
            assert code == 0 or code in ALLOWED_CODES, (at, code)
        else:
            assert code in (0, 128 + 9), (at, code)
        try:
            if code == 0 and scenario.is_a_night:
                scenario.nights.now += timedelta(days=1)
                require_same(describe(scenario.nights.source), describe(scenario.nights.current))
            scenario.after()
        except BaseException:
            print(f"at call {at} of {kind.__name__}, which ended with {code}", file=sys.stderr)
            raise
        tried += 1
        if code == 0 and calls and calls < at:
            return tried
        at += step


SCENARIOS = (
    First,
    Night,
    Recovery,
    Delete,
    DeleteTouched,
    Prune,
    Rebuild,
    RebuildRecovery,
    LostNight,
    LostSmallNight,
    Restore,
    Large,
    LargeRecovery,
    LargeDelete,
    LargePrune,
    Mixed,
    MixedPrune,
    MixedRecovery,
    Repair,
    RepairThenBackup,
    LargeRepair,
)


def main() -> None:
    name, folder, *numbers = sys.argv[1:]
    first, step, error, on = [*map(int, numbers), 0, 0][:4]
    kind = {k.__name__: k for k in SCENARIOS}[name.split("@")[0]]
    if "@" in name:
        for one in (Recovery, LargeRecovery, MixedRecovery, RebuildRecovery, LostNight):
            one.percent = int(name.split("@")[1])
    print(points(kind, Path(folder), first, step, error, on))


if __name__ == "__main__":
    main()
