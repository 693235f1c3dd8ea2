"""A repository in some state, a use case that is to be cut, and what has to hold after that."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from crash.cutting import DAMAGED, INCOMPLETE, KILL, KILLED, NEVER, Ended, Fault, in_child
from runs import Nights
from trees import Tree, describe, differences, require_same, require_shown

from mirrorback.engine.backup import BackupResult
from mirrorback.store.catalog import Catalog

KEPT_INSIDE = {"repository.toml", "catalog.db", "catalog.blake3", "mirror.toml", "trash", "reserve",
               "lock", "log", "redo", "signatures", "damaged"}  # fmt: skip


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
        self.code = 0  # with which what was cut has ended
        self.split = False  # hard-link groups were, by the drive's limit of links

    def prepare(self) -> None:
        """Make the state, once."""

    def measure(self) -> None:
        """What has to be known before, found out in a copy of that state."""

    def begin(self) -> None:
        """What is to be done each time, in the copy of that state."""

    def seen(self, top: Path) -> Tree:
        """A tree as it is to be."""
        return apart(describe(top)) if self.split else describe(top)

    @property
    def incomplete(self) -> bool:
        """Whether some of the source could not be read."""
        return self.code == INCOMPLETE

    def allow_split(self) -> None:
        """From now on nobody looks who is hard-linked to whom."""
        self.split = True
        self.then = {name: apart(tree) for name, tree in self.then.items()}

    def backup(self) -> BackupResult:
        """One backup."""
        return self.nights.backup()

    def run(self) -> int | None:
        """The use case: its exit code, if it has one.  Raises what it raises."""
        return INCOMPLETE if self.backup().summary.errors else 0

    def require_said(self, ended: Ended) -> None:
        """What a person reads where it failed is one line."""
        lines = ended.said.splitlines()
        told = ended.code in (INCOMPLETE, DAMAGED)  # as events
        assert len(lines) == (ended.code not in (0, KILLED)) or (told and not lines), ended.said

    def night(self) -> None:
        """One whole backup, remembered."""
        name = self.backup().summary.snapshot
        assert name is not None
        self.then[name] = self.seen(self.nights.source)

    def require_done(self) -> None:
        """What `run` must have left when it has ended, before the next command; of a night, that
        is: the mirror and one snapshot more."""
        if not self.is_a_night:
            return
        wanted = self.seen(self.nights.source)
        require_same(wanted, self.seen(self.nights.current))
        assert len(self._names()) == len(self.then) + 1
        assert {folder.name for folder in self.nights.folders()} == self.then.keys()

    def recover(self) -> None:
        """The next command, which brings in order what a cut has left."""
        self.nights.now += timedelta(hours=1)
        self.backup()

    def removable(self) -> set[str]:
        """Snapshots that may have gone, or not."""
        return set()

    def _names(self) -> list[str]:
        with self.nights.history() as history:
            return [snapshot.name for snapshot in history.snapshots()]

    def _require_gone(self, *names: str) -> None:
        assert not set(names) & set(self._names())
        assert not set(names) & {folder.name for folder in self.nights.folders()}

    def _settled(self, tree: Tree) -> Tree:
        """A tree as it is compared before a recovery."""
        if not self.lenient:
            return tree
        return {
            path: node._replace(mtime=0) if stat.S_ISDIR(node.format) else node
            for path, node in tree.items()
        }

    def after(self) -> None:
        """Look at what a cut has left; bring it in order; look again."""
        wanted = self.seen(self.nights.source)
        self._require_published(wanted)
        self.nights.now += timedelta(hours=1)
        self.backup()
        self._require_all(wanted)

    def _require_published(self, wanted: Tree) -> None:
        """Whatever has its name is exact at any moment."""
        for folder in self.nights.folders() if self.nights.repository.exists() else []:
            require_same(self._settled(self.then[folder.name]), self._settled(self.seen(folder)))
        expected = set(sorted(self.then)[:-1]) - self.removable()
        assert not expected or expected <= {folder.name for folder in self.nights.folders()}
        if self.nights.current.exists():
            found = self._settled(self.seen(self.nights.current))
            states = [wanted, *(self.then[name] for name in sorted(self.then)[-1:])]
            told = [differences(self._settled(state), found) for state in states]
            assert [] in told or self.incomplete, told
        else:
            assert not self.then, "there is no mirror"

    def _require_all(self, wanted: Tree) -> None:
        require_same(wanted, self.seen(self.nights.current))
        names = self._names()
        assert set(self.then) - {names[-1]} <= {f.name for f in self.nights.folders()}
        for folder in self.nights.folders():
            if folder.name in self.then or not self.incomplete:
                require_shown(self.then.get(folder.name, wanted), self.seen(folder))
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


class AfterCut(Scenario):
    """What follows a use case that was killed."""

    percent = 0  # of its calls, done before it was
    at = 0

    def first(self) -> object:
        """That use case."""
        return self.backup()

    def measure(self) -> None:
        calls = in_child(self.first, NEVER, Fault(KILL), self.top).calls
        type(self).at = calls * self.percent // 100

    def begin(self) -> None:
        ended = in_child(self.first, self.at, Fault(KILL), self.top)
        assert self.at and ended.code == KILLED, "it was not cut"


def apart(tree: Tree) -> Tree:
    """A tree without what it says of hard links."""
    return {path: node._replace(together=()) for path, node in tree.items()}


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
