"""Whether a question to the catalog that takes long comes to an end.

In a sound file each page is in one place of one tree.  Where pages point to the same page below
them, a small file has more rows than anyone can wait for.
"""

from __future__ import annotations

import os
import sqlite3
import urllib.parse

from mirrorback.store import encoding
from mirrorback.store.soundness import structure_fault

STEPS = 100_000  # instructions of SQLite's machine from one look to the next
_ALWAYS = 1_000_000  # instructions that any catalog may take
_A_PAGE = 2_000  # those for each page of it: more than reading all rows a few times
_PAGE = 4096  # bytes


class Patience:
    """Counts what a connection to the catalog at `path` has done.  Before it is more than reading
    all of it takes, the structure of the file is looked at, once."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._taken = 0
        self._most: int | None = None  # None: whatever it takes
        self._asked = False

    def look(self) -> int:
        """To be called every `STEPS` instructions (https://sqlite.org/c3ref/progress_handler.html);
        1 where the question is to be given up."""
        self._taken += STEPS
        if not self._asked:
            self._asked = True
            self._most = self._enough()
        if self._most is None or self._taken < self._most:
            return 0
        ends = self._ends()
        if ends is False:
            return 1
        self._most = None if ends else self._taken * 2
        return 0

    def _enough(self) -> int:
        """The instructions after which the file is looked at."""
        try:
            st = os.stat(self._path)
        except OSError:
            return _ALWAYS
        held = min(st.st_size, st.st_blocks * 512)  # one with holes says nothing by its size
        return _ALWAYS + held // _PAGE * _A_PAGE

    def _ends(self) -> bool | None:
        """Whether all that stands in the file can be walked through; None where somebody writes
        to it, and it cannot be told."""
        try:
            uri = "file:" + urllib.parse.quote(self._path) + "?mode=ro"
            db = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)
            try:
                db.execute("PRAGMA trusted_schema = OFF")
                db.create_function("row_check", -1, encoding.row_check, deterministic=True)
                fault = structure_fault(db)
            finally:
                db.close()
        except sqlite3.OperationalError:
            return None
        except sqlite3.Error:
            return False
        return fault is None or fault.readable
