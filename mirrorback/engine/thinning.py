"""Thinning: a policy applied to a repository, after a backup, to make room for one, or by hand."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from mirrorback.engine.events import Events
from mirrorback.engine.history import History
from mirrorback.engine.pins import unpinning
from mirrorback.engine.removal import Fate, Removal, freed_by
from mirrorback.engine.space import Freed
from mirrorback.errors import Damaged, NoSpace, Refused, UsageError
from mirrorback.model import Snapshot
from mirrorback.plan import retention
from mirrorback.plan.retention import FOR_SPACE, Policy, read_policy
from mirrorback.plan.spans import instant
from mirrorback.store import probe, usage
from mirrorback.store.catalog import Catalog
from mirrorback.store.repository import Repository

__all__ = ["NightlyThinning", "Policy", "Thinned", "read_policy", "thin", "would_thin"]


@dataclass
class Thinned:
    """What a policy has come to: the fate of every snapshot there was, oldest first; bytes free
    on the drive then, and those asked for."""

    fates: list[Fate] = field(default_factory=list)
    free: int = 0
    wanted: int = 0
    damage: Damaged | None = None  # for which some had to stay

    @property
    def removed(self) -> list[Fate]:
        """Those that went, or would."""
        return [fate for fate in self.fates if not fate.keep]

    @property
    def shortfall(self) -> str | None:
        """Where less is free than was asked for, and nothing more may go: that, in words."""
        if self.free >= self.wanted:
            return None
        return (
            f"{self.free:,} bytes are free, not {self.wanted:,} as --min-free asks for, and all"
            " snapshots that are left have to stay: unpin some, or free space"
        )


def require_not_held(repo: Repository, snapshots: Sequence[Snapshot]) -> None:
    """Raises Refused where a mass change, which nobody has acknowledged, holds all thinning."""
    held = retention.held_by(snapshots)
    if held is not None:
        raise Refused(
            f"no snapshot is removed by policy while {held.name} is pinned ({held.pinned}): see"
            f" what happened, then `{unpinning(repo.path, held.name)}`"
        )


def require_sound(catalog: Catalog) -> None:
    """Raises Damaged where it is not sure when snapshots were made, and which are pinned."""
    if not usage.snapshots_are_sound(catalog):
        raise Damaged(
            "no snapshot is removed by policy, for what the catalog says of them is damaged:"
            " `mirrorback rebuild` makes a new one from the folders"
        )


def wanted_free(repo: Repository, policy: Policy) -> int:
    """Bytes that are to be free by a policy, 0 without such a rule.  Raises UsageError where
    the drive is not even that large."""
    if policy.min_free is None:
        return 0
    total = probe.total_space(repo.fd)
    wanted = policy.min_free.of(total)
    if wanted >= total:
        raise UsageError(
            f"--min-free {policy.min_free}: the whole drive has no more than {total:,} bytes"
        )
    return wanted


def fates_of(snapshots: Sequence[Snapshot], policy: Policy, now: datetime) -> list[retention.Fate]:
    """The fates by age at a moment, which is aware, in local time."""
    assert now.tzinfo is not None
    return retention.fates(snapshots, policy, now.tzinfo, instant(now))


def thin(removal: Removal, policy: Policy, now: datetime) -> Thinned:
    """Apply a policy.  Raises Refused, UsageError, NoSpace, Damaged, OSError, and the catalog's
    errors."""
    catalog, repo = removal.catalog, removal.repo
    require_sound(catalog)
    snapshots = catalog.snapshots()
    require_not_held(repo, snapshots)
    thinned = Thinned(wanted=wanted_free(repo, policy))
    fates = _fates_now(removal, policy, now)
    going = [fate.snapshot for fate in fates if not fate.keep]
    try:
        removal.remove(going)
    except NoSpace:
        if policy.min_free is None:
            raise
    if policy.min_free is not None:
        free_until(removal, lambda: _is_enough(repo, catalog, thinned))
        waiting = [one for one in going if one in removal.remaining()]
        if waiting:  # there is room for that by now
            removal.remove(waiting)
    thinned.fates = removal.told([_told(fate, removal.freed) for fate in fates])
    thinned.damage = removal.damage
    return thinned


def _fates_now(
    removal: Removal, policy: Policy, now: datetime, coming: Snapshot | None = None
) -> list[retention.Fate]:
    """The fates by age, where what is being read stays: so does what stands in for that."""
    while True:
        fates = fates_of(with_coming(removal.remaining(), coming), policy, now)
        if not removal.leave_read([fate.snapshot for fate in fates if not fate.keep]):
            return fates


def free_until(removal: Removal, enough: Callable[[], bool]) -> None:
    """Remove the oldest, one at a time, until there is enough, or nothing more may go.  One for
    whose removal there is no room is tried again when another has gone.  Raises NoSpace where
    that does not help, OSError, and the catalog's errors."""
    stuck: dict[int, NoSpace] = {}
    while True:
        removal.settle()
        if enough():
            return
        snapshots = removal.remaining()
        going = retention.next_to_go(
            [replace(one, pinned="") if one.id in stuck else one for one in snapshots]
        )
        if going is None:
            for error in stuck.values():
                raise error
            return
        try:
            removal.remove([going])
            stuck.clear()
        except NoSpace as error:
            stuck[going.id] = error


