"""What objects take of the drive together, whoever else shows them as well."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from mirrorback.engine.history import History
from mirrorback.engine.places import Places
from mirrorback.engine.scale import Scale
from mirrorback.store import usage
from mirrorback.store.catalog import translated
from mirrorback.store.extents import Overlay
from mirrorback.store.repository import drive_errors
from mirrorback.store.usage import Objects, Stored


class Held:
    """Answers for an open repository.  For one thread."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._places = Places(history)
        self._scale = Scale(history, self._places)

    def by(
        self, objects: Objects, told: Callable[[Stored, int], None] = lambda stored, size: None
    ) -> tuple[int, bool]:
        """Bytes that objects take, and whether that is an estimate.  `told` hears for each what
        it adds, oldest of a lineage first.  Raises DriveError and the catalog's errors."""
        try:
            with drive_errors(), translated():
                return self._by(objects, told)
        finally:
            self._places.close()

    def _by(self, objects: Objects, told: Callable[[Stored, int], None]) -> tuple[int, bool]:
        known = usage.existing(self._history.catalog)
        total, estimated = 0, False
        details = usage.details(self._history.catalog, objects)
        for _lineage, group in groupby(details, key=lambda one: one.lineage):
            before, laid = 0, Overlay()
            seen: set[bytes] = set()
            for one in group:
                weight = self._scale.of_held(one, known)
                size = weight.own
                if weight.shared and weight.shared not in seen:
                    seen.add(weight.shared)
                    laid.add(weight.shared)
                    covered = laid.covered(1)
                    size += covered - before
                    before = covered
                total += size
                estimated |= weight.estimated
                told(one, size)
        return total, estimated
