"""Finds content again wherever it has moved to: an index of content-defined chunks.

Chunks are cut by FastCDC (Xia et al., "The Design of Fast Content-Defined Chunking for Data
Deduplication Based Storage Systems", 2020): where a chunk ends depends on the bytes before
it alone, so that the same content is cut the same way at any offset.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from itertools import islice
from typing import TYPE_CHECKING

from mirrorback.store.differing import Data
from mirrorback.store.large import LargeFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SMALLEST = 4 << 10  # the average of a chunk, in bytes: doubled until the index is small enough
LARGEST = 2 << 20
SLOTS = 1 << 22  # of the index, 16 bytes each
_PIECE = 4 << 20  # bytes that are cut at once
PIECES = 1 << 20  # that are known at most; far more content than can be indexed


def average_for(size: int, slots: int = SLOTS) -> int:
    """The average length of chunks with which `size` bytes fill half an index."""
    average = SMALLEST
    while average < LARGEST and size // average > slots // 2:
        average *= 2
    return average


class Chunker:
    """Cuts buffers into chunks of this average length, a power of two from 256 on."""

    def __init__(self, average: int) -> None:
        from pyfastcdc import FastCDC

        self._cdc = FastCDC(average, min_size=average // 4, max_size=average * 4)

    def cut(self, data: Data) -> tuple[list[int], list[int]]:
        """Offsets and digests (xxh3, 64 bits) of the chunks.  The last one ends where the
        data does, whatever would have followed."""
        from xxhash import xxh3_64_intdigest

        starts, digests = [], []
        for chunk in self._cdc.cut_buf(data):
            starts.append(chunk.offset)
            digests.append(xxh3_64_intdigest(chunk.data))
        return starts, digests


class ChunkIndex:
    """Where in a file chunks lie, of as much of the file as was asked for.

    A hash table of a fixed number of slots, a power of two, each with room for one chunk;
    one that finds its slot taken is left out: of what has moved any chunk leads to the rest.
    """

    def __init__(self, file: LargeFile, average: int, slots: int = SLOTS) -> None:
        import numpy as np

        self.chunker = Chunker(average)
        self.indexed = 0  # bytes of the file
        self._file = file
        self._piece = max(_PIECE, 32 * average)
        self._pieces = array("Q", islice(file.pieces_with_data(self._piece), PIECES))
        self._done = bytearray(len(self._pieces))
        self._left = len(self._pieces)
        wanted = 1 << (2 * file.data // average).bit_length()
        self.slots = min(slots, max(wanted, 1024))
        self._digests: NDArray[np.uint64] = np.zeros(self.slots, np.uint64)
        self._places: NDArray[np.uint64] = np.zeros(self.slots, np.uint64)  # offset + 1; 0 is free

    def __len__(self) -> int:
        """The number of chunks in it."""
        import numpy as np

        return int(np.count_nonzero(self._places))

    def widen(self, home: int, amount: int, *, keep: bool = True) -> bool:
        """Index some `amount` bytes more, those nearest to the offset `home` first; without
        `keep` the page cache may forget them.  Returns whether there was anything left.
        Raises OSError."""
        wanted = self._nearest(home, min(self._left, -(-amount // self._piece)))
        self._left -= len(wanted)
        for position in sorted(wanted):
            self._done[position] = True
            offset = self._pieces[position] * self._piece
            length = min(self._piece, self._file.size - offset)
            self._add(offset, self._file.read(offset, length))
            self.indexed += length
            if not keep:
                self._file.let_go(offset, length)
        return bool(wanted)

    def _nearest(self, home: int, count: int) -> list[int]:
        """Up to `count` pieces that are not indexed yet, by their position in the list."""
        above = bisect_left(self._pieces, home // self._piece)
        below = above - 1
        found: list[int] = []
        while len(found) < count and (below >= 0 or above < len(self._pieces)):
            if above < len(self._pieces):
                if not self._done[above]:
                    found.append(above)
                above += 1
            if below >= 0:
                if not self._done[below]:
                    found.append(below)
                below -= 1
        return found[:count]

    def _add(self, offset: int, data: bytes) -> None:
        import numpy as np

        starts, digests = self.chunker.cut(data)
        new = np.array(digests, np.uint64)
        places = np.array(starts, np.uint64) + np.uint64(offset + 1)
        slots = new & np.uint64(self.slots - 1)
        free = self._places[slots] == 0
        self._digests[slots[free]] = new[free]
        self._places[slots[free]] = places[free]

    def find(self, digests: list[int]) -> list[int | None]:
        """For each digest the offset of a chunk that has it, or None."""
        import numpy as np

        wanted = np.array(digests, np.uint64)
        slots = wanted & np.uint64(self.slots - 1)
        hit = (self._digests[slots] == wanted) & (self._places[slots] != 0)
        places = self._places[slots].tolist()
        return [place - 1 if is_hit else None for place, is_hit in zip(places, hit, strict=True)]