def _is_enough(repo: Repository, catalog: Catalog, thinned: Thinned) -> bool:
    thinned.free = probe.settled_free_space(repo.fd)
    if thinned.free < thinned.wanted:
        return False
    catalog.reseal()  # the last that this run writes: it has to fit in as well
    thinned.free = probe.free_space(repo.fd)[0]
    return thinned.free >= thinned.wanted


def would_thin(
    repo: Repository,
    catalog: Catalog,
    policy: Policy,
    now: datetime,
    *,
    coming: Snapshot | None = None,
    needed: int = 0,
) -> Thinned:
    """What applying a policy would come to; what is free then is a prediction.  `coming` is a
    snapshot that will be the newest, which takes `needed` bytes.  Raises Refused, UsageError,
    Damaged."""
    require_sound(catalog)
    snapshots = with_coming(catalog.snapshots(), coming)
    require_not_held(repo, snapshots)
    thinned = Thinned(wanted=wanted_free(repo, policy))
    fates = fates_of(snapshots, policy, now)
    staying = [fate.snapshot for fate in fates if fate.keep]
    going = [fate.snapshot for fate in fates if not fate.keep]
    for_space = retention.may_go(staying) if thinned.wanted else []
    sizes = freed_by(History(repo, catalog, now, b"/"), going + for_space)
    frees = {one.id: size for one, size in zip(going, sizes, strict=False)}
    thinned.free = probe.free_space(repo.fd)[0] - needed
    thinned.free += sum(one.bytes for one in frees.values())
    for oldest, size in zip(for_space, sizes[len(going) :], strict=True):
        if thinned.free >= thinned.wanted:
            break
        frees[oldest.id] = size
        thinned.free += size.bytes
    thinned.fates = [_told(fate, frees) for fate in fates if fate.snapshot != coming]
    return thinned


def with_coming(snapshots: Sequence[Snapshot], coming: Snapshot | None) -> list[Snapshot]:
    """The snapshots there will be when another one is the mirror."""
    if coming is None:
        return list(snapshots)
    return [*(replace(snapshot, current=False) for snapshot in snapshots), coming]


def _told(fate: retention.Fate, freed: Mapping[int, Freed]) -> Fate:
    snapshot = fate.snapshot
    if snapshot.id not in freed:
        return Fate(snapshot.name, True, fate.reasons)
    reasons = (FOR_SPACE,) if fate.keep else fate.reasons
    return Fate.of_going(snapshot.name, reasons, freed[snapshot.id])


