"""A past version of a large file, read through its chain of reverse deltas.

Whoever imports this imports numpy and zstandard: only where large files are at hand.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence

from mirrorback.errors import Damaged
from mirrorback.model import Digest
from mirrorback.plan import delta_map
from mirrorback.store.content import CHUNK
from mirrorback.store.delta_gather import Gatherer
from mirrorback.store.delta_reader import DeltaReader


class PastFile:
    """The content of an old version, of which nothing between it and the whole file at the
    chain's end is built: each piece is looked up once, however long the chain is.

    For several threads at once, as its readers are.  In memory are 32 bytes for each piece,
    and some decoded frames (`Gatherer`).
    """

    def __init__(
        self, base_fd: int, readers: Sequence[DeltaReader], *, changing: bool = False
    ) -> None:
        """Compose the deltas of a chain: first the wanted version's, last the one over the
        open whole file.  The descriptors stay the caller's.  `changing` says that the changes
        which the last delta takes back, or makes, may be in the whole file in part: its size
        tells nothing then.

        Raises OSError, and Damaged where they do not belong together."""
        if not readers:
            raise ValueError("a chain has at least one delta")
        self._readers = tuple(readers)
        self._gatherer = Gatherer(base_fd, readers)
        base_size = os.fstat(base_fd).st_size
        _check_chain(self._readers, None if changing else base_size)
        composed = delta_map.compose(reader.segments for reader in self._readers)
        self._composed = delta_map.merge(composed)
        self._check_base(base_size)

    @property
    def size(self) -> int:
        """The version's size in bytes."""
        return self._composed.size

    def pread(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, fewer only at the version's end.  Raises OSError, and
        Damaged where a delta is, or the whole file has become shorter."""
        if offset < 0 or size < 0:
            raise ValueError("no range of a file")
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        parts = [self._gatherer.gather(*rows) for rows in self._composed.rows(offset, end)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """All content, as (offset, data) with up to 1 MiB each.  Raises as `pread`."""
        for offset in range(0, self.size, CHUNK):
            yield offset, self.pread(offset, CHUNK)

    def _check_base(self, base_size: int) -> None:
        """A map may have been over a base of unknown size."""
        composed = self._composed
        copied = composed.source == len(self._readers)
        if (composed.offset[copied] + composed.length[copied] > base_size).any():
            raise Damaged("a delta reaches beyond the end of the file it starts from")


def _check_chain(readers: tuple[DeltaReader, ...], base_size: int | None) -> None:
    """Raise Damaged unless each delta's base is what the next one restores, and the last
    one's has the size of the whole file, if that is known."""
    for number, (older, newer) in enumerate(itertools.pairwise(readers), 1):
        if older.base_size not in (None, newer.old_size):
            raise Damaged(
                f"delta {number} of {len(readers)} starts from a version of "
                f"{older.base_size} bytes, but the next one restores {newer.old_size}"
            )
        if _differ(older.base_digest, newer.old_digest):
            raise Damaged(
                f"delta {number} of {len(readers)} starts from a version with the digest "
                f"{older.base_digest}, but the next one restores {newer.old_digest}"
            )
    last = readers[-1].base_size
    if base_size is not None and last not in (None, base_size):
        raise Damaged(
            f"the newest delta starts from a file of {last} bytes, but this one has {base_size}"
        )


def _differ(one: Digest | None, other: Digest | None) -> bool:
    """Whether digests tell that contents differ; those of two forms tell nothing."""
    return one is not None and other is not None and one.sparse == other.sparse and one != other
