"""The tools: mirrorback, and those it is compared with."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from measure import Command, read

BACKUPS = frozenset({"first", "unchanged", "one-percent"})
IMAGE = "image"  # the night of a large file
RDIFF_API = (2, 1)  # the first version that has `--api-version 201`


def remove(path: Path) -> None:
    """Remove a tree, if it is there."""
    subprocess.run(["rm", "-rf", "--", str(path)], check=True)


class Tool:
    """A tool that backs up `source` to `place`, a path of its own on the drive."""

    kind: ClassVar[str]
    nights: ClassVar[frozenset[str]] = BACKUPS  # in which it takes part

    def __init__(self, source: Path, place: Path, cache: Path, program: str = "") -> None:
        self.source = source
        self.place = place
        self.cache = cache
        found = shutil.which(program or self.kind)
        self.installed = found is not None
        self.program = found or program or self.kind
        self.label = self._label() if self.installed else program or self.kind

    def prepare(self) -> Sequence[Command]:
        """What has to be run before the first backup; not measured."""
        return ()

    def backup(self, number: int) -> Command:
        """The backup of a night; 0 is the first."""
        raise NotImplementedError

    def tidy(self, number: int) -> None:
        """Remove what a night has left that the next does without."""

    def clear(self) -> None:
        """Remove all that it has made."""
        remove(self.place)

    def _label(self) -> str:
        return self.kind

    def _version(self) -> str:
        """The first number with a dot in it that the tool's version has."""
        found = re.search(r"\d+(\.\d+)+", read(Command([self.program, "--version"])))
        return found.group() if found else "?"


class Mirrorback(Tool):
    """The subject."""

    kind = "mirrorback"
    options: Sequence[str] = ()  # of the backup

    def backup(self, number: int) -> Command:
        init = [] if number else ["--init"]
        words = [*init, *self.options, str(self.source), str(self.place)]
        return self.command("backup", *words, "-q")

    def command(self, *words: str) -> Command:
        """Any of its commands."""
        return Command([self.program, *words])

    def restore(self, snapshot: str, target: Path) -> Command:
        """Everything in a snapshot to a new folder."""
        return self.command("restore", str(self.place), "--at", snapshot, "--to", str(target), "-q")

    def interpreter(self) -> str:
        """The Python that it runs on, from its first line."""
        with open(self.program, encoding="utf-8", errors="replace") as file:
            line = file.readline()
        found = line.removeprefix("#!").split() if line.startswith("#!/") else []
        return found[0] if len(found) == 1 and "python" in found[0] else sys.executable

    def snapshots(self, place: Path) -> list[str]:
        """The names of a repository's dated folders, oldest first; the mirror is not one."""
        rows = json.loads(read(self.command("snapshots", str(place), "--json")))
        return [row["name"] for row in rows if not row["current"]]


class Rsync(Tool):
    """A folder a night, with hard links to the night before."""

    kind = "rsync"
    nights = BACKUPS | {IMAGE}

    def prepare(self) -> Sequence[Command]:
        return (Command(["mkdir", str(self.place)]),)

    def backup(self, number: int) -> Command:
        before = [f"--link-dest={self._folder(number - 1)}"] if number else []
        return Command(
            [self.program, "-aHAX", *before, f"{self.source}/", f"{self._folder(number)}/"]
        )

    def tidy(self, number: int) -> None:
        if number:
            remove(self._folder(number - 1))

    def _folder(self, number: int) -> Path:
        return self.place / f"{number:04}"

    def _label(self) -> str:
        return f"rsync {self._version()}"


class Cp(Tool):
    """A plain copy."""

    kind = "cp"
    nights = frozenset({"first"})

    def backup(self, number: int) -> Command:
        return Command([self.program, "-a", str(self.source), str(self.place)])

    def _label(self) -> str:
        return "cp -a"


class RdiffBackup(Tool):
    """A mirror and reverse deltas."""

    kind = "rdiff-backup"
    nights = BACKUPS | {IMAGE}

    def backup(self, number: int) -> Command:
        version = tuple(int(part) for part in self._version().split(".")[:2])
        words = ["--api-version", "201", "backup"] if version >= RDIFF_API else []
        return Command([self.program, *words, str(self.source), str(self.place)])


class Borg(Tool):
    """Chunks in a repository, not encrypted."""

    kind = "borg"

    def prepare(self) -> Sequence[Command]:
        words = [self.program, "init", "--encryption", "none", str(self.place)]
        return (Command(words, self._environment()),)

    def backup(self, number: int) -> Command:
        words = [self.program, "create", f"{self.place}::night-{number}", str(self.source)]
        return Command(words, self._environment())

    def clear(self) -> None:
        super().clear()
        remove(self.cache / self.kind)

    def _environment(self) -> dict[str, str]:
        return {
            "BORG_BASE_DIR": str(self.cache / self.kind),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }


class Restic(Tool):
    """Chunks in a repository, encrypted, with its cache."""

    kind = "restic"

    def prepare(self) -> Sequence[Command]:
        return (self._command("init"),)

    def backup(self, number: int) -> Command:
        return self._command("backup", str(self.source))

    def clear(self) -> None:
        super().clear()
        remove(self.cache / self.kind)

    def _command(self, *words: str) -> Command:
        environment = {
            "RESTIC_REPOSITORY": str(self.place),
            "RESTIC_PASSWORD": "x",
            "RESTIC_CACHE_DIR": str(self.cache / self.kind),
        }
        return Command([self.program, "--quiet", *words], environment)


def all_peers(source: Path, drive: Path, cache: Path, rsyncs: Sequence[str]) -> list[Tool]:
    """All that mirrorback is compared with, `rsyncs` being further ones to try."""
    peers: list[Tool] = [Rsync(source, drive / "rsync", cache)]
    for number, program in enumerate(rsyncs, 1):
        peers.append(Rsync(source, drive / f"rsync-{number}", cache, program))
    others: tuple[type[Tool], ...] = (Cp, RdiffBackup, Borg, Restic)
    peers += [other(source, drive / other.kind, cache) for other in others]
    labels: set[str] = set()
    for peer in peers:
        if peer.label in labels:
            peer.label += f" ({peer.program})"
        labels.add(peer.label)
    return peers
