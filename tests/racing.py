"""A process that plays with a source while it is backed up: run as
`python racing.py SOURCE ASIDE SECRET SEED`, until it is ended.

What stands in ASIDE takes the places of what stands in SOURCE, and gives them back: symlinks to
what SECRET holds under the same names, fifos, sockets, devices, folders for files and files for
folders.  Files grow, shrink, and change their modes as they are read.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

FOLDERS = 6
FILES = 12
LARGE = 3
LARGE_BYTES = 1 << 20  # of each large file
LARGE_FROM = 1 << 18  # bytes from which files are to be taken for large
MOST_BYTES = 1 << 21  # that a growing file may have
LONGEST_S = 0.05  # that something stands in another's place
MARK = b"~never to be backed up~"  # stands all over in what is secret
SECRET_NAME = "never-to-be-listed"
SECRET_USER = 54321
_EXCHANGE = 2
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_LIBC = ctypes.CDLL(None, use_errno=True)


def folders(top: Path) -> list[Path]:
    """The folders that are fought over, below a top."""
    outer = [top / f"d{number}" for number in range(FOLDERS)]
    return outer + [folder / "p" / "q" for folder in outer]


def fill(top: Path, mark: bytes) -> None:
    """A tree; the one of the secret has the same names as the source's."""
    for folder in folders(top):
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(FILES):
            (folder / f"f{number}").write_bytes((mark + b"%d\n" % number) * (number * 40 + 1))
        (folder / "link").symlink_to("f0")
        os.link(folder / "f1", folder / "hard")
    for folder in folders(top)[:LARGE]:
        (folder / "large").write_bytes((mark + b"\n") * (LARGE_BYTES // (len(mark) + 1)))


def fill_secret(top: Path) -> None:
    """What no backup may see: content, names, attributes and owners that can be told."""
    fill(top, MARK)
    for folder in folders(top):
        (folder / SECRET_NAME).write_bytes(MARK)
        for path in (folder, *folder.iterdir()):
            if not path.is_symlink():
                with contextlib.suppress(OSError):
                    os.setxattr(path, "user.mark", MARK)
                if os.geteuid() == 0:
                    os.chown(path, SECRET_USER, SECRET_USER)


class Racer:
    """One that plays, by chance.  It follows no symlink itself: the secret stays where it is."""

    def __init__(self, source: Path, aside: Path, secret: Path, seed: int) -> None:
        self._source, self._secret = source, secret
        self._chance = random.Random(seed)
        (aside / str(seed)).mkdir(parents=True)
        self._aside = Spot(os.open(aside / str(seed), _FOLDER), "")
        self._root = os.open(source, _FOLDER)
        self._paths = [path.relative_to(source) for path in folders(source)]
        self._numbers = iter(range(1 << 62))
        self._open: list[int] = []

    def play(self) -> None:
        """One move; the others may have made it impossible."""
        moves: list[Callable[[], None]] = [
            self._folder_for_link,
            self._folder_for_link,
            self._file_for_other,
            self._file_for_other,
            self._folders_swapped,
            self._folder_away,
            self._parent_renamed,
            self._rewritten,
            self._grown,
            self._cut,
            self._closed,
            self._replaced,
            self._linked,
            self._names_come_and_go,
            self._large_changed,
            self._large_for_link,
        ]
        with contextlib.suppress(OSError):
            self._chance.choice(moves)()
            self._wait()
        while self._open:
            os.close(self._open.pop())

    def _spot(self, path: Path) -> Spot:
        """A name in an open folder of the source."""
        fd = self._root
        for name in path.parts[:-1]:
            fd = self._entered(fd, name)
            self._open.append(fd)
        return Spot(fd, path.name, self._secret / path)

    def _entered(self, fd: int, name: str) -> int:
        """A folder, open; made anew where the game has left something else."""
        with contextlib.suppress(OSError):
            return os.open(name, _FOLDER, dir_fd=fd)
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=fd)
        os.mkdir(name, dir_fd=fd)
        return os.open(name, _FOLDER, dir_fd=fd)

    def _folder(self) -> Spot:
        path = self._chance.choice(self._paths)
        os.close(self._entered(self._spot(path).fd, path.name))
        return self._spot(path)

    def _file(self, name: str | None = None) -> Spot:
        folder = self._chance.choice(self._paths)
        return self._present(folder / (name or f"f{self._chance.randrange(FILES)}"), 500)

    def _large(self) -> Spot:
        return self._present(self._paths[self._chance.randrange(LARGE)] / "large", LARGE_BYTES)

    def _present(self, path: Path, size: int) -> Spot:
        """A file; made anew where the game has left nothing, or something else."""
        spot = self._spot(path)
        with contextlib.suppress(OSError), opened(spot, os.O_RDONLY) as fd:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return spot
        new = self._new()
        with opened(new, os.O_WRONLY | os.O_CREAT) as fd:
            os.write(fd, self._chance.randbytes(size))
        rename(new, spot)
        return spot

    def _new(self) -> Spot:
        return Spot(self._aside.fd, f"{next(self._numbers)}")

    def _link_to(self, aim: Path) -> Spot:
        link = self._new()
        os.symlink(aim, link.name, dir_fd=link.fd)
        return link

    def _flashed(self, spot: Spot, other: Spot) -> None:
        """Let something else stand there for a moment, and give the place back."""
        exchange(spot, other)
        self._wait()
        exchange(spot, other)
        with contextlib.suppress(OSError):
            os.unlink(other.name, dir_fd=other.fd)

    def _wait(self) -> None:
        time.sleep(self._chance.choice((0, 0.001, self._chance.random() * LONGEST_S)))

    def _folder_for_link(self) -> None:
        spot = self._folder()
        self._flashed(spot, self._link_to(spot.secret))

    def _file_for_other(self) -> None:
        spot, other = self._file(), self._new()
        match self._chance.randrange(6):
            case 0 | 1 | 2:
                other = self._link_to(spot.secret)
            case 3:
                os.mkfifo(other.name, dir_fd=other.fd)
            case 4:
                os.mknod(other.name, stat.S_IFSOCK | 0o600, dir_fd=other.fd)
            case _ if os.geteuid() == 0:  # endless zeros
                os.mknod(other.name, stat.S_IFCHR | 0o666, os.makedev(1, 5), dir_fd=other.fd)
            case _:
                other = self._link_to(spot.secret.parent)
        self._flashed(spot, other)

    def _large_for_link(self) -> None:
        spot = self._large()
        self._flashed(spot, self._link_to(spot.secret))

    def _folders_swapped(self) -> None:
        one = self._chance.choice(self._paths)
        alike = [path for path in self._paths if len(path.parts) == len(one.parts)]
        exchange(self._spot(one), self._spot(self._chance.choice(alike)))

    def _folder_away(self) -> None:
        self._away(self._folder())

    def _parent_renamed(self) -> None:
        self._away(self._spot(Path(f"d{self._chance.randrange(FOLDERS)}") / "p"))

    def _away(self, spot: Spot) -> None:
        """Rename it, let a symlink stand there for a moment, and give the place back."""
        other = self._new()
        rename(spot, other)
        os.symlink(spot.secret, spot.name, dir_fd=spot.fd)
        self._wait()
        os.unlink(spot.name, dir_fd=spot.fd)
        rename(other, spot)

    def _rewritten(self) -> None:
        with opened(self._file(), os.O_WRONLY | os.O_TRUNC) as fd:
            os.write(fd, self._chance.randbytes(self._chance.randrange(9000)))

    def _grown(self) -> None:
        with opened(self._file(), os.O_WRONLY | os.O_APPEND) as fd:
            while os.fstat(fd).st_size < self._chance.randrange(MOST_BYTES):
                os.write(fd, b"and on and on\n" * 500)

    def _cut(self) -> None:
        with opened(self._file(), os.O_WRONLY) as fd:
            os.ftruncate(fd, self._chance.randrange(5000))

    def _closed(self) -> None:
        with opened(self._file(), os.O_RDONLY) as fd:
            os.fchmod(fd, self._chance.choice((0o600, 0o644, 0o4755, 0)))

    def _replaced(self) -> None:
        new = self._new()
        spot = self._file()
        with opened(new, os.O_WRONLY | os.O_CREAT) as fd:
            os.write(fd, self._chance.randbytes(500))
        rename(new, spot)

    def _linked(self) -> None:
        spot, other = self._file(), self._file("hard")
        os.unlink(other.name, dir_fd=other.fd)
        os.link(
            spot.name, other.name, src_dir_fd=spot.fd, dst_dir_fd=other.fd, follow_symlinks=False
        )

    def _names_come_and_go(self) -> None:
        folder = self._file()
        for number in range(20):
            with opened(Spot(folder.fd, f"come-{number}"), os.O_WRONLY | os.O_CREAT):
                pass
        for number in range(20):
            rename(Spot(folder.fd, f"come-{number}"), Spot(folder.fd, f"go-{number}"))
            os.unlink(f"go-{number}", dir_fd=folder.fd)

    def _large_changed(self) -> None:
        with opened(self._large(), os.O_WRONLY) as fd:
            for _ in range(20):
                os.pwrite(fd, self._chance.randbytes(100), self._chance.randrange(LARGE_BYTES))


class Spot(NamedTuple):
    """A name in an open folder, and what is secret under the same name."""

    fd: int
    name: str
    secret: Path = Path()


def exchange(one: Spot, other: Spot) -> None:
    """Swap what stands at two places, in one step.  Raises OSError."""
    if _LIBC.renameat2(one.fd, os.fsencode(one.name), other.fd, os.fsencode(other.name), _EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2")


def rename(one: Spot, other: Spot) -> None:
    """Move what stands at one place to the other.  Raises OSError."""
    os.rename(one.name, other.name, src_dir_fd=one.fd, dst_dir_fd=other.fd)


@contextlib.contextmanager
def opened(spot: Spot, flags: int) -> Iterator[int]:
    """A file there, open.  Raises OSError."""
    fd = os.open(spot.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644, dir_fd=spot.fd)
    try:
        yield fd
    finally:
        os.close(fd)


def main() -> None:
    """Play until ended."""
    source, aside, secret = map(Path, sys.argv[1:4])
    racer = Racer(source, aside, secret, int(sys.argv[4]))
    while True:
        racer.play()


if __name__ == "__main__":
    main()
