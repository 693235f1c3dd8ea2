"""Pins: snapshots that stay until someone says otherwise, and what a mass change has pinned."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from mirrorback.engine import removable
from mirrorback.engine.events import Events
from mirrorback.engine.removal import opened, removing
from mirrorback.errors import Refused, UsageError
from mirrorback.model import Snapshot
from mirrorback.plan import guards
from mirrorback.plan.guards import holds_thinning
from mirrorback.store import record

__all__ = ["Pinned", "Pins", "holds_thinning", "pin", "unpin", "unpinning"]


@dataclass(frozen=True)
class Pinned:
    """What has become of the pin of a snapshot: `before` as it was, `after` as it is."""

    before: Snapshot
    after: Snapshot

    @property
    def changed(self) -> bool:
        """Whether it is another than before."""
        return self.before.pinned != self.after.pinned

    @property
    def acknowledges(self) -> bool:
        """Whether it was a mass change's, and is no longer."""
        return guards.holds_thinning(self.before.pinned) and self.changed


@dataclass(frozen=True)
class Pins:
    """What was done: of each snapshot named, and which mass changes hold all thinning now."""

    pinned: list[Pinned]
    holding: list[Snapshot]


def pin(
    repository: str, names: Sequence[str], reason: str | None, *, now: datetime, events: Events
) -> Pins:
    """Pin snapshots by their names, the mirror too.  One that is pinned keeps its reason, unless
    another is given.  Raises NotInHistory, Refused where a mass change has pinned one and a
    reason is given, Locked; then none was pinned."""
    if reason is not None and not reason.strip():
        raise UsageError("--reason is empty: say why, or leave it out")

    def pinned(snapshot: Snapshot) -> str:
        if reason is not None and guards.holds_thinning(snapshot.pinned):
            raise Refused(
                f"{snapshot.name} is pinned by a mass change that nobody has acknowledged yet:"
                " `mirrorback unpin` it first, then pin it"
            )
        return guards.pin_by_hand(snapshot.pinned, reason)

    return _change(repository, names, pinned, now, events)


def unpin(repository: str, names: Sequence[str], *, now: datetime, events: Events) -> Pins:
    """Let snapshots go again; one that a mass change has pinned is acknowledged so, and keeps
    the pin that it had before.  Raises NotInHistory, Locked; then nothing was done."""
    return _change(
        repository, names, lambda snapshot: guards.acknowledged(snapshot.pinned), now, events
    )


def unpinning(repository: bytes, name: str) -> str:
    """The command that takes a pin away, for a person."""
    return f"mirrorback unpin {shlex.quote(os.fsdecode(repository))} {name}"


def _change(
    repository: str,
    names: Sequence[str],
    wanted: Callable[[Snapshot], str | None],
    now: datetime,
    events: Events,
) -> Pins:
    if not names:
        raise UsageError("name the snapshots; `mirrorback snapshots` lists them")
    with opened(repository) as repo, removing(repo, now, events) as removal:
        # What an earlier run has begun is completed, and a full drive is no hindrance.
        removal.recover()
        catalog = removal.catalog
        chosen = removable.named(repo, catalog, names)
        done = [Pinned(one, replace(one, pinned=wanted(one))) for one in chosen]
        changes = {one.after.id: one.after.pinned for one in done if one.changed}
        if changes:
            removal.insist(lambda: record.pin(catalog, changes))
        holding = [one for one in catalog.snapshots() if guards.holds_thinning(one.pinned)]
    return Pins(done, holding)
