"""The nights that are measured, each in interleaved rounds."""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from log import Log
from measure import Command, Failed, forget, read, run
from peers import Mirrorback, Tool, remove
from source import Source

SETTLE_S = 3  # after a change: a night lies between a change and a backup in real life
SNAPSHOTS = 1000
LARGE_FILES = 3  # beside the small ones, where all is read back
LARGE_SIZE = 128 << 20  # bytes
SEVERAL = 20  # snapshots of the repository that gets a new catalog, and is asked for its space
PRUNED = 60  # snapshots of the repository that is pruned, the mirror included; half of them go
LIST = 'exec find "$1" -ls > /dev/null'
PAST = Path(__file__).with_name("past.py")


class Bench:
    """Runs the nights."""

    def __init__(
        self,
        source: Source,
        mirrorback: Mirrorback,
        peers: Sequence[Tool],
        log: Log,
        rounds: int,
    ) -> None:
        self._log = log
        self._source = source
        self._mirrorback = mirrorback
        self._peers = peers
        self._drive = log.drive
        self._work = log.work
        self._rounds = rounds
        self._night = 0  # of the backups made so far
        self._links = log.drive / "links"

    def first(self) -> None:
        """The first backup to an empty place; the last round's stays, for the other nights."""
        for number in range(self._rounds):
            for tool in self._tools("first"):
                self._first(tool, number)
                if number < self._rounds - 1 or "unchanged" not in tool.nights:
                    tool.clear()

    def base(self, nights: Collection[str]) -> None:
        """The first backup, not measured, by those tools that these nights need it of."""
        tools = {tool.label: tool for night in nights for tool in self._tools(night)}
        for tool in tools.values():
            self._first(tool, 0)
        self._log.runs.clear()

    def unchanged(self) -> None:
        """A backup when nothing has changed."""
        time.sleep(SETTLE_S)
        for number in range(self._rounds):
            self._backups("unchanged", number)

    def one_percent(self) -> None:
        """A backup when a hundredth of the files has changed."""
        for number in range(self._rounds):
            self._change()
            self._backups("one-percent", number)
            if self._peers:
                self._run("one-percent", "cp -al", self._copy_links(self._mirror()), number)
                remove(self._links)

    def restore(self) -> None:
        """The whole mirror, to the disk that the source is on."""
        target = self._work / "restored"
        command = self._mirrorback.command(
            "restore", str(self._mirrorback.place), "--to", str(target), "-q"
        )
        copy = Command(["cp", "-a", str(self._mirror()), str(target)])
        for number in range(self._rounds):
            self._run("restore", "mirrorback", command, number)
            remove(target)
            if self._peers:
                self._run("restore", "cp -a", copy, number)
                remove(target)

    def verify(self) -> None:
        """All files read back, against `cat` of the mirror; some large ones among them."""
        large = [self._source.root / f"large-{number}" for number in range(LARGE_FILES)]
        for number, path in enumerate(large):
            path.write_bytes(random.Random(number).randbytes(LARGE_SIZE))
        try:
            time.sleep(SETTLE_S)
            run(self._mirrorback.backup(self._night + 1))
        finally:
            for path in large:
                path.unlink()
        command = self._mirrorback.command("verify", str(self._mirrorback.place), "-q")
        words = ["find", str(self._mirror()), "-type", "f", "-exec", "cat", "{}", "+"]
        for number in range(self._rounds):
            forget()  # verify reads what is on the drive: so must `cat`
            self._run("verify", "mirrorback", command, number)
            if self._peers:
                forget()
                self._run("verify", "cat", Command(words), number, writes=False)

    def rebuild(self) -> None:
        """A new catalog from the folders of some snapshots, against listing these."""
        place = self._several()
        command = self._mirrorback.command("rebuild", str(place), "--force", "-q")
        for number in range(self._rounds):
            self._run("rebuild", "mirrorback", command, number)
            for old in (place / ".mirrorback").glob("catalog.db.before-rebuild-*"):
                old.unlink()
            words = ["sh", "-c", LIST, "sh", str(place)]
            self._run("rebuild", "find -ls", Command(words), number, writes=False)

    def stats(self) -> None:
        """What each of some snapshots would free, and all the rest of it, against `du`, which
        counts what they take."""
        place = self._several()
        command = self._mirrorback.command("stats", str(place), "--json")
        for number in range(self._rounds):
            self._run("stats", "mirrorback", command, number, writes=False)
            if self._peers:
                self._run("stats", "du", Command(["du", "-s", str(place)]), number, writes=False)

    def delete(self) -> None:
        """The oldest snapshot, against an equal tree of hard links."""
        place = self._mirrorback.place
        for number in range(self._rounds):
            self._change()
            run(self._mirrorback.backup(self._night))
            name = self._mirrorback.snapshots(place)[0]
            if self._peers:
                self._links.mkdir()
                self._make_twins([place / name])
            command = self._mirrorback.command("delete", str(place), name, "-q")
            self._run("delete", "mirrorback", command, number)
            if self._peers:
                self._run("delete", "rm -rf", Command(["rm", "-rf", str(self._links)]), number)

    def prune(self) -> None:
        """Half of the snapshots of a source a quarter as large, against equal trees of hard
        links; once."""
        files, folders = (max(1, n // 4) for n in (self._source.files, self._source.folders))
        source = Source(self._work / "pruned", files, folders)
        place, cache = self._drive / "pruned", self._work / "cache"
        mirrorback = Mirrorback(source.root, place, cache, self._mirrorback.program)
        source.make()
        for night in range(PRUNED):
            if night:
                source.change(night)
            run(mirrorback.backup(night))
        going = mirrorback.snapshots(place)[: PRUNED // 2]
        self._links.mkdir()
        self._make_twins([place / name for name in going])
        command = mirrorback.command(
            "prune", str(place), "--keep-last", str(PRUNED - len(going)), "-q"
        )
        self._run("prune", "mirrorback", command, 0)
        if len(mirrorback.snapshots(place)) != PRUNED - len(going) - 1:
            raise Failed("prune has left other snapshots than it should")
        self._run("prune", "rm -rf", Command(["rm", "-rf", str(self._links)]), 0)
        remove(place)
        remove(source.root)

    def history(self) -> None:
        """Questions to a repository of a thousand snapshots of a small source."""
        source, place = self._work / "small", self._drive / "history"
        words = [str(PAST), str(source), str(place), str(SNAPSHOTS)]
        run(Command([self._mirrorback.interpreter(), *words]))
        command = self._mirrorback.command
        oldest = self._mirrorback.snapshots(place)[0]
        commands = {
            "versions": command("versions", str(place), "file-00"),
            "diff": command("diff", str(place), oldest),
            "snapshots": command("snapshots", str(place)),
            "--version": command("--version"),
            "python -c pass": Command([self._mirrorback.interpreter(), "-c", "pass"]),
        }
        for number in range(self._rounds):
            for label, one in commands.items():
                self._run("history", label, one, number, writes=False)

    def _several(self) -> Path:
        """The repository, when it has some snapshots."""
        place = self._mirrorback.place
        while len(self._mirrorback.snapshots(place)) + 1 < SEVERAL:
            self._night += 1
            self._change()
            run(self._mirrorback.backup(self._night))
        return place

    def _tools(self, night: str) -> Iterator[Tool]:
        """Those that take part: mirrorback, then each peer that has not failed."""
        yield self._mirrorback
        for peer in self._peers:
            if peer.installed and night in peer.nights and peer.label not in self._log.failed:
                yield peer

    def _first(self, tool: Tool, number: int) -> None:
        tool.clear()
        try:
            for command in tool.prepare():
                run(command)
            self._run("first", tool.label, tool.backup(0), number, tool.kind)
        except Failed as error:
            self._note(tool, "first", error)

    def _backups(self, night: str, number: int) -> None:
        self._night += 1
        for tool in self._tools(night):
            try:
                self._run(night, tool.label, tool.backup(self._night), number, tool.kind)
                tool.tidy(self._night)
            except Failed as error:
                self._note(tool, night, error)

    def _note(self, tool: Tool, night: str, error: Failed) -> None:
        """A peer that fails is out; mirrorback must not."""
        if tool is self._mirrorback:
            raise error
        print(error, file=sys.stderr)
        self._log.failed[tool.label] = night
        tool.clear()

    def _run(
        self,
        night: str,
        label: str,
        command: Command,
        number: int,
        kind: str = "",
        *,
        writes: bool = True,
    ) -> None:
        """Measure one run."""
        after = [self._work if night == "restore" else self._drive] if writes else []
        self._log.run(night, label, command, number, kind, after=after)

    def _change(self) -> None:
        self._source.change(self._night + 1)
        time.sleep(SETTLE_S)

    def _mirror(self) -> Path:
        return self._mirrorback.place / "current"

    def _copy_links(self, tree: Path) -> Command:
        return Command(["cp", "-al", str(tree), str(self._links)])

    def _make_twins(self, trees: Sequence[Path]) -> None:
        """Trees of links equal to some: what only those hold is copied, to be freed too."""
        read(Command(["cp", "-al", *map(str, trees), str(self._links)]))
        names: dict[int, list[str]] = {}
        for folder, _, files in os.walk(self._links):
            for name in files:
                path = os.path.join(folder, name)
                names.setdefault(os.lstat(path).st_ino, []).append(path)
        for paths in names.values():
            if os.lstat(paths[0]).st_nlink == 2 * len(paths):
                _separate(paths)


def _separate(paths: Sequence[str]) -> None:
    """Make one new file of all these names of another."""
    copy = shutil.copy2(paths[0], f"{paths[0]}.copy", follow_symlinks=False)
    for path in paths[1:]:
        os.unlink(path)
        os.link(copy, path, follow_symlinks=False)
    os.replace(copy, paths[0])
