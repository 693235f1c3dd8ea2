"""After any sequence of changes the folders alone give every snapshot back."""

from __future__ import annotations

import os
import shutil
import stat
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from rebuilding import CATALOG, rebuilt, told
from test_exact_history import EXAMPLES, PICK, Nightly, NightlyWithDeltas, _settings
from trees import describe, require_same


class Rebuilding(Nightly):
    """Nights, and now and then the catalog is lost."""

    @precondition(lambda self: self.newest is not None)
    @rule(digests=st.booleans())
    def lose_the_catalog(self, digests: bool) -> None:
        before = told(self.nights)
        made = rebuilt(self.nights, digests=digests)
        assert made.problems == 0 and self.nights.heard.errors == []
        assert told(self.nights) == before
        self._nothing_is_copied()

    @precondition(lambda self: self.newest is not None)
    @rule()
    def damage_the_catalog(self) -> None:
        """What it says is still believed, row by row."""
        before = told(self.nights, digests=True)
        with (self.nights.repository / CATALOG).open("r+b") as file:
            file.seek(73)  # nobody reads it
            file.write(b"!")
        made = rebuilt(self.nights, lose=False)
        assert made.problems == 0 and made.kept is not None
        os.unlink(made.kept)
        assert told(self.nights, digests=True) == before
        self._nothing_is_copied()

    @precondition(lambda self: self.newest is not None)
    @rule(number=PICK)
    def lose_the_catalog_and_restore(self, number: int) -> None:
        rebuilt(self.nights)
        name = sorted(self.then)[number % len(self.then)]
        target = self.top / "restored"
        self.nights.restore(target, at=name)
        require_same(self.then[name], describe(target))
        shutil.rmtree(target)

    def _nothing_is_copied(self) -> None:
        """What the source shares with the mirror is not copied."""
        assert self.newest is not None
        wanted, mirror = describe(self.source), self.then[self.newest]
        options: dict[str, Any] = {"dry_run": True, "init": False, "allow_empty_source": True}
        summary = self.nights.backup(**(self.options | options)).summary
        same = wanted == mirror
        assert summary.unchanged == same
        if same:
            files = [n for n in wanted.values() if not stat.S_ISDIR(n.format)]
            assert summary.files_unmodified == len(files)
            assert summary.bytes_copied == 0


class RebuildingWithDeltas(Rebuilding, NightlyWithDeltas):
    """The same where most files are large."""

    options = NightlyWithDeltas.options
    replaced = NightlyWithDeltas.replaced


Rebuilding.TestCase.settings = _settings(max(1, EXAMPLES // 3))
RebuildingWithDeltas.TestCase.settings = _settings(max(1, EXAMPLES // 3))


@pytest.mark.skipif(os.geteuid() != 0, reason="devices and owners need root")
class TestRebuilding(Rebuilding.TestCase):  # type: ignore[misc, name-defined]
    """See `Rebuilding`."""


@pytest.mark.skipif(os.geteuid() != 0, reason="devices and owners need root")
class TestRebuildingWithDeltas(RebuildingWithDeltas.TestCase):  # type: ignore[misc, name-defined]
    """See `RebuildingWithDeltas`."""
