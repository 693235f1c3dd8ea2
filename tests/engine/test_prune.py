"""Snapshots go by a policy: by hand, after a backup, and before one that does not fit."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import sqlite3
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from program import complaint, run
from runs import IMAGE, LargeNights, Nights, change_pages
from trees import describe, require_same

from mirrorback.engine import room, thinning
from mirrorback.engine.removal import Removal
from mirrorback.errors import Damaged, NoSpace, Refused, UsageError
from mirrorback.plan.guards import MASS_CHANGE
from mirrorback.plan.retention import FOR_SPACE, NOT_KEPT, Policy
from mirrorback.plan.sizes import Room
from mirrorback.store import probe, record
from mirrorback.store.catalog import Catalog


def fill(nights: Nights, count: int, **options: Any) -> list[str]:
    """So many nights, each with a file of its own content; the snapshots' names."""
    names = []
    (nights.source / "same").write_text("the same")
    for number in range(count):
        (nights.source / "f").write_bytes(bytes([number]) * 50_000)
        time.sleep(0.02)
        name = nights.backup(**options).summary.snapshot
        assert name is not None
        names.append(name)
    return names


def names_of(nights: Nights) -> list[str]:
    with nights.history() as history:
        return [snapshot.name for snapshot in history.snapshots()]


def mark(nights: Nights, name: str, pinned: str | None = None, incomplete: bool = False) -> None:
    catalog = Catalog.open(bytes(nights.repository / ".mirrorback" / "catalog.db"), write=True)
    with catalog.transaction() as db:
        db.execute(
            "UPDATE snapshot SET pinned = ?, incomplete = ? WHERE name = ?",
            (pinned, int(incomplete), name),
        )
    catalog.close()


# --- by hand ---------------------------------------------------------------------------------


def test_what_no_rule_keeps_goes_and_the_rest_is_as_it_was(nights: Nights) -> None:
    names = fill(nights, 6)
    before = {name: describe(nights.repository / name) for name in names[:-1]}
    thinned = nights.prune(last=2, daily=3)
    assert [(f.name, f.keep) for f in thinned.fates] == [(n, n in names[3:]) for n in names]
    assert all(f.reasons == (NOT_KEPT,) and 50_000 <= f.frees < 60_000 for f in thinned.removed)
    assert [f.frees for f in thinned.fates if f.keep] == [0, 0, 0]
    assert names_of(nights) == names[3:]
    assert [folder.name for folder in nights.folders()] == names[3:-1]
    for name in names[3:-1]:
        require_same(before[name], describe(nights.repository / name))
    assert nights.problems() == []
    assert nights.prune(last=2, daily=3).removed == []


def test_a_dry_run_says_the_same_and_touches_nothing(nights: Nights) -> None:
    names = fill(nights, 5)
    before = describe(nights.repository)
    said = nights.prune(last=2, dry_run=True)
    assert describe(nights.repository) == before
    assert names_of(nights) == names
    assert nights.prune(last=2).fates == said.fates


def test_pins_and_the_last_complete_one_stay(nights: Nights) -> None:
    names = fill(nights, 5)
    mark(nights, names[0], pinned="by hand")
    mark(nights, names[4], incomplete=True)
    mark(nights, names[3], incomplete=True)
    thinned = nights.prune(none=True)
    assert [f.name for f in thinned.fates if f.keep] == [names[0], names[2], names[4]]
    assert names_of(nights) == [names[0], names[2], names[4]]


def test_delete_leaves_the_last_complete_one_before_an_incomplete_one(nights: Nights) -> None:
    names = fill(nights, 5)
    mark(nights, names[2], incomplete=True)
    mark(nights, names[4], incomplete=True)
    with pytest.raises(Refused, match=f"{names[1]} is the last complete .* {names[2]} with it"):
        nights.delete(names[0], names[1])
    with pytest.raises(Refused, match=f"{names[3]} is the last complete .* make a complete backup"):
        nights.delete(names[3])
    assert names_of(nights) == names
    nights.delete(names[0], names[1], names[2])
    assert names_of(nights) == names[3:]


