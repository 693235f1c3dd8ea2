"""Which snapshots are meant by names, times, and ranges of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mirrorback.errors import NotInHistory, UsageError
from mirrorback.model import Snapshot
from mirrorback.plan import when

BETWEEN = ".."


def chosen(words: Sequence[str], snapshots: Sequence[Snapshot], now: datetime) -> list[Snapshot]:
    """The snapshots that words mean, each once, oldest first.

    A word is a WHEN (see `when`), or two of them with `..` between: all from the snapshot that
    the first means to that of the second, both included.  Either may be left out: then the
    range begins with the oldest, or ends with the last before the mirror.
    Raises NotInHistory, and UsageError for the mirror, which is never deleted."""
    found: dict[int, Snapshot] = {}
    for word in words:
        for snapshot in _meant(word, snapshots, now):
            if snapshot.current:
                raise UsageError(
                    f"{word} means the mirror as well, which always stays:"
                    " name snapshots before it; `mirrorback snapshots` lists them"
                )
            found[snapshot.id] = snapshot
    return sorted(found.values(), key=lambda snapshot: snapshot.id)


def _meant(word: str, snapshots: Sequence[Snapshot], now: datetime) -> list[Snapshot]:
    if BETWEEN not in word:
        return [when.resolve(word, snapshots, now)]
    first, _, last = word.partition(BETWEEN)
    if not first and not last:
        raise UsageError(f"{word}: a range is FIRST..LAST; one of them may be left out")
    begin = when.resolve(first, snapshots, now).id if first else 0
    end = when.resolve(last, snapshots, now).id if last else snapshots[-1].id - 1
    if begin > end and len(snapshots) > 1:
        raise UsageError(f"{word}: the first is newer than the last; turn them round")
    found = [snapshot for snapshot in snapshots if begin <= snapshot.id <= end]
    if not found:
        raise NotInHistory(f"there is no snapshot in {word}; `mirrorback snapshots` lists them")
    return found
