"""Whether `repair` could mend an object, and from what: the one place that decides it, for
`verify` to say and for `repair` to go by.

It is found out as a repair does it, but for writing: what may be right is read, and its digest
decides.  A delta over something damaged is well again when that is.
"""

from __future__ import annotations

import os

from mirrorback.engine.examine import Examined, Examiner
from mirrorback.engine.faults import Harm
from mirrorback.engine.history import History
from mirrorback.engine.remedy import CATALOG, DELTA, ITSELF, LINKS, MOST_TRIED, Remedies
from mirrorback.model import Kind
from mirrorback.plan import large
from mirrorback.store import past, schema

_AS_ROOT = (Kind.CHAR, Kind.BLOCK)


def undressed_from(kind: Kind, *, provable: bool) -> str | None:
    """The same for what has the right content, but the wrong metadata, or is another's inode;
    `provable` says that a copy could be proven, or none is needed."""
    if kind is Kind.FILE:
        return ITSELF if provable else None
    return CATALOG if kind not in _AS_ROOT or os.geteuid() == 0 else None


class Outlook:
    """Answers are kept: the drive must not be changed meanwhile, or they are of before.  For
    several threads."""

    def __init__(self, history: History, examiner: Examiner, remedies: Remedies) -> None:
        self._history = history
        self._examiner = examiner
        self._remedies = remedies
        self._known: dict[int, str | None] = {}
        self._broken: dict[int, Examined | None] = {}  # what itself is damaged of a chain

    def of(self, found: Examined) -> str | None:
        """Where what an object should be would come from (`remedy.SOURCE` and so on); None
        where it is nowhere.  Raises the catalog's errors, OSError."""
        if found.number not in self._known:
            self._known[found.number] = self._of(found, frozenset())
        return self._known[found.number]

    def _of(self, found: Examined, asking: frozenset[int]) -> str | None:
        if found.number in self._known:
            return self._known[found.number]
        if found.number in asking:
            return None
        asking |= {found.number}
        direct = self._direct(found)
        if direct is not None:
            return direct
        if self._after_others(found, asking) or self._twin_after_others(found, asking):
            return DELTA
        return None

    def _direct(self, found: Examined) -> str | None:
        """From what is right as it is."""
        if found.sound is not None:
            return LINKS
        file = found.metadata.kind is Kind.FILE
        if found.bytes_right is not None or not file:
            provable = found.digest is not None or found.only_undressed()
            origin = undressed_from(found.metadata.kind, provable=provable)
            if origin is not None or not file:
                return origin
        return self._remedies.bring(found, None)

    def _after_others(self, found: Examined, asking: frozenset[int]) -> bool:
        """Whether an object is a delta that is right itself, over what could be mended."""
        if not found.depends():
            return False
        broken = self.broken_below(found)
        return broken is not None and self._of(broken, asking) is not None

    def _twin_after_others(self, found: Examined, asking: frozenset[int]) -> bool:
        """The same of another object with the same content."""
        catalog, digest = self._history.catalog, found.digest
        if digest is None:
            return False
        with catalog.lock:
            numbers = past.twins(catalog, digest, found.number)[:MOST_TRIED]
            held = {number: past.holding(catalog, number) for number in numbers}
        for number, how in held.items():
            if how is None or how.drive != schema.DELTA or number in asking:
                continue
            twin = self._examiner.look(number)
            if twin is not None and self._after_others(twin, asking | {number}):
                return True
        return False

    def broken_below(self, found: Examined) -> Examined | None:
        """The nearest object, of those that a delta is over, whose own file is damaged."""
        held = found.held
        for _ in range(2 * large.LONGEST_CHAIN):
            if held.drive != schema.DELTA or held.base is None:
                return None
            number = held.base
            if number not in self._broken:
                looked = self._examiner.look(number, comes_to=True)
                harmed = looked is not None and looked.sound is None and _in_content(looked)
                self._broken[number] = looked if harmed else None
            broken = self._broken[number]
            if broken is not None:
                return broken
            with self._history.catalog.lock:
                over = past.holding(self._history.catalog, number)
            if over is None:
                return None
            held = over
        return None


def _in_content(found: Examined) -> bool:
    """Whether what is wrong with an object keeps others from being read through it."""
    return any(fault.harm not in (Harm.DRESS, Harm.LINKS) for _shown, fault in found.wrong())
