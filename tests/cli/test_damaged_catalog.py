"""Whatever is wrong with the catalog, each command says in one line what to do, or does its work.

How many places are tried is set by MIRRORBACK_FLIPS.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from runs import LARGE, LargeNights, change_pages

FLIPS = int(os.environ.get("MIRRORBACK_FLIPS", "5"))
LONGEST_S = 60
# How a command over a damaged catalog may end: done, some sources not read, damage, refused.
ENDS = (0, 3, 4, 5)
READING = (
    "snapshots REPO",
    "ls REPO -R",
    "ls REPO --at 2B",
    "ls REPO d --json",
    "versions REPO d/image --follow",
    "versions REPO moved",
    "find REPO *",
    "diff REPO OLD",
    "diff REPO OLD NEXT --json",
    "restore REPO --to BACK",
    "restore REPO --at OLD --to BACK",
    "cat REPO d/image --at OLD",
    "verify REPO",
    "repair REPO -n",
    "rebuild REPO -n",
    "delete REPO OLD -n",
    "prune REPO --keep-last 1 -n",
    "stats REPO",
    "stats REPO --json",
    "doctor REPO",
    "backup SOURCE REPO -n",
)
WRITING = (
    "backup SOURCE REPO",
    "backup SOURCE REPO --always --checksum",
    "delete REPO OLD",
    "pin REPO OLD",
    "prune REPO --keep-last 1",
    "repair REPO",
    "rebuild REPO",
)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> LargeNights:
    """A repository with deltas, moves, links, attributes, and a source that is not the mirror
    any more."""
    top = tmp_path_factory.mktemp("lived")
    nights = LargeNights(top / "source", top / "drive")
    folder = nights.source / "d"
    (folder / "sub").mkdir(parents=True)
    image = folder / "image"
    image.write_bytes(random.Random(1).randbytes(LARGE))
    for name in ("a", "b", "c", "sub/e", "sub/\udcff"):
        (folder / name).write_text(name.encode("utf-8", "replace").decode() * 20)
    os.setxattr(folder / "a", "user.mood", b"good")
    (folder / "link").hardlink_to(folder / "b")
    (folder / "symlink").symlink_to("a")
    nights.backup()
    change_pages(image, 3, 2)
    (folder / "sub").rename(nights.source / "moved")
    nights.backup()
    change_pages(image, 4, 2)
    (folder / "a").write_text("another text")
    nights.backup()
    (folder / "a").rename(folder / "a2")
    (folder / "b").chmod(0o600)
    (folder / "c").unlink()
    (nights.source / "new").write_text("new")
    change_pages(image, 5, 2)
    return nights


def forked(words: list[str], out: Path) -> int:
    """Run the program in a copy of this process, which has imported it already; its exit code.
    What it says goes to a file."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            signal.alarm(LONGEST_S)
            fd = os.open(out, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            for standard in (1, 2):
                os.dup2(fd, standard)
            sys.stdout = os.fdopen(1, "w", closefd=False)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            sys.argv = ["mirrorback", *words]
            from mirrorback.cli.app import main

            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class End(NamedTuple):
    """Of a command: its exit code, and all that it has said."""

    command: str
    code: int
    said: str

    @property
    def plain(self) -> bool:
        """Whether it is one that a person can do something with."""
        if "internal error" in self.said or "Traceback" in self.said:
            return False
        return self.code in ENDS or (self.code == 1 and self.command.startswith("doctor"))


class Damage:
    """The repository with something wrong with its catalog, made once more for each command
    that writes."""

    def __init__(self, nights: LargeNights, folder: Path) -> None:
        self._nights = nights
        self._folder = folder
        self._back = folder / "back"
        self.repository = folder / "drive"
        self._fresh()

    def _fresh(self) -> None:
        shutil.rmtree(self.repository, ignore_errors=True)
        subprocess.run(["cp", "-a", self._nights.repository, self.repository], check=True)

    @property
    def catalog(self) -> Path:
        """Its file."""
        return self.repository / ".mirrorback" / "catalog.db"

    def require_plain_words(self, data: bytes, commands: tuple[str, ...]) -> None:
        """All of some commands over a catalog of these bytes, without a seal."""
        wrong = [one for one in self.ends(data, commands) if not one.plain]
        assert not wrong, "\n".join(map(str, wrong))

    def ends(
        self, data: bytes, commands: tuple[str, ...], *more: str, sealed: bool = False
    ) -> Iterator[End]:
        """How each of some commands ends."""
        for command in commands:
            if command in WRITING:
                self._fresh()
            self.catalog.write_bytes(data)
            seal = self.catalog.with_name("catalog.blake3")
            if not sealed:
                seal.unlink(missing_ok=True)
            yield self._end(command, *more)

    def _end(self, command: str, *more: str) -> End:
        shutil.rmtree(self._back, ignore_errors=True)
        folders = [folder.name for folder in self._nights.folders()]
        names = {
            "REPO": str(self.repository),
            "SOURCE": str(self._nights.source),
            "OLD": folders[0],
            "NEXT": folders[1],
            "BACK": str(self._back),
        }
        out = self._folder / "said"
        words = [names.get(word, word) for word in command.split()]
        code = forked([*words, *more], out)
        return End(command, code, out.read_text("utf-8", "replace"))


@pytest.fixture
def damage(lived: LargeNights, tmp_path: Path) -> Iterator[Damage]:
    yield Damage(lived, tmp_path)


def flipped(data: bytes, chance: random.Random) -> bytes:
    """One bit, of what is not a zero: most of a small catalog is unused."""
    used = [at for at, byte in enumerate(data) if byte]
    found = bytearray(data)
    found[chance.choice(used)] ^= 1 << chance.randrange(8)
    return bytes(found)


def zeroed(data: bytes, chance: random.Random) -> bytes:
    """A sector that was never written."""
    at = 512 * chance.randrange(len(data) // 512)
    return data[:at] + bytes(512) + data[at + 512 :]


def torn(data: bytes, chance: random.Random) -> bytes:
    """The end is missing."""
    return data[: chance.randrange(1, len(data))]


def garbled(data: bytes, chance: random.Random) -> bytes:
    """Some bytes of one place are others."""
    at = chance.randrange(len(data) - 40)
    return data[:at] + chance.randbytes(40) + data[at + 40 :]


def exchanged(data: bytes, chance: random.Random) -> bytes:
    """Two pages in each other's place."""
    size = 8192
    one, other = (size * chance.randrange(1, len(data) // size) for _ in "12")
    found = bytearray(data)
    found[one : one + size] = data[other : other + size]
    found[other : other + size] = data[one : one + size]
    return bytes(found)


KINDS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flipped,
    zeroed,
    torn,
    garbled,
    exchanged,
)


def test_nothing_is_said_of_a_sound_one(damage: Damage) -> None:
    data = damage.catalog.read_bytes()
    for sealed in (True, False):
        for end in damage.ends(data, READING + WRITING, sealed=sealed):
            wanted = 5 if end.command.startswith("rebuild") else 0
            assert end.code == wanted, end


def test_who_writes_stops_at_a_broken_seal(damage: Damage) -> None:
    """Whatever the place, and says what to do; then that can be done."""
    data = damage.catalog.read_bytes()
    for seed in range(2):
        new = flipped(data, random.Random(f"sealed {seed}"))
        for end in damage.ends(new, WRITING, sealed=True):
            if end.command.startswith("rebuild"):
                assert end.code == 0, end
            else:
                assert end.code == 4 and "`mirrorback rebuild`" in end.said, end
                assert end.said.count("\n") == 1, end


@pytest.mark.parametrize("kind", KINDS)
def test_each_command_ends_in_plain_words(
    damage: Damage, kind: Callable[[bytes, random.Random], bytes]
) -> None:
    data = damage.catalog.read_bytes()
    for seed in range(FLIPS if kind is flipped else -(-FLIPS // 5)):
        chance = random.Random(f"{kind.__name__} {seed}")
        damage.require_plain_words(kind(data, chance), READING + WRITING)