class NightlyThinning:
    """The thinning of one backup: before it, where it does not fit, and after it."""

    def __init__(self, repo: Repository, policy: Policy | None, now: datetime, events: Events):
        self._repo = repo
        self._policy = policy
        self._now = now
        self._events = events
        self.removed: list[Fate] = []
        if policy is not None:
            wanted_free(repo, policy)  # what is impossible is told before anything is done

    def make_room(
        self,
        catalog: Catalog,
        fits: Callable[[], bool],
        missing: Callable[[], int],
        *,
        held: bool,
    ) -> None:
        """Where a backup does not fit, let go those that would go after it, then, if there is a
        least free space, the oldest, until it fits or nothing more may go; but none where the
        bytes `missing` are more than all of them would free.  The mirror stays.
        `held`: it is a mass change.  Raises OSError, and the catalog's errors."""
        policy = self._policy
        if policy is None or fits():
            return
        try:
            require_sound(catalog)
        except Damaged as error:
            self._events.warning(str(error))
            return
        snapshots = catalog.snapshots()
        if held or retention.held_by(snapshots) is not None:
            self._events.warning(
                "no snapshot is removed to make room: so many files have changed that all are kept"
                " until you have seen to it"
            )
            return
        coming = self._coming(snapshots[-1], incomplete=True)  # for all that is known yet
        mirror = snapshots[-1].id
        with (
            catalog.released(),
            Removal(self._repo, catalog, self._now, self._events) as removal,
        ):
            fates = _fates_now(removal, policy, self._now, coming)
            going = [f.snapshot for f in fates if not f.keep and f.snapshot.id != mirror]
            with contextlib.suppress(NoSpace):  # then it does not fit, which is told
                removal.remove(going)
            removal.settle()
            if policy.min_free is not None and not self._is_in_vain(removal, missing()):
                with contextlib.suppress(NoSpace):
                    free_until(removal, fits)
            freed = removal.freed
            self.removed += [_told(f, freed) for f in fates if f.snapshot.id in freed]

    def _is_in_vain(self, removal: Removal, missing: int) -> bool:
        if not missing:
            return False
        going = removal.predicted(retention.may_go(removal.remaining())).values()
        would = sum(one.bytes for one in going)
        if would < missing:
            self._events.warning(
                f"no snapshot is removed to make room: all that may go would free {would:,} bytes,"
                f" and {missing:,} are missing"
            )
        return would < missing

    def after(self, catalog: Catalog) -> None:
        """Apply the policy, now that the backup is made; what hinders that is a warning.
        Raises OSError."""
        if self._policy is None:
            return
        with Removal(self._repo, catalog, self._now, self._events) as removal:
            try:
                thinned = thin(removal, self._policy, self._now)
            except (Refused, NoSpace, Damaged) as error:
                self._events.warning(str(error))
                return
        self.removed += thinned.removed
        for trouble in (thinned.damage, thinned.shortfall):
            if trouble is not None:
                self._events.warning(str(trouble))

    def would(self, catalog: Catalog, *, new: bool, incomplete: bool, needed: int) -> None:
        """What it would do after a backup that would make a `new` snapshot, perhaps an
        `incomplete` one, and take `needed` bytes."""
        if self._policy is None:
            return
        mirror = catalog.snapshots()[-1]
        coming = self._coming(mirror, incomplete=incomplete) if new else None
        try:
            thinned = would_thin(
                self._repo, catalog, self._policy, self._now, coming=coming, needed=needed
            )
        except (Refused, Damaged) as error:
            self._events.warning(str(error))
            return
        self.removed += thinned.removed
        if thinned.shortfall is not None:
            self._events.warning(f"afterwards {thinned.shortfall}")

    def _coming(self, mirror: Snapshot, *, incomplete: bool) -> Snapshot:
        """The snapshot that the backup will be, as far as a policy asks."""
        return Snapshot(
            id=mirror.id + 1,
            name="this backup",
            time=instant(self._now),
            offset=0,
            current=True,
            incomplete=incomplete,
        )
