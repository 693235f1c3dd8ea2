"""After any sequence of changes every snapshot is what the source was then."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from stat import S_ISDIR
from types import ModuleType
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from runs import Nights
from trees import Node, Tree, describe, require_same, require_shown

from mirrorback.engine import backup, build, walking
from mirrorback.model import ChangeKind
from mirrorback.plan import large

NAMES = [
    b"a",
    b"b",
    b"c",
    b"d.txt",
    b"\xff\xfe",
    "ü\n[b]".encode(),
    b" ",
    b"current",
    b"x" * 255,
    b"a.rdiff.zst",
]
CONTENTS = [b"", b"0", b"1", b"a" * 5000, b"b" * 5000, b"c" * 70_000, b"ab" * 35_000]
TIMES = [0, -5_000_000_001, 1_700_000_000_000_000_000, 1_700_000_000_000_000_001]
SOME_CONTENT = st.sampled_from(CONTENTS)
SOME_TIME = st.sampled_from(TIMES)
SOME_NAME = st.sampled_from(NAMES)
PICK = st.integers(0, 10_000)
MODES = st.sampled_from([0o600, 0o644, 0o755, 0o000, 0o4755, 0o2711, 0o1777])
ATTRIBUTES = st.sampled_from([b"user.one", b"user.\xff", b"trusted.two"])
EXAMPLES = int(os.environ.get("MIRRORBACK_EXAMPLES", "150"))


class Nightly(RuleBasedStateMachine):
    """A source that changes in every way, and the nights between."""

    options: ClassVar[dict[str, Any]] = {}
    replaced: ClassVar[tuple[tuple[ModuleType, str, int], ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self._patch = pytest.MonkeyPatch()
        for module, name, value in self.replaced:
            self._patch.setattr(module, name, value)
        self.top = Path(tempfile.mkdtemp(prefix="history-"))
        self.source = self.top / "source"
        self.source.mkdir()
        self.root = os.fsencode(self.source)
        self.nights = Nights(self.source, self.top / "drive")
        self.then: dict[str, Tree] = {}  # the source, by the snapshot made of it
        self.newest: str | None = None
        self._write(b"a", b"first")

    def teardown(self) -> None:
        try:
            if self.newest is not None:
                assert self.nights.problems() == []
        finally:
            self._patch.undo()
            shutil.rmtree(self.top)

    # --- choosing --------------------------------------------------------------------

    def _all(self, *, folders: bool | None) -> list[bytes]:
        found = []
        for folder, below, files in os.walk(self.root):
            if folders is not False:
                found += [os.path.join(folder, name) for name in below]
            if folders is not True:
                found += [os.path.join(folder, name) for name in files]
        return sorted(found)

    def _pick(self, number: int, *, folders: bool | None) -> bytes | None:
        found = self._all(folders=folders)
        return found[number % len(found)] if found else None

    def _folder(self, number: int) -> bytes:
        found = [p for p in self._all(folders=True) if not os.path.islink(p)]
        return [self.root, *found][number % (len(found) + 1)]

    def _free(self, path: bytes) -> None:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)

    def _new(self, number: int, name: bytes) -> bytes:
        """A path for something new; what was there is gone."""
        path = os.path.join(self._folder(number), name)
        self._free(path)
        return path

    def _regular(self, number: int) -> bytes | None:
        found = [p for p in self._all(folders=False) if stat.S_ISREG(os.lstat(p).st_mode)]
        return found[number % len(found)] if found else None

    def _write(self, path: bytes, content: bytes) -> None:
        with open(os.path.join(self.root, path), "wb") as file:
            file.write(content)

    # --- changes -----------------------------------------------------------------------

    @rule(number=PICK, name=SOME_NAME, content=SOME_CONTENT, time=SOME_TIME | st.none())
    def new_file(self, number: int, name: bytes, content: bytes, time: int | None) -> None:
        path = self._new(number, name)
        self._write(path, content)
        if time is not None:
            os.utime(path, ns=(time, time))

    @rule(number=PICK, content=SOME_CONTENT)
    def overwrite(self, number: int, content: bytes) -> None:
        if path := self._regular(number):
            self._write(path, content)

    @rule(number=PICK)
    def change_unseen(self, number: int) -> None:
        """Same size, same mtime: only ctime tells."""
        if (path := self._regular(number)) and os.stat(path).st_size:
            before = os.stat(path)
            with open(path, "r+b") as file:
                byte = file.read(1)
                file.seek(0)
                file.write(bytes([byte[0] ^ 1]))
            os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))

    @rule(number=PICK)
    def replace_by_equal_size_and_time(self, number: int) -> None:
        if path := self._regular(number):
            before = os.stat(path)
            other = path[:-1] + b"~" if len(os.path.basename(path)) > 200 else path + b"~"
            with open(other, "wb") as file:
                file.write(os.urandom(before.st_size))
            shutil.copystat(path, other)
            os.replace(other, path)

    @rule(number=PICK, size=st.sampled_from([0, 1, 4096, 100_000]))
    def truncate(self, number: int, size: int) -> None:
        if path := self._regular(number):
            os.truncate(path, size)

    @rule(number=PICK, mode=MODES)
    def chmod(self, number: int, mode: int) -> None:
        path = self._pick(number, folders=None)
        if path and not os.path.islink(path):
            os.chmod(path, mode)

    @rule(number=PICK, uid=st.sampled_from([0, 1, 12345]), gid=st.sampled_from([0, 4, 54321]))
    def chown(self, number: int, uid: int, gid: int) -> None:
        if path := self._pick(number, folders=None):
            os.chown(path, uid, gid, follow_symlinks=False)

    @rule(number=PICK, time=SOME_TIME)
    def touch(self, number: int, time: int) -> None:
        path = self._pick(number, folders=None) or self.root
        os.utime(path, ns=(time, time), follow_symlinks=False)

    @rule(number=PICK, name=ATTRIBUTES, value=st.sampled_from([b"", b"v", b"w" * 900]))
    def attribute(self, number: int, name: bytes, value: bytes) -> None:
        path = self._pick(number, folders=None)
        if path and not name.startswith(b"user."):
            os.setxattr(path, name, value, follow_symlinks=False)
        elif path and (os.path.isfile(path) or os.path.isdir(path)) and not os.path.islink(path):
            os.setxattr(path, name, value)

    @rule(number=PICK)
    def no_attributes(self, number: int) -> None:
        if path := self._pick(number, folders=None):
            for name in os.listxattr(path, follow_symlinks=False):
                os.removexattr(path, name, follow_symlinks=False)

    @rule(number=PICK, where=PICK, name=SOME_NAME)
    def move(self, number: int, where: int, name: bytes) -> None:
        path = self._pick(number, folders=None)
        into = self._folder(where)
        if path and not (into + b"/").startswith(path + b"/"):
            target = os.path.join(into, name)
            if target != path and not (path + b"/").startswith(target + b"/"):
                self._free(target)
                os.rename(path, target)

    @rule(one=PICK, other=PICK, folders=st.booleans())
    def swap(self, one: int, other: int, folders: bool) -> None:
        a, b = self._pick(one, folders=folders), self._pick(other, folders=folders)
        if a and b and a != b and not (a + b"/").startswith(b + b"/"):
            if (b + b"/").startswith(a + b"/"):
                return
            aside = os.path.join(self.root, b"aside")
            os.rename(a, aside)
            os.rename(b, a)
            os.rename(aside, b)

    @rule(number=PICK, name=SOME_NAME)
    def move_and_copy_back(self, number: int, name: bytes) -> None:
        """`mv a b; cp -p b a` must not fuse the two."""
        if path := self._regular(number):
            target = os.path.join(os.path.dirname(path), name)
            if target != path and not os.path.isdir(target):
                self._free(target)  # a rename onto a hard link of itself does nothing
                os.rename(path, target)
                subprocess.run(["cp", "-p", "--", target, path], check=True)

    @rule(number=PICK, where=PICK, name=SOME_NAME)
    def copy_with_times(self, number: int, where: int, name: bytes) -> None:
        path = self._regular(number)
        if path:
            target = os.path.join(self._folder(where), name)
            if target != path and not os.path.lexists(target):
                subprocess.run(["cp", "-p", "--", path, target], check=True)

    @rule(number=PICK, where=PICK, name=SOME_NAME)
    def hard_link(self, number: int, where: int, name: bytes) -> None:
        path = self._pick(number, folders=False)
        if path and not (os.path.islink(path) and os.path.isdir(path)):
            target = os.path.join(self._folder(where), name)
            if target != path and not os.path.isdir(target):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(target)
                os.link(path, target, follow_symlinks=False)

    @rule(number=PICK)
    def break_hard_link(self, number: int) -> None:
        if path := self._regular(number):
            other = os.path.join(os.path.dirname(path), b"broken~")
            subprocess.run(["cp", "-p", "--", path, other], check=True)
            os.replace(other, path)

    @rule(number=PICK, folders=st.booleans())
    def remove(self, number: int, folders: bool) -> None:
        if path := self._pick(number, folders=folders):
            self._free(path)

    @rule(number=PICK, name=SOME_NAME)
    def new_folder(self, number: int, name: bytes) -> None:
        os.mkdir(self._new(number, name))

    @rule(number=PICK, name=SOME_NAME, aim=st.sampled_from([b".", b"a", b"/etc/passwd", b"\xff"]))
    def new_symlink(self, number: int, name: bytes, aim: bytes) -> None:
        os.symlink(aim, self._new(number, name))

    @rule(
        number=PICK,
        name=SOME_NAME,
        format=st.sampled_from([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK]),
    )
    def new_special(self, number: int, name: bytes, format: int) -> None:
        os.mknod(self._new(number, name), 0o640 | format, os.makedev(1, 3 + number % 2))

    @rule(number=PICK)
    def file_becomes_folder(self, number: int) -> None:
        if path := self._pick(number, folders=False):
            os.unlink(path)
            os.mkdir(path)
            self._write(os.path.join(path, b"inside"), b"1")

    @rule(number=PICK)
    def folder_becomes_file(self, number: int) -> None:
        if path := self._pick(number, folders=True):
            self._free(path)
            self._write(path, b"1")

    @rule()
    def all_inodes_new(self) -> None:
        """As when the source was restored from elsewhere."""
        old = self.top / "old"
        self.source.rename(old)
        subprocess.run(["cp", "-a", "--", old, self.source], check=True)
        shutil.rmtree(old)

    # --- nights ----------------------------------------------------------------------------

    @rule()
    def backup(self) -> None:
        self._backup({})

    @rule()
    def backup_again(self) -> None:  # rules are drawn evenly, and nights shall be frequent
        self._backup({})

    @rule()
    def backup_at_last(self) -> None:
        self._backup({})

    @rule(options=st.sampled_from([{"checksum": True}, {"always": True}]))
    def backup_otherwise(self, options: dict[str, Any]) -> None:
        self._backup(options)

    def _backup(self, options: dict[str, Any]) -> None:
        wanted = describe(self.source)
        planned = None
        if self.newest is not None:
            planned = self.nights.backup(init=False, dry_run=True, allow_empty_source=True).summary
        options = options | self.options
        summary = self.nights.backup(allow_empty_source=True, **options).summary
        note(f"{summary}")
        assert summary.errors == summary.files_stale == 0 and not summary.not_kept
        assert summary.snapshot is not None
        require_same(wanted, describe(self.source))  # nothing of the source was touched
        before = self.newest
        self.newest = summary.snapshot
        if summary.unchanged:
            assert summary.snapshot == before
            require_same(self.then[summary.snapshot], wanted)
        else:
            self.then[summary.snapshot] = wanted
            self._counts_agree(before)
        if planned is not None and not options.keys() - self.options.keys():
            counts = [f for f in dir(summary) if f.startswith("files_")]
            assert {f: getattr(planned, f) for f in counts} == {
                f: getattr(summary, f) for f in counts
            }
        assert summary.files_unmodified == len(
            [n for n in wanted.values() if not stat.S_ISDIR(n.format)]
        ) - (
            summary.files_new + summary.files_changed + summary.files_metadata + summary.files_moved
        )
        self._all_is_as_it_was()

    def _counts_agree(self, before: str | None) -> None:
        """What the catalog says is what the folders show."""
        with self.nights.history() as history:
            entries = {entry.path for entry in history.listing(None, None, recursive=True)}
            assert entries == set(self.then[self.newest or ""]) - {b""}
            if before is None:
                return
            changes = {change.path: change.change for change in history.diff(before, None)}
        old, new = self.then[before], self.then[self.newest or ""]
        for path in (old.keys() | new.keys()) - {b""}:
            assert changes.get(path) in _expected(old.get(path), new.get(path)), path

    def _all_is_as_it_was(self) -> None:
        assert self.newest is not None
        require_same(self.then[self.newest], describe(self.nights.current))
        assert not any((self.nights.repository / ".mirrorback" / "redo").iterdir())
        names = [folder.name for folder in self.nights.folders()]
        assert names == sorted(set(self.then) - {self.newest})
        for name in names:
            require_shown(self.then[name], describe(self.nights.repository / name))

    @precondition(lambda self: self.newest is not None)
    @rule(number=PICK)
    def restore(self, number: int) -> None:
        name = sorted(self.then)[number % len(self.then)]
        target = self.top / "restored"
        self.nights.restore(target, at=name)
        require_same(self.then[name], describe(target))
        shutil.rmtree(target)

    @precondition(lambda self: len(self.then) > 1)
    @rule(number=PICK)
    def delete(self, number: int) -> None:
        names = sorted(set(self.then) - {self.newest})
        if names:
            name = names[number % len(names)]
            self.nights.delete(name)
            del self.then[name]
            self._all_is_as_it_was()


def _expected(old: Node | None, new: Node | None) -> set[ChangeKind | None]:
    """What `diff` may say of a path; only the sameness of an inode tells a move."""
    if old is None:
        return {ChangeKind.ADDED, ChangeKind.MOVED}
    if new is None:
        return {ChangeKind.REMOVED, None}  # None: it was moved from here
    if old.format != new.format:
        return {ChangeKind.RETYPED, ChangeKind.MOVED}
    if (old.content, old.rdev) != (new.content, new.rdev):
        return {ChangeKind.MODIFIED, ChangeKind.MOVED}
    known = {"content": None, "together": ()} | ({"mtime": 0} if S_ISDIR(new.format) else {})
    if old._replace(**known) != new._replace(**known):
        return {ChangeKind.METADATA, ChangeKind.MOVED}
    if old.together != new.together:
        return {ChangeKind.METADATA, ChangeKind.MOVED, None}
    # Another inode of the same kind in its place, or a swap.
    return {None, ChangeKind.MOVED}


class NightlyWithHelpers(Nightly):
    """The same where processes help from the first folder on."""

    replaced = (
        (build, "MOST_ROWS", 3),
        (walking, "SCOUT_FROM", 0),
        (walking, "FEWEST_SENT", 1),
        (backup, "COPIES_FOR_HELPERS", 0),
        (backup, "NAMES_FOR_HELPERS", 0),
    )


class NightlyWithDeltas(Nightly):
    """The same where all files but the smallest count as large, on a drive without reflinks."""

    options: ClassVar[dict[str, Any]] = {"delta_min_size": 1000, "large_files": "delta"}
    replaced = ((large, "LONGEST_CHAIN", 4),)

    def _large(self, number: int) -> bytes:
        found = [p for p in self._all(folders=False) if stat.S_ISREG(os.lstat(p).st_mode)]
        found = [p for p in found if os.stat(p).st_size > 1000]
        if not found:
            path = self._new(0, b"a")
            self._write(path, bytes(5000))
            return path
        return found[number % len(found)]

    @rule(number=PICK, at=st.integers(0, 80_000), data=st.binary(max_size=30))
    def scribble(self, number: int, at: int, data: bytes) -> None:
        path = self._large(number)
        with open(path, "r+b") as file:
            file.seek(min(at, os.stat(path).st_size))
            file.write(data)

    @rule(number=PICK, at=st.lists(st.integers(0, 5_000), min_size=2, max_size=6))
    def a_few_nights(self, number: int, at: list[int]) -> None:
        for place in at:
            self.scribble(number, place, b"%d" % place)
            self._backup({})

    @precondition(lambda self: len(self.then) > 2)
    @rule(number=PICK)
    def delete_a_few(self, number: int) -> None:
        for _ in range(2):
            self.delete(number)
            number //= 7

    @rule(number=PICK)
    def rename_and_scribble(self, number: int) -> None:
        path = self._large(number)
        new = self._new(number // 3, b"a")
        if os.path.lexists(path) and not path.startswith(new + b"/"):
            os.rename(path, new)
            with open(new, "r+b") as file:
                file.write(b"moved %d" % number)

    def teardown(self) -> None:
        try:
            for name in self.then:
                target = self.top / "restored"
                self.nights.restore(target, at=name)
                require_same(self.then[name], describe(target))
                shutil.rmtree(target)
        finally:
            super().teardown()


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=set(Phase) - {Phase.explain},
    )


Nightly.TestCase.settings = _settings(EXAMPLES)
NightlyWithHelpers.TestCase.settings = _settings(max(1, EXAMPLES // 5))
NightlyWithDeltas.TestCase.settings = _settings(max(1, EXAMPLES // 2))


@pytest.mark.skipif(os.geteuid() != 0, reason="devices and owners need root")
class TestExactHistory(Nightly.TestCase):  # type: ignore[misc, name-defined]
    """See `Nightly`."""


@pytest.mark.skipif(os.geteuid() != 0, reason="devices and owners need root")
class TestExactHistoryWithHelpers(NightlyWithHelpers.TestCase):  # type: ignore[misc, name-defined]
    """See `NightlyWithHelpers`."""


@pytest.mark.skipif(os.geteuid() != 0, reason="devices and owners need root")
class TestExactHistoryWithDeltas(NightlyWithDeltas.TestCase):  # type: ignore[misc, name-defined]
    """See `NightlyWithDeltas`."""
