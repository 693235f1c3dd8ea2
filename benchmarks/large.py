"""Makes large files and what they become overnight, and measures the delta between the two.

    python benchmarks/large.py [--case NAME] [--scale N] [--rounds N] [--work DIR] [--seed N]

To be run by the interpreter that mirrorback is installed for.  Each case is a function that
writes an old and a new file, always the same for the same size and seed, and returns how many
bytes it changed where that says something.  The time of `cmp` is that of comparing two equal
copies of the larger file: reading both once, from the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

MIB = 1 << 20
PAGE = 4096
WORDS = 4000  # in the vocabulary of the mailbox
ATTACHMENT = 1 / 20  # of the messages have one

Case = Callable[[Path, Path, int, int], int | None]


# --- what there is to be found ----------------------------------------------------------------


def image(old: Path, new: Path, size: int, seed: int) -> int:
    """A virtual machine's disk: a hundredth of its pages is written anew."""
    random_file(old, size, seed)
    shutil.copyfile(old, new)
    return change_pages(new, f"{seed}/pages")


def mailbox(old: Path, new: Path, size: int, seed: int) -> int:
    """A mailbox: a header is put in front, a message goes, and new ones come at the end."""
    rng = random.Random(seed)
    words = [rng.randbytes(rng.randint(1, 5)).hex() for _ in range(WORDS)]
    with old.open("wb") as file:
        _messages(file, size, rng, words)
    text = old.read_bytes()
    gone = text.index(b"\nFrom ", size // 3) + 1
    after = text.index(b"\nFrom ", gone) + 1
    with new.open("wb") as file:
        file.write(b"X-Status: " + b"R" * 777 + b"\n")
        file.write(text[:gone])
        file.write(text[after:])
        _messages(file, size // 100, rng, words)
    return after - gone


def database(old: Path, new: Path, size: int, seed: int) -> None:
    """An SQLite database: a hundredth of the rows gets another number and another time."""
    rng = random.Random(seed)
    rows = size // 230
    with sqlite3.connect(old) as connection:
        connection.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, stamp INTEGER, body TEXT);"
        )
        connection.executemany("INSERT INTO item VALUES (?, ?, ?, ?)", map(_row(rng), range(rows)))
    connection.close()
    shutil.copyfile(old, new)
    with sqlite3.connect(new) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.executemany(
            "UPDATE item SET name = ?, stamp = ? WHERE id = ?",
            [
                (rng.randbytes(8).hex(), _stamp(rng), row)
                for row in rng.sample(range(rows), rows // 100)
            ],
        )
    connection.close()


def front(old: Path, new: Path, size: int, seed: int) -> int:
    """Three eighths of the size, all new, are put in front of the old file."""
    random_file(old, size * 5 // 8, seed)
    random_file(new, size * 3 // 8, seed + 1)
    with old.open("rb") as source, new.open("ab") as target:
        shutil.copyfileobj(source, target, MIB)
    return 0


def shuffled(old: Path, new: Path, size: int, seed: int) -> int:
    """The blocks of 1 MiB stand in another order."""
    random_file(old, size, seed)
    order = list(range(size // MIB))
    random.Random(f"{seed}/order").shuffle(order)
    with old.open("rb") as source, new.open("wb") as target:
        for number in order:
            source.seek(number * MIB)
            target.write(source.read(MIB))
    return 0


def sparse(old: Path, new: Path, size: int, seed: int) -> int:
    """A disk 1024 times as large, of which little is written: a page a stretch."""
    rng = random.Random(seed)
    apart = 4096 * MIB
    for path in (old, new):
        with path.open("wb") as file:
            file.truncate(size * 1024)
    pages = range(0, size * 1024, apart)
    with old.open("r+b") as one, new.open("r+b") as other:
        for offset in pages:
            for side in (one, other):
                side.seek(offset)
                side.write(rng.randbytes(PAGE))
    return len(pages) * PAGE


def other(old: Path, new: Path, size: int, seed: int) -> None:
    """Nothing is as it was: the encoder gives up."""
    random_file(old, size, seed)
    random_file(new, size, seed + 1)


CASES: dict[str, tuple[Case, int]] = {
    "image": (image, 1024 * MIB),
    "mailbox": (mailbox, 256 * MIB),
    "database": (database, 200 * MIB),
    "front": (front, 256 * MIB),
    "shuffled": (shuffled, 256 * MIB),
    "sparse": (sparse, 1024 * MIB),
    "other": (other, 256 * MIB),
}


def make(name: str, old: Path, new: Path, size: int) -> None:
    """Make a case in a process of its own: what a process has held counts as the memory of those
    that it starts."""
    command = [sys.executable, __file__, "--make", name, str(old), str(new), str(size)]
    subprocess.run(command, check=True)


def change_pages(path: Path, seed: str) -> int:
    """Write a hundredth of a file's pages anew; returns the bytes."""
    rng = random.Random(seed)
    count = path.stat().st_size // PAGE
    pages = rng.sample(range(count), count // 100)
    with path.open("r+b") as file:
        for page in pages:
            file.seek(page * PAGE)
            file.write(rng.randbytes(PAGE))
    return len(pages) * PAGE


def random_file(path: Path, size: int, seed: int) -> None:
    """Bytes that nothing can compress."""
    rng = random.Random(seed)
    with path.open("wb") as file:
        for at in range(0, size, MIB):
            file.write(rng.randbytes(min(MIB, size - at)))


def _messages(file: BinaryIO, size: int, rng: random.Random, words: list[str]) -> None:
    end = file.tell() + size
    while file.tell() < end:
        lines = [
            f"From {rng.choice(words)}@example.org Thu Jan  1 00:00:00 1970",
            f"Message-Id: <{rng.randbytes(12).hex()}@example.org>",
            f"Subject: {' '.join(rng.choices(words, k=6))}",
            "",
            *(" ".join(rng.choices(words, k=12)) for _ in range(rng.randint(3, 60))),
        ]
        if rng.random() < ATTACHMENT:
            lines += [rng.randbytes(36).hex() for _ in range(rng.randint(100, 3000))]
        file.write("\n".join([*lines, "", ""]).encode())


def _row(rng: random.Random) -> Callable[[int], tuple[int, str, int, str]]:
    return lambda number: (
        number,
        rng.randbytes(8).hex(),
        _stamp(rng),
        rng.randbytes(rng.randint(70, 110)).hex(),
    )


def _stamp(rng: random.Random) -> int:
    return rng.randrange(1 << 40, 1 << 46)


# --- measuring ----------------------------------------------------------------------------------


@dataclass
class Figures:
    """What one encoding took, and what came out."""

    kept: bool = False  # False: given up
    seconds: float = 0.0
    memory: int = 0  # peak RSS, bytes
    literals: int = 0
    compressed: int = 0  # the literals, by zstd -3
    commands: int = 0


class Collector:
    """A sink that keeps the literals, and counts the commands."""

    def __init__(self, file: BinaryIO) -> None:
        self.commands = 0
        self.literals = 0
        self._file = file
        self._end: int | None = None

    def copy(self, offset: int, length: int) -> None:
        """A command, unless it goes on where the last one ended."""
        self.commands += offset != self._end
        self._end = offset + length

    def literal(self, data: bytes) -> None:
        """A command, and bytes."""
        self.commands += 1
        self.literals += len(data)
        self._end = None
        self._file.write(data)


def measure(old: str, new: str) -> Figures:
    """Encode once, in this process."""
    import numpy  # noqa: F401 - not what is measured
    import zstandard

    from mirrorback.store.encoder import encode

    figures = Figures()
    with tempfile.TemporaryFile() as literals, open(old, "rb") as one, open(new, "rb") as other:
        sink = Collector(literals)
        limit = os.fstat(one.fileno()).st_size // 2
        begin = time.perf_counter()
        figures.kept = encode(
            one.fileno(), other.fileno(), sink, limit=limit, progress=lambda count: None
        )
        figures.seconds = time.perf_counter() - begin
        figures.memory = peak_memory()
        figures.literals, figures.commands = sink.literals, sink.commands
        literals.seek(0)
        with open(os.devnull, "wb") as nowhere:
            _, figures.compressed = zstandard.ZstdCompressor(3).copy_stream(literals, nowhere)
    return figures


def peak_memory() -> int:
    """The peak RSS of this process, bytes; 0 where there is no /proc.  (What getrusage tells
    is that of the parent, if that was larger when it started this one.)"""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def cmp_seconds(path: Path) -> float:
    """The time to read a file and an equal copy once."""
    twin = path.with_name("twin")
    subprocess.run(["cp", "--sparse=always", path, twin], check=True)
    subprocess.run(["sync", "-f", twin], check=True)
    subprocess.run(["cmp", path, twin], check=True)
    begin = time.perf_counter()
    subprocess.run(["cmp", path, twin], check=True)
    seconds = time.perf_counter() - begin
    twin.unlink()
    return seconds


def warm_run(command: list[str], old: Path, new: Path, name: str) -> bytes:
    """What a command prints; the files are in the page cache, as they are for `cmp`."""
    if name != "sparse":
        subprocess.run(["cat", old, new], check=True, stdout=subprocess.DEVNULL)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def run(name: str, scale: float, rounds: int, seed: int, work: Path) -> None:
    """Make one case, measure it, print its row."""
    case, full = CASES[name]
    size = int(full * scale) // MIB * MIB
    with tempfile.TemporaryDirectory(dir=work) as folder:
        old, new = Path(folder, "old"), Path(folder, "new")
        changed = case(old, new, size, seed)
        yardstick = None
        if name != "sparse":  # it would take an hour
            larger = max(old, new, key=lambda path: path.stat().st_size)
            yardstick = min(cmp_seconds(larger) for _ in range(rounds))
        command = [sys.executable, __file__, "--measure", str(old), str(new)]
        all_figures = [
            Figures(**json.loads(warm_run(command, old, new, name))) for _ in range(rounds)
        ]
        best = min(all_figures, key=lambda figures: figures.seconds)
        print(
            f"{name:10}{old.stat().st_size / MIB:10.0f}"
            f"{'-' if changed is None else f'{changed / MIB:.2f}':>10}"
            f"{best.literals / MIB:10.2f}{best.compressed / MIB:10.2f}"
            f"{best.compressed / old.stat().st_size * 100:8.2f}{best.commands:10}"
            f"{best.seconds:8.2f}"
            f"{'-' if yardstick is None else f'{best.seconds / yardstick:.2f}':>8}"
            f"{best.memory / MIB:8.0f}{'' if best.kept else '  given up'}",
            flush=True,
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure deltas of large files.")
    add = parser.add_argument
    add("--case", choices=CASES, action="append", default=[], help="only this; repeatable")
    add("--scale", type=float, default=1, help="of the sizes (%(default)s)")
    add("--rounds", type=int, default=3, help="of which the best counts (%(default)s)")
    add("--seed", type=int, default=1)
    add("--work", type=Path, default=Path(os.environ.get("TMPDIR", "/var/tmp")))
    add("--make", nargs=4, metavar=("CASE", "OLD", "NEW", "BYTES"), help="only make the files")
    add("--measure", nargs=2, metavar=("OLD", "NEW"), help="these two files; prints JSON")
    given = parser.parse_args()
    if given.make:
        name, old, new, size = given.make
        CASES[name][0](Path(old), Path(new), int(size), given.seed)
        return
    if given.measure:
        print(json.dumps(asdict(measure(*given.measure))))
        return
    print(
        f"{'case':10}{'old MiB':>10}{'changed':>10}{'literals':>10}{'zstd -3':>10}"
        f"{'%':>8}{'commands':>10}{'s':>8}{'x cmp':>8}{'MiB RAM':>8}"
    )
    for name in given.case or CASES:
        run(name, given.scale, given.rounds, given.seed, given.work)


if __name__ == "__main__":
    main()
