"""Where two buffers of equal length differ.

Cells of 64 bytes are compared at memory speed, as machine words; the ends of what differs
are then exact to the byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.uint8]
    Places = NDArray[np.intp]

CELL = 64
# Equal bytes between two ranges below which one range is cheaper: two more commands of a
# delta, and their rows in its index, take about as much as the bytes.
GAP = 64

Ranges = list[tuple[int, int]]
Data = bytes | bytearray


def differing(old: Data, new: Data) -> Ranges:
    """The ranges (start, end) in which two buffers of equal length differ, rising, with at
    least GAP equal bytes between two of them.  The first and the last byte of a range differ.
    No memoryviews: they are compared much more slowly.  Raises ValueError where the lengths
    are not the same."""
    if len(old) != len(new):
        raise ValueError("buffers of different length")
    if old == new:
        return []
    padded = -len(old) % CELL
    if padded:
        old, new = old + bytes(padded), new + bytes(padded)
    cells = _differing_cells(old, new)
    first, last = _runs(cells, cells, 2)
    starts, ends = _trimmed(old, new, first, last)
    starts, ends = _runs(starts, ends, GAP)
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _runs(starts: Places, ends: Places, apart: int) -> tuple[Places, Places]:
    """The same ranges, those joined that are less than `apart` from the next."""
    import numpy as np

    (breaks,) = (starts[1:] - ends[:-1] >= apart).nonzero()
    if not len(breaks):
        return starts[:1], ends[-1:]
    return starts[np.append(0, breaks + 1)], ends[np.append(breaks, len(ends) - 1)]


def _differing_cells(old: Data, new: Data) -> Places:
    """The numbers of the cells that differ."""
    import numpy as np

    words = np.frombuffer(old, np.uint64) != np.frombuffer(new, np.uint64)
    # Eight booleans, the words of one cell, are one word again.
    cells: Places = words.view(np.uint64).nonzero()[0]
    return cells


def _trimmed(old: Data, new: Data, first: Places, last: Places) -> tuple[Places, Places]:
    """Starts and ends, to the byte, of the ranges that go from a first to a last cell."""
    a, b = _rows(old), _rows(new)
    starts = first * CELL + (a[first] != b[first]).argmax(axis=1)
    ends = (last + 1) * CELL - (a[last] != b[last])[:, ::-1].argmax(axis=1)
    return starts, ends


def _rows(data: Data) -> Rows:
    import numpy as np

    return np.frombuffer(data, np.uint8).reshape(-1, CELL)
