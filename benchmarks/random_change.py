"""A source that changes at random every night, in every way that people change files."""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FEWEST_FOLDERS = 4
PAGE = 4096
LARGEST_SMALL = 40_000  # bytes
CHANGES = 40  # a night, at most


@dataclass
class RandomChange:
    """Changes the tree at `root`, always the same for the same `seed`."""

    root: Path
    files: int  # about which the number of files stays
    large: int  # files of `large_size` bytes
    large_size: int
    seed: int

    def make(self) -> None:
        """The tree of the first night."""
        self.root.mkdir()
        chance = random.Random(f"{self.seed}/first")
        for number in range(max(FEWEST_FOLDERS, self.files // 20)):
            _Night(self, chance, f"first-{number}").new_folder()
        night = _Night(self, chance, "first")
        for _ in range(self.files):
            night.new_file()
        for _ in range(self.large):
            night.new_large()

    def change(self, night: int) -> None:
        """What happens in a day."""
        chance = random.Random(f"{self.seed}/{night}")
        today = _Night(self, chance, f"{night}")
        for _ in range(chance.randrange(CHANGES)):
            today.something()
        today.fill_up()


class _Night:
    """The changes of one day; new names have `day` in them."""

    def __init__(self, source: RandomChange, chance: random.Random, day: str) -> None:
        self._source = source
        self._chance = chance
        self._day = day
        self._made = 0
        self._deeds: dict[Callable[[], None], int] = {
            self.new_file: 6,
            self.rewrite: 8,
            self.append: 4,
            self.truncate: 1,
            self.touch: 2,
            self.mode: 2,
            self.owner: 1,
            self.attribute: 1,
            self.move_file: 4,
            self.move_folder: 1,
            self.hard_link: 2,
            self.symlink: 1,
            self.remove: 6,
            self.remove_folder: 1,
            self.new_folder: 1,
            self.change_pages: 2,
            self.insert: 1,
            self.new_large: 1,
        }

    def something(self) -> None:
        """One change, chosen by weight."""
        (deed,) = self._chance.choices(list(self._deeds), list(self._deeds.values()))
        deed()

    def fill_up(self) -> None:
        """New files for those that went, and no more large ones than there should be."""
        for _ in range(self._source.files - len(self._paths())):
            self.new_file()
        large = self._large()
        for path in large[self._source.large + 1 :]:
            path.unlink()
        if not large:
            self.new_large()

    def new_file(self) -> None:
        (self._folder() / self._name("file")).write_bytes(self._some_bytes())

    def rewrite(self) -> None:
        """As an editor does: a new file takes the name."""
        path = self._file()
        beside = path.with_name(self._name("beside"))
        beside.write_bytes(self._some_bytes())
        beside.replace(path)

    def append(self) -> None:
        with self._file().open("ab") as file:
            file.write(self._some_bytes())

    def truncate(self) -> None:
        path = self._file()
        os.truncate(path, self._chance.randrange(path.stat().st_size + 1))

    def touch(self) -> None:
        time = self._chance.randrange(1_500_000_000, 1_700_000_000)
        os.utime(self._file(), (time, time))

    def mode(self) -> None:
        self._file().chmod(self._chance.choice([0o600, 0o644, 0o640, 0o755]))

    def owner(self) -> None:
        if os.geteuid() == 0:
            os.chown(self._file(), self._chance.randrange(3), self._chance.randrange(3))

    def attribute(self) -> None:
        if hasattr(os, "setxattr"):
            os.setxattr(self._file(), "user.note", self._chance.randbytes(20))

    def move_file(self) -> None:
        self._file().rename(self._folder() / self._name("moved"))

    def move_folder(self) -> None:
        folder, into = self._folder(), self._folder()
        if folder not in (self._source.root, into) and folder not in into.parents:
            folder.rename(into / self._name("folder"))

    def hard_link(self) -> None:
        os.link(self._file(), self._folder() / self._name("link"))

    def symlink(self) -> None:
        (self._folder() / self._name("symlink")).symlink_to(self._file())

    def remove(self) -> None:
        self._file().unlink()

    def remove_folder(self) -> None:
        """A small one: so much at once that a backup would hold all thinning is not meant."""
        folder, files = self._folder(), self._paths()
        inside = sum(folder in path.parents for path in files)
        if len(self._folders()) > FEWEST_FOLDERS and inside < len(files) // 20:
            shutil.rmtree(folder)

    def new_folder(self) -> None:
        (self._folder() / self._name("folder")).mkdir()

    def change_pages(self) -> None:
        if large := self._large():
            with self._chance.choice(large).open("r+b") as file:
                pages = file.seek(0, os.SEEK_END) // PAGE
                for _ in range(max(1, pages // 100)):
                    file.seek(self._chance.randrange(pages) * PAGE)
                    file.write(self._chance.randbytes(PAGE))

    def insert(self) -> None:
        """Some bytes in front of a large file; it loses as many at its end."""
        if large := self._large():
            path = self._chance.choice(large)
            content = path.read_bytes()
            new = self._chance.randbytes(self._chance.randrange(1, 3 * PAGE))
            path.write_bytes(new + content[: -len(new)])

    def new_large(self) -> None:
        path = self._folder() / self._name("large")
        path.write_bytes(self._chance.randbytes(self._source.large_size))

    def _some_bytes(self) -> bytes:
        most = self._chance.randrange(1, LARGEST_SMALL)
        return self._chance.randbytes(self._chance.randrange(most))

    def _name(self, kind: str) -> str:
        self._made += 1
        return f"{kind} {self._day}-{self._made}"

    def _file(self) -> Path:
        found = self._paths()
        if not found:
            self.new_file()
            found = self._paths()
        return self._chance.choice(found)

    def _folder(self) -> Path:
        return self._chance.choice(self._folders())

    def _folders(self) -> list[Path]:
        return [self._source.root, *sorted(p for p in self._all() if _is(p, stat.S_ISDIR))]

    def _paths(self) -> list[Path]:
        """All files but the large ones."""
        found = (p for p in self._all() if _is(p, stat.S_ISREG))
        return sorted(p for p in found if p.stat().st_size < self._source.large_size // 2)

    def _large(self) -> list[Path]:
        found = (p for p in self._all() if _is(p, stat.S_ISREG))
        return sorted(p for p in found if p.stat().st_size >= self._source.large_size // 2)

    def _all(self) -> list[Path]:
        return list(self._source.root.rglob("*"))


def _is(path: Path, kind: Callable[[int], bool]) -> bool:
    return kind(path.lstat().st_mode)
