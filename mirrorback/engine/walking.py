"""The way through the source: its directories one after another, some listed by a scout."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from mirrorback.engine.listing import Listing, Same, Scout, Wanted, look
from mirrorback.engine.source import Source
from mirrorback.errors import Trouble
from mirrorback.store import tree

SCOUT_FROM = 500  # directories: before, starting a process costs more than it gains
FEWEST_SENT, MOST_SENT = 4, 64  # directories that a scout lists in one go
LOTS_SENT = 2  # one that it is at, one that waits for it


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory to be looked at."""

    path: bytes
    id: int
    known: bool  # the mirror has a directory here
    fingerprint: bytes | None = None  # that it had the last time


class Walk:
    """One walk.  Directories are added while it goes on; the newest come first, so that
    those that wait are never many."""

    def __init__(self, source: Source, *, compare_all: bool, many: bool) -> None:
        """`compare_all` takes no fingerprint for an answer.  `many` says that the scout is
        worth it from the beginning."""
        self._source = source
        self._compare_all = compare_all
        self._many = many
        self._visited = 0  # without a scout
        self._waiting: list[Folder] = []
        self._sent: deque[list[Folder]] = deque()
        self._scout: Scout | None = None

    def add(self, *folders: Folder) -> None:
        """Directories to be visited; the last is visited first."""
        self._waiting += folders

    def visits(self, cursor: tree.Cursor) -> Iterator[tuple[Folder, Same | Listing | Trouble]]:
        """Each directory, and what was found in it."""
        try:
            while self._waiting or self._sent:
                self._send_ahead()
                if self._scout and self._sent and (not self._waiting or self._scout.ready()):
                    yield from zip(self._sent.popleft(), self._scout.received(), strict=True)
                elif self._waiting:
                    folder = self._waiting.pop()
                    self._visited += 1
                    yield folder, self._look(cursor, folder)
        finally:
            if self._scout is not None:
                self._scout.close()

    def _look(self, cursor: tree.Cursor, folder: Folder) -> Same | Listing | Trouble:
        try:
            return look(self._source, cursor, self._wanted(folder))
        except Trouble as trouble:
            return trouble

    def _send_ahead(self) -> None:
        """Give the scout so much that it need not wait for the next lot."""
        half = len(self._waiting) // 2
        few = self._visited < SCOUT_FROM and not self._many
        if few or len(self._sent) == LOTS_SENT or half < FEWEST_SENT:
            return
        self._scout = self._scout or Scout(self._source)
        lot = self._waiting[-min(half, MOST_SENT) :]
        if self._scout.send([self._wanted(folder) for folder in lot]):
            del self._waiting[-len(lot) :]
            self._sent.append(lot)

    def _wanted(self, folder: Folder) -> Wanted:
        return Wanted(folder.path, None if self._compare_all else folder.fingerprint)
