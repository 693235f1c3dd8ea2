"""Catalogs that were lost, and are made anew."""

from __future__ import annotations

from datetime import timedelta

from crash.cutting import DAMAGED
from crash.nightly import Large, Night
from crash.scenario import AfterCut, Scenario
from trees import require_same

from mirrorback.engine.rebuild import RebuildOptions, rebuild
from mirrorback.errors import Damaged

NO_CATALOG = b"damaged"


class _Rebuilding(Scenario):
    """A catalog that is to be made anew."""

    def lose(self) -> None:
        """Damage the catalog beyond reading."""
        inner = self.nights.repository / ".mirrorback"
        (inner / "catalog.db").write_bytes(NO_CATALOG * 999)
        # It could bring back all that has been changed of it.
        (inner / "catalog.db-journal").unlink(missing_ok=True)

    def rebuild(self, *, force: bool = False) -> int:
        """Make it anew; the exit code."""
        options = RebuildOptions(force=force)
        nights = self.nights
        made = rebuild(str(nights.repository), options, nights.now, nights.heard)
        return DAMAGED if made.problems else 0

    def finish(self) -> None:
        """Make it anew, where that has not been done, or not of everything; the old one is there
        still, and goes."""
        if self.is_lost() or self.code == DAMAGED:
            assert self.rebuild(force=True) == 0
        inner = self.nights.repository / ".mirrorback"
        kept = list(inner.glob("catalog.db.before-rebuild-*"))
        assert any(path.read_bytes().startswith(NO_CATALOG) for path in kept)
        for path in kept:
            path.unlink()

    def is_lost(self) -> bool:
        """Whether the catalog is still damaged."""
        try:
            with self.nights.history() as history:
                history.snapshots()
        except Damaged:
            return True
        return False


class Rebuild(_Rebuilding):
    """Making the catalog anew, the old one damaged."""

    def prepare(self) -> None:
        Night.prepare(self)  # type: ignore[arg-type]
        self.night()

    def begin(self) -> None:
        self.lose()

    def run(self) -> int | None:
        return self.rebuild()

    def require_done(self) -> None:
        assert self._names() == sorted(self.then)

    def recover(self) -> None:
        if self.is_lost():
            self.rebuild()

    def after(self) -> None:
        for folder in (*self.nights.folders(), self.nights.current):
            name = max(self.then) if folder.name == "current" else folder.name
            require_same(self.then[name], self.seen(folder))
        self.finish()
        assert self._names() == sorted(self.then)
        self.nights.now += timedelta(hours=1)
        assert self.backup().summary.unchanged
        self._require_all(self.seen(self.nights.source))


class RebuildRecovery(AfterCut, Rebuild):
    """The same after an attempt that was cut."""

    def first(self) -> object:
        return self.rebuild()

    def measure(self) -> None:
        self.lose()
        super().measure()

    def begin(self) -> None:
        self.lose()
        super().begin()

    def run(self) -> int | None:
        return self.rebuild() if self.is_lost() else super(Rebuild, self).run()


class LostNight(AfterCut, _Rebuilding, Large):
    """Making the catalog anew, which was lost with a night that was cut."""

    is_a_night = False

    def begin(self) -> None:
        super().begin()
        self.lose()

    def run(self) -> int | None:
        return self.rebuild()

    def after(self) -> None:
        wanted = self.seen(self.nights.source)
        self.finish()
        names = self._names()
        assert names[: len(self.then)] == sorted(self.then) and len(names) <= len(self.then) + 1
        self._require_published(wanted)
        self.nights.now += timedelta(hours=1)
        self.backup()
        self._require_all(wanted)


class LostSmallNight(LostNight):
    """The same with some of every change of small files."""

    def prepare(self) -> None:
        Night.prepare(self)  # type: ignore[arg-type]
