"""Which snapshots a mount is reading: those are not removed meanwhile.

A snapshot is in use while a file or folder of it is open, and for a few seconds after the last
question about something in it, since programs ask one thing after another.  Then it is let go:
a mount that merely stands there keeps no snapshot.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

LINGER_S = 3.0  # longer than the kernel answers by itself


@dataclass(slots=True)
class _Use:
    """Of one snapshot."""

    fd: int | None  # holds it; None where that is impossible
    count: int  # open files and folders
    last: float


class Uses:
    """Holds snapshots, by their ids.  For several threads; has one of its own while it holds
    any, which ends with the last or with the process."""

    def __init__(
        self, hold: Callable[[int], int | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`hold` gives a descriptor that holds a snapshot until it is closed, None where there
        is no way to hold it, and raises FileNotFoundError where it is gone."""
        self._hold = hold
        self._clock = clock
        self._uses: dict[int, _Use] = {}
        self._changed = threading.Condition()
        self._watched = False

    def touch(self, snapshot: int) -> None:
        """Something in a snapshot was asked for.  Raises FileNotFoundError."""
        self._used(snapshot, 0)

    def begin(self, snapshot: int) -> None:
        """Something in a snapshot is opened.  Raises FileNotFoundError."""
        self._used(snapshot, 1)

    def end(self, snapshot: int) -> None:
        """It is closed again."""
        self._used(snapshot, -1)

    def close(self) -> None:
        """Let go of all."""
        with self._changed:
            for number in list(self._uses):
                self._let_go(number)
            self._changed.notify_all()

    def _used(self, snapshot: int, more: int) -> None:
        with self._changed:
            use = self._uses.get(snapshot)
            if use is not None:
                use.count += more
                use.last = self._clock()
                return
        if more < 0:
            return  # all was let go of
        fd = self._hold(snapshot)  # which may take its time
        with self._changed:
            use = self._uses.get(snapshot)
            if use is not None and fd is not None:
                os.close(fd)  # another thread was faster
            if use is None:
                use = self._uses[snapshot] = _Use(fd, 0, 0.0)
            use.count += more
            use.last = self._clock()
            if not self._watched:
                self._watched = True
                threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        with self._changed:
            while self._uses:
                now = self._clock()
                idle = [n for n, use in self._uses.items() if not use.count]
                for number in idle:
                    if now - self._uses[number].last >= LINGER_S:
                        self._let_go(number)
                if self._uses:
                    self._changed.wait(LINGER_S / 4)
            self._watched = False

    def _let_go(self, snapshot: int) -> None:
        use = self._uses.pop(snapshot)
        if use.fd is not None:
            os.close(use.fd)