@pytest.mark.parametrize("policy", [{"none": True}, {"min_free": Room(bytes=900_000)}])
def test_one_that_is_being_read_keeps_the_last_complete_one_before_it(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, policy: dict[str, Any]
) -> None:
    """An incomplete snapshot is left for the next time: what stands in for it has to be, too."""
    names = fill(nights, 5)
    mark(nights, names[2], incomplete=True)
    Gauge(nights, monkeypatch)
    fd = os.open(nights.repository / names[2], os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    thinned = nights.prune(**policy)
    assert names_of(nights) == names[1:3] + names[4:]
    assert [f.keep for f in thinned.fates] == [False, True, True, False, True]
    assert "being read" in thinned.fates[2].reasons[0]
    assert thinned.fates[1].reasons[-1] == "last complete before an incomplete one"
    os.close(fd)
    nights.prune(**policy)
    assert names_of(nights) == names[-1:]


def test_a_mass_change_holds_all_pruning(nights: Nights) -> None:
    names = fill(nights, 3)
    mark(nights, names[0], pinned=f"{MASS_CHANGE} on 2026-11-01: many")
    for dry_run in (False, True):
        with pytest.raises(Refused, match=f"unpin.*{names[0]}"):
            nights.prune(last=1, dry_run=dry_run)
    assert names_of(nights) == names
    mark(nights, names[0])
    nights.prune(last=1)
    assert names_of(nights) == names[-1:]


def test_two_at_once(nights: Nights) -> None:
    names = fill(nights, 3)
    with (nights.repository / ".mirrorback" / "lock").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        complaint("prune", nights.repository, "--keep-last", "1", code=11)
        run("prune", nights.repository, "--keep-last", "1", "-n")
    assert names_of(nights) == names


def test_an_empty_repository_and_one_with_the_mirror_only(nights: Nights) -> None:
    run("init", nights.repository, "--source", nights.source)
    assert nights.prune(last=1).fates == []
    fill(nights, 1)
    assert [f.keep for f in nights.prune(none=True).fates] == [True]


def test_no_rule_at_all(nights: Nights) -> None:
    fill(nights, 1)
    with pytest.raises(UsageError, match="--keep-last"):
        thinning_without_policy(nights)


def thinning_without_policy(nights: Nights) -> None:
    from mirrorback.engine.prune import prune

    prune(str(nights.repository), None, dry_run=False, now=nights.now, events=nights.heard)


# --- space ---------------------------------------------------------------------------------------


class Gauge:
    """A drive of a million bytes, of which each snapshot takes a tenth."""

    def __init__(self, nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
        self._nights = nights
        monkeypatch.setattr(probe, "total_space", lambda fd: 1_000_000)
        monkeypatch.setattr(probe, "settled_free_space", self.free)
        monkeypatch.setattr(probe, "free_space", lambda fd: (self.free(fd), None))

    def free(self, _fd: int) -> int:
        return 1_000_000 - 100_000 * (len(self._nights.folders()) + 1)


def test_the_oldest_go_until_enough_is_free(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = fill(nights, 8)
    Gauge(nights, monkeypatch)
    thinned = nights.prune(min_free=Room(bytes=500_000))
    assert names_of(nights) == names[3:]
    assert [f.reasons for f in thinned.removed] == [(FOR_SPACE,)] * 3
    assert (thinned.free, thinned.wanted, thinned.shortfall) == (500_000, 500_000, None)
    assert nights.prune(min_free=Room(bytes=500_000)).removed == []


def test_space_comes_after_the_rules_and_before_what_they_keep(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = fill(nights, 8)
    mark(nights, names[0], pinned="by hand")
    Gauge(nights, monkeypatch)
    thinned = nights.prune(last=6, min_free=Room(bytes=500_000))
    assert names_of(nights) == [names[0], *names[4:]]
    assert {f.name: f.reasons for f in thinned.removed} == {
        names[1]: (NOT_KEPT,),
        names[2]: (FOR_SPACE,),
        names[3]: (FOR_SPACE,),
    }


def test_space_that_cannot_be_had(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    names = fill(nights, 4)
    mark(nights, names[1], pinned="by hand")
    Gauge(nights, monkeypatch)
    thinned = nights.prune(min_free=Room(bytes=900_000))
    assert names_of(nights) == [names[1], names[3]]
    assert thinned.free == 800_000
    assert "800,000" in (thinned.shortfall or "") and "900,000" in (thinned.shortfall or "")


def test_what_is_more_than_the_drive_is_refused_first(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = fill(nights, 3)
    Gauge(nights, monkeypatch)
    for dry_run in (False, True):
        with pytest.raises(UsageError, match="whole drive"):
            nights.prune(none=False, min_free=Room(bytes=1_000_000), dry_run=dry_run)
    with pytest.raises(UsageError, match="whole drive"):
        nights.backup(policy=Policy(min_free=Room(bytes=1 << 60)), always=True)
    assert names_of(nights) == names


def test_a_dry_run_predicts_space(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    names = fill(nights, 5)
    monkeypatch.setattr(probe, "free_space", lambda fd: (1_000_000, None))
    monkeypatch.setattr(probe, "total_space", lambda fd: 10_000_000)
    each = nights.prune(last=1, dry_run=True).removed[0].frees
    assert 50_000 <= each <= 70_000
    for count in (0, 1, 2, 4):
        wanted = 1_000_000 + count * each - 1000
        said = nights.prune(min_free=Room(bytes=wanted), dry_run=True)
        assert [fate.name for fate in said.removed] == names[:count]
        assert all(fate.reasons == (FOR_SPACE,) for fate in said.removed)
        assert said.shortfall is None and said.free >= wanted
    assert nights.prune(min_free=Room(bytes=2_000_000), dry_run=True).shortfall
    assert names_of(nights) == names


# --- after a backup -----------------------------------------------------


def test_a_backup_thins_when_it_is_done(nights: Nights) -> None:
    names = fill(nights, 6, policy=Policy(last=3))
    assert names_of(nights) == names[3:]
    (nights.source / "f").write_text("other")
    summary = nights.backup(policy=Policy(last=3)).summary
    assert summary.snapshots_removed == [names[3]]
    assert summary.bytes_freed >= 50_000
    assert names_of(nights) == [*names[4:], summary.snapshot]
    assert nights.problems() == []


def test_a_night_without_changes_thins_as_well(nights: Nights) -> None:
    names = fill(nights, 4)
    summary = nights.backup(policy=Policy(last=2)).summary
    assert summary.unchanged and summary.snapshots_removed == names[:2]


def test_without_a_policy_nothing_goes(nights: Nights) -> None:
    names = fill(nights, 4)
    assert nights.backup(always=True).summary.snapshots_removed == []
    assert names_of(nights)[:4] == names


@pytest.mark.parametrize("changed", [True, False])
def test_a_dry_run_of_a_backup_says_what_would_go(nights: Nights, changed: bool) -> None:
    names = fill(nights, 5)
    if changed:
        (nights.source / "f").write_text("other")
    summary = nights.backup(init=False, dry_run=True, policy=Policy(last=3)).summary
    assert names_of(nights) == names
    assert summary.snapshots_removed == names[: 3 if changed else 2]
    nights.now -= timedelta(days=1)
    assert nights.backup(policy=Policy(last=3)).summary.snapshots_removed == (
        summary.snapshots_removed
    )


def many(nights: Nights, text: str) -> None:
    folder = nights.source / "d"
    folder.mkdir(exist_ok=True)
    for number in range(1100):
        (folder / f"{number}").write_text(text)
    time.sleep(0.03)


def test_a_mass_change_holds_the_thinning_of_backups(nights: Nights) -> None:
    many(nights, "mine")
    names = fill(nights, 3)
    many(nights, "encrypted!")
    policy = Policy(last=1)
    said = nights.backup(init=False, dry_run=True, policy=policy).summary
    assert said.snapshots_removed == []
    for _ in range(2):
        summary = nights.backup(policy=policy).summary
        assert summary.snapshots_removed == []
        assert any("unpin" in message for message, _path in nights.heard.warnings)
        assert len(nights.heard.warnings) == 1
    assert names_of(nights)[:3] == names
    mark(nights, names[2])
    assert nights.backup(policy=policy).summary.snapshots_removed == names


def test_trouble_while_thinning_does_not_undo_a_backup(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = fill(nights, 3)

    def damaged(*_rest: object) -> None:
        raise Damaged("a version is damaged")

    monkeypatch.setattr(Removal, "remove", damaged)
    (nights.source / "f").write_text("other")
    summary = nights.backup(policy=Policy(last=1)).summary
    assert summary.files_changed == 1 and summary.snapshots_removed == []
    assert ("a version is damaged", None) in nights.heard.warnings
    assert len(names_of(nights)) == len(names) + 1


def damaged_in_the_middle(large: LargeNights) -> list[str]:
    """Six nights of one large file; the delta of the second is damaged, on which that of the
    first, which is pinned, depends."""
    image = large.source / "image"
    names = []
    for night in range(6):
        if night:
            change_pages(image, night)
        else:
            image.write_bytes(random.Random(1).randbytes(IMAGE))
        time.sleep(0.02)
        names.append(large.backup().summary.snapshot or "")
    mark(large, names[0], pinned="by hand")
    with (large.repository / names[1] / "image.rdiff.zst").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 100)
    return names


@pytest.mark.parametrize("damage", ["time = time + 864000000000000", "pinned = 'mass'"])
def test_nothing_goes_by_what_is_damaged(nights: Nights, damage: str) -> None:
    """A flipped bit in a snapshot's time, or in its pin, must not be what it goes for.  The
    catalog's seal is gone, as when a run was killed."""
    names = fill(nights, 4)
    mark(nights, names[1], pinned="mine")
    inner = nights.repository / ".mirrorback"
    with contextlib.closing(sqlite3.connect(inner / "catalog.db", isolation_level=None)) as db:
        db.execute(f"UPDATE snapshot SET {damage} WHERE name = ?", (names[1],))
    (inner / "catalog.blake3").unlink()
    for dry_run in (True, False):
        with pytest.raises(Damaged, match="rebuild"):
            nights.prune(last=1, dry_run=dry_run)
    summary = nights.backup(policy=Policy(last=1), always=True).summary
    assert summary.snapshots_removed == []
    assert any("rebuild" in message for message, _path in nights.heard.warnings)
    assert names_of(nights)[:4] == names


def test_what_cannot_go_for_damage_keeps_no_other(large: LargeNights) -> None:
    names = damaged_in_the_middle(large)
    said = run("prune", large.repository, "--keep-last", "1", "--json", code=4)
    assert "verify" in said.err
    assert [fate["name"] for fate in said.json if fate["keep"]] == [*names[:2], names[5]]
    assert names_of(large) == [*names[:2], names[5]]
    summary = large.backup(policy=Policy(last=1), always=True).summary
    assert summary.snapshots_removed == names[5:]
    assert len(large.heard.warnings) == 1


def test_room_is_made_in_spite_of_damage(
    large: LargeNights, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = damaged_in_the_middle(large)
    short(large, monkeypatch, 3)
    (large.source / "f").write_text("other")
    summary = large.backup(policy=Policy(last=5, min_free=Room(bytes=1))).summary
    assert summary.snapshots_removed == names[2:4]
    assert (large.current / "f").read_text() == "other"


def test_too_little_free_after_a_backup_is_a_warning(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(nights, 2)
    Gauge(nights, monkeypatch)
    monkeypatch.setattr(room, "require", lambda *rest: None)
    summary = nights.backup(policy=Policy(min_free=Room(bytes=950_000)), always=True).summary
    assert len(summary.snapshots_removed) == 2
    assert any("900,000" in message for message, _path in nights.heard.warnings)


# --- before a backup that does not fit -----------------------------------------------------


def short(nights: Nights, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """A drive that takes no backup while it has more than so many dated folders."""

    def require(*_rest: object) -> None:
        if len(nights.folders()) > most:
            raise NoSpace("no room")

    monkeypatch.setattr(room, "require", require)


def test_a_backup_that_does_not_fit_thins_by_its_policy_first(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = fill(nights, 5)
    short(nights, monkeypatch, 2)
    (nights.source / "f").write_text("other")
    summary = nights.backup(policy=Policy(last=3)).summary
    assert names_of(nights) == [*names[3:], summary.snapshot]
    assert summary.snapshots_removed == names[:3]
    assert (nights.current / "f").read_text() == "other"
    assert nights.problems() == []


def test_then_the_oldest_go_until_it_fits_if_space_was_asked_for(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = fill(nights, 6)
    short(nights, monkeypatch, 1)
    (nights.source / "f").write_text("other")
    summary = nights.backup(policy=Policy(last=5, min_free=Room(bytes=1))).summary
    assert summary.snapshots_removed == names[:4]
    assert names_of(nights) == [*names[4:], summary.snapshot]
    assert nights.problems() == []


def test_or_not_at_all_and_then_nothing_is_copied(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = fill(nights, 5)
    short(nights, monkeypatch, 1)
    (nights.source / "f").write_text("other")
    with pytest.raises(NoSpace):
        nights.backup(policy=Policy(last=4))
    assert names_of(nights) == names[2:]
    assert not (nights.repository / ".mirrorback" / "incoming").exists()
    short(nights, monkeypatch, -1)
    with pytest.raises(NoSpace):
        nights.backup(policy=Policy(none=True))
    assert names_of(nights) == names[-1:]  # the mirror stays
    monkeypatch.undo()
    assert nights.backup(policy=Policy(last=4)).summary.files_changed == 1
    assert nights.problems() == []


@pytest.mark.parametrize("most", [1, 99])  # dated folders with which a backup fits
@pytest.mark.parametrize("cut", ["deleting", "deleted", "done"])
def test_killed_while_it_thins(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, cut: str, most: int
) -> None:
    """Before the backup or after it: the next night goes on, and nothing that stays has changed."""
    names = fill(nights, 5)
    before = {name: describe(nights.repository / name) for name in names[:-1]}
    (nights.source / "f").write_text("other")
    time.sleep(0.03)
    number = 0

    def killed(*_rest: object, **_more: object) -> None:
        nonlocal number
        number += 1
        if number == 2:  # the second snapshot that goes
            raise KeyboardInterrupt
        original(*_rest, **_more)

    where: Any = record
    what = "deleted" if cut == "done" else cut
    original = getattr(where, what)
    policy = Policy(last=3)
    with monkeypatch.context() as patch:
        short(nights, patch, most)
        patch.setattr(where, what, killed)
        with pytest.raises(KeyboardInterrupt):
            nights.backup(policy=policy)
    for folder in nights.folders():
        if folder.name in before:
            require_same(before[folder.name], describe(folder))
    assert names[2] in names_of(nights) and names[0] not in names_of(nights)
    found = nights.backup(policy=policy).summary
    assert (nights.current / "f").read_text() == "other"
    assert names_of(nights) == [*names[-2:], found.snapshot]
    assert nights.problems() == []


def test_no_room_is_made_for_a_mass_change(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    """What encrypts a source must not get history removed to make room for it."""
    many(nights, "mine")
    names = fill(nights, 3)
    many(nights, "encrypted!")
    short(nights, monkeypatch, 0)
    with pytest.raises(NoSpace):
        nights.backup(policy=Policy(last=1, min_free=Room(bytes=1)))
    assert names_of(nights) == names
    assert len(nights.heard.warnings) == 1


def test_room_is_made_with_moves_and_hard_links_in_flight(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the survey has found still holds when old snapshots have gone meanwhile."""
    (nights.source / "d").mkdir()
    (nights.source / "d" / "a").write_text("a")
    (nights.source / "b").hardlink_to(nights.source / "d" / "a")
    names = fill(nights, 4)
    (nights.source / "d").rename(nights.source / "e")
    (nights.source / "f").write_bytes(bytes([1]) * 50_000)  # as it was two nights ago
    (nights.source / "same").chmod(0o600)
    time.sleep(0.03)
    short(nights, monkeypatch, 0)
    summary = nights.backup(policy=Policy(none=True)).summary
    assert summary.snapshots_removed == names[:3] + names[3:]
    require_same(describe(nights.source), describe(nights.current))
    assert nights.problems() == []
    nights.restore(tmp_path / "back")
    require_same(describe(nights.source), describe(tmp_path / "back"))


def test_nothing_is_measured_where_it_fits(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    names = fill(nights, 3)

    def never(*_rest: object, **_more: object) -> None:
        raise AssertionError

    monkeypatch.setattr(thinning, "free_until", never)
    (nights.source / "f").write_text("other")
    assert nights.backup(policy=Policy(last=3)).summary.snapshots_removed == names[:1]
