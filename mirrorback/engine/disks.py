"""The disks that a restore writes to, made to hold what it wrote before it says that it is done."""

from __future__ import annotations

import os
import threading

from mirrorback.errors import DriveError
from mirrorback.store import system


class Disks:
    """File systems that were written to; others may be mounted below a target.  For several
    threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, int] = {}  # a folder on each, by its device number

    def note(self, folder: int) -> None:
        """Something is about to be written in an open folder.  Raises OSError."""
        device = os.fstat(folder).st_dev
        with self._lock:
            if device not in self._open:
                self._open[device] = os.dup(folder)

    def sync(self) -> None:
        """Make durable what was written: a power cut would leave files empty, or full of zeros,
        or without their names.  Raises DriveError."""
        with self._lock:
            folders = list(self._open.values())
        for folder in folders:
            try:
                system.sync_filesystem(folder)
            except OSError as error:
                raise DriveError(
                    f"what was restored may not be on its disk: {error.strerror};"
                    " look at that disk, and restore again"
                ) from error

    def close(self) -> None:
        """Close what is open."""
        for folder in self._open.values():
            os.close(folder)
        self._open = {}
