"""Regrowth: what deltas will take when those they are over are gone, before `rebase` does it.

Of a composed delta the catalog knows a bound, the sum of those it is made of; how much of each
is left in it their maps say, and how well that is compressed is taken from what it was.
Whoever asks imports numpy and zstandard: only where large files are at hand.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from mirrorback.engine.history import History
from mirrorback.errors import Damaged, DriveError
from mirrorback.model import LITERAL, Segments
from mirrorback.store import usage

BLOCK = 4096
_UNREADABLE = (Damaged, DriveError, OSError, ValueError)  # `rebase` will say what is wrong


class Regrowth:
    """What becomes of the deltas of a repository, when some objects go."""

    def __init__(
        self, history: History, going: Mapping[int, int], blocks: Mapping[int, int]
    ) -> None:
        """`going`: in which step objects go that are deltas, or that deltas are over;
        `blocks`: the bytes that those take."""
        self._history = history
        self._going = going
        self._blocks = blocks
        self._deltas = usage.deltas(history.catalog)
        self._sizes = usage.sizes(history.catalog, list(self._deltas))
        self._known: dict[tuple[int, ...], int] = {}

    def after(self, step: int) -> tuple[int, bool]:
        """Bytes by which deltas that stay have grown when a step, and those before, are done,
        and whether there are any that have to be written anew."""
        gone = {number for number, when in self._going.items() if when <= step}
        found = [
            self._growth(number, gone)
            for number, (base, _stored) in self._deltas.items()
            if base in gone and number not in gone
        ]
        return sum(found), bool(found)

    def _growth(self, number: int, gone: set[int]) -> int:
        chain = [number]
        base = self._deltas[number][0]
        while base in gone and base in self._deltas and len(chain) <= len(self._deltas):
            chain.append(base)
            base = self._deltas[base][0]
        before = _rounded(self._deltas[number][1])
        whole = (base,) if base in gone else ()
        way = (*chain, *whole)
        if way not in self._known:
            new = self._whole(number, chain, base) if whole else self._composed(number, chain)
            self._known[way] = _rounded(new) - before
        return self._known[way]

    def _whole(self, number: int, chain: Sequence[int], base: int) -> int:
        """Bytes that a version takes as a file of its own: what its deltas have, no longer
        compressed, and of the file that they are over what is in it, holes left out."""
        size = self._sizes.get(number, 0)
        try:
            used, _literals = self._used(chain)
        except _UNREADABLE:
            return size
        return min(size, sum(used[:-1]) + min(used[-1], self._blocks.get(base, 0)))

    def _composed(self, number: int, chain: Sequence[int]) -> int:
        """Bytes of the delta that all of a chain make."""
        bound = min(sum(self._deltas[one][1] for one in chain), self._sizes.get(number, 0))
        try:
            used, literals = self._used(chain)
        except _UNREADABLE:
            return bound
        parts = zip(chain, used, literals, strict=False)
        return min(
            bound, int(sum(self._deltas[n][1] * left / had for n, left, had in parts if had))
        )

    def _used(self, chain: Sequence[int]) -> tuple[list[int], list[int]]:
        """Of each delta of a chain, and then of what the last is over, the bytes that are in the
        version that they make; and the literal bytes that each delta has."""
        import numpy as np

        from mirrorback.engine.open_large import open_object
        from mirrorback.plan import delta_map
        from mirrorback.store.delta_reader import DeltaReader

        literals: list[int] = []

        def maps() -> Iterator[Segments]:
            for number in chain:
                fd = open_object(self._history, number, delta=True)
                try:
                    segments = DeltaReader(fd).segments
                finally:
                    os.close(fd)
                literals.append(int(segments.length[segments.kind == LITERAL].sum()))
                yield segments

        composed = delta_map.compose(maps())
        used = np.bincount(composed.source, weights=composed.length, minlength=len(chain) + 1)
        return [int(count) for count in used], literals


def _rounded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
