"""What a build has done, counted and told as it goes on."""

from __future__ import annotations

import threading
from collections import Counter

from mirrorback.engine.events import Events
from mirrorback.model import ChangeKind
from mirrorback.store.workers import Abandoned


class Tally:
    """The counts of one build.  Its methods may be called from several threads."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._lock = threading.Lock()
        self.bytes_copied = 0
        self.bytes_written = 0
        self.needed = 0  # bytes that are still to be written when all is built
        self.errors = 0
        self.stale = 0
        self.failed_new = 0
        self.verdicts: Counter[ChangeKind | None] = Counter()
        self.stopped = False  # nobody wants the build any more

    def written(self, size: int) -> None:
        """So many bytes went to the drive.  Raises Abandoned where that is in vain."""
        self._pass(size, 0)

    def read(self, size: int) -> None:
        """So many bytes of the source were read, and are what the drive has.  Raises Abandoned."""
        if self.stopped:
            raise Abandoned
        self._events.advance(0, size)

    def stored(self, size: int) -> None:
        """So many bytes of the source, read and told before, differ and go to the drive."""
        with self._lock:
            self.bytes_written += size
            self.bytes_copied += size

    def will_need(self, size: int) -> None:
        """So many bytes more will the drive have to hold when the changes of a large file are
        written into it."""
        with self._lock:
            self.needed += size

    def delta(self, size: int) -> None:
        """A delta of so many bytes has gone to the drive."""
        with self._lock:
            self.bytes_written += size

    def copied(self, size: int) -> None:
        """So many bytes of the source went to the drive.  Raises Abandoned."""
        self._pass(size, size)

    def _pass(self, written: int, copied: int) -> None:
        if self.stopped:
            raise Abandoned
        with self._lock:
            self.bytes_written += written
            self.bytes_copied += copied
        self._events.advance(0, written)

    def placed(self, verdict: ChangeKind | None, count: int = 1) -> None:
        """Entries stand in the new snapshot, with this difference to the one before."""
        with self._lock:
            self.verdicts[verdict] += count
        self._events.advance(count)

    def kept(self) -> None:
        """An entry stays as it was, stale."""
        with self._lock:
            self.stale += 1

    def lost(self) -> None:
        """A new entry could not be had at all."""
        with self._lock:
            self.failed_new += 1

    def warn(self, message: str, path: bytes) -> None:
        """Tell what costs nothing."""
        self._events.warning(message, path)

    def error(self, message: str, path: bytes) -> None:
        """Tell and count what could not be read."""
        with self._lock:
            self.errors += 1
        self._events.error(message, path)
