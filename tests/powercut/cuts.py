"""Which states of the disk a power cut may leave, from the log of what was written to it.

A flush makes durable all that was written before.  Of what came after the last one, a cut may
leave any part: each write is there, or not, or up to some multiple of 4096 bytes (`TORN`).  The
writes between two flushes are an *epoch*.  What was promised before the cut, by a mark, must
hold in any such state.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from powercut.disk import RECORD, punch

TORN = 4096  # bytes that a disk writes wholly or not at all; with 512 btrfs loses superblocks
END = "\0end"  # the mark behind which nothing is looked at
ALL_OF = 3  # so many writes are tried in all combinations


class Write(NamedTuple):
    """A range of the disk that gets these bytes, or where there are none, zeros."""

    offset: int
    length: int
    data: bytes | None


Entry = Write | str  # a write, or a mark
Epoch = list[Entry]


def read_log(path: Path) -> list[Epoch]:
    """The epochs of a log, to the end mark."""
    epochs: list[Epoch] = [[]]
    with path.open("rb") as log:
        while head := log.read(RECORD.size):
            what, offset, length = RECORD.unpack(head)
            data = log.read(length) if what in b"WM" else None
            if what == b"F":
                epochs.append([])
            elif what != b"M" or data is None:
                epochs[-1].append(Write(offset, length, data))
            elif data.decode() == END:
                break
            else:
                epochs[-1].append(data.decode())
    return epochs


def apply(fd: int, writes: list[Write]) -> None:
    """Write to an open image."""
    for write in writes:
        if write.data is None:
            punch(fd, write.offset, write.length)
        else:
            os.pwrite(fd, write.data, write.offset)


@dataclass(frozen=True)
class Cut:
    """What is left of an epoch, and what had been promised in it."""

    words: str
    writes: list[Write]
    promised: list[str]


def possible(epoch: Epoch, chance: random.Random, count: int) -> Iterator[Cut]:
    """Cuts in an epoch: that in which nothing of it is left, and all of it promised; all
    combinations of a few writes; and so many at random.  They may repeat each other."""
    yield _cut(epoch, len(epoch), [])
    writes = [at for at, entry in enumerate(epoch) if isinstance(entry, Write)]
    if not writes:
        return
    if len(writes) <= ALL_OF:
        for size in range(1, len(writes) + 1):
            for kept in itertools.combinations(writes, size):
                yield _cut(epoch, len(epoch), list(kept))
    for _ in range(count):
        yield _at_random(epoch, writes, chance)


def _at_random(epoch: Epoch, writes: list[int], chance: random.Random) -> Cut:
    end = chance.choice((len(epoch), 1 + chance.choice(writes)))
    kept = [at for at in writes if at < end]
    shape = chance.random()
    if shape < 0.15:  # all but one
        kept.remove(chance.choice(kept))
    elif shape < 0.3:
        kept = [chance.choice(kept)]
    elif shape < 0.85:  # else all
        share = chance.choice((0.1, 0.5, 0.9))
        kept = [at for at in kept if chance.random() < share]
    torn = chance.choice(kept) if kept and chance.random() < 0.3 else None
    return _cut(epoch, end, kept, torn, chance)


def _cut(
    epoch: Epoch,
    end: int,
    kept: list[int],
    torn: int | None = None,
    chance: random.Random | None = None,
) -> Cut:
    writes = []
    for at in kept:
        write = epoch[at]
        assert isinstance(write, Write)
        if at == torn and chance is not None:
            write = _torn(write, chance)
        writes.append(write)
    issued = sum(isinstance(entry, Write) for entry in epoch[:end])
    words = f"{len(writes)} of {issued} writes" + (", one torn" if torn is not None else "")
    return Cut(words, writes, [entry for entry in epoch[:end] if isinstance(entry, str)])


def _torn(write: Write, chance: random.Random) -> Write:
    ends = range(TORN - write.offset % TORN, write.length, TORN)
    if write.data is None or not ends:
        return write
    end = chance.choice(ends)
    return Write(write.offset, end, write.data[:end])


class Fingerprint:
    """Tells images apart that come of one base by writes: a sum over all blocks that differ."""

    def __init__(self, image: Path) -> None:
        self._fd = os.open(image, os.O_RDONLY)
        self._sum = 0

    def close(self) -> None:
        """Close the image."""
        os.close(self._fd)

    def after(self, writes: list[Write]) -> int:
        """The fingerprint of the image, would these be written to it."""
        blocks: dict[int, bytearray] = {}
        for offset, length, data in writes:
            for number in range(offset // TORN, -(-(offset + length) // TORN)):
                start = number * TORN
                begin, end = max(offset, start), min(offset + length, start + TORN)
                block = blocks.get(number)
                if block is None:
                    block = blocks[number] = bytearray(self._old(number))
                new = bytes(end - begin) if data is None else data[begin - offset : end - offset]
                block[begin - start : end - start] = new
        return (self._sum + sum(map(self._change, blocks.items()))) % (1 << 128)

    def advance(self, writes: list[Write]) -> None:
        """The image is about to get these for good."""
        self._sum = self.after(writes)

    def _old(self, number: int) -> bytes:
        return os.pread(self._fd, TORN, number * TORN).ljust(TORN, b"\0")

    def _change(self, item: tuple[int, bytearray]) -> int:
        number, new = item
        old = self._old(number)
        return 0 if old == new else _digest(number, bytes(new)) - _digest(number, old)


def _digest(number: int, block: bytes) -> int:
    made = hashlib.blake2b(number.to_bytes(8, "little") + block, digest_size=16).digest()
    return int.from_bytes(made, "little")
