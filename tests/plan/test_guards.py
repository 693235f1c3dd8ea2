"""What a plan must not do without being asked to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.plan.guards import (
    BLOCK,
    MARGIN,
    MASS_CHANGE,
    MASS_LEAST,
    holds_thinning,
    mass_change,
    room_needed,
)

COUNT = st.integers(0, 10**7)


@pytest.mark.parametrize(
    ("files", "removed", "changed", "mass"),
    [
        (0, 0, 0, False),
        (999, 999, 0, False),
        (999, 500, 499, False),
        (1000, 0, 0, False),
        (1000, 500, 0, False),
        (1000, 501, 0, True),
        (1000, 0, 500, False),
        (1000, 0, 501, True),
        (1000, 250, 250, False),
        (1000, 250, 251, True),
        (1000, 1000, 0, True),
        (1001, 500, 0, False),
        (1001, 501, 0, True),
        (2_000_000, 1_000_000, 0, False),
        (2_000_000, 1_000_000, 1, True),
    ],
)
def test_more_than_half_of_at_least_a_thousand_is_a_mass_change(
    files: int, removed: int, changed: int, mass: bool
) -> None:
    assert mass_change(files, removed, changed) is mass


@given(st.integers(0, MASS_LEAST - 1), COUNT, COUNT)
def test_a_small_mirror_has_no_mass_change(files: int, removed: int, changed: int) -> None:
    assert mass_change(files, removed, changed) is False


@given(st.integers(MASS_LEAST, 10**7), COUNT, COUNT)
def test_removed_and_changed_count_alike(files: int, removed: int, changed: int) -> None:
    assert mass_change(files, removed, changed) is mass_change(files, changed, removed)
    assert mass_change(files, removed, changed) is (removed + changed > files / 2)


@pytest.mark.parametrize(
    ("new_files", "new_bytes", "folders", "rows", "size", "inodes"),
    [
        (0, 0, 0, 0, 8_388_608, 16),
        (1, 0, 0, 0, 8_392_704, 17),
        (0, 1, 0, 0, 8_388_609, 16),
        (0, 0, 1, 0, 8_392_704, 17),
        (0, 0, 0, 1, 8_389_120, 16),
        (3, 1_000_000, 40, 50, 9_590_336, 59),
    ],
)
def test_room_for_a_snapshot(
    new_files: int, new_bytes: int, folders: int, rows: int, size: int, inodes: int
) -> None:
    assert room_needed(new_files, new_bytes, folders, rows) == (size, inodes)


@given(COUNT, COUNT, COUNT, COUNT)
def test_room_is_never_less_than_what_is_written(
    new_files: int, new_bytes: int, folders: int, rows: int
) -> None:
    size, inodes = room_needed(new_files, new_bytes, folders, rows)
    assert size >= new_bytes + BLOCK * (new_files + folders) + MARGIN
    assert inodes > new_files + folders


@pytest.mark.parametrize(
    ("pinned", "holds"),
    [(None, False), ("", False), ("by hand", False), (f"{MASS_CHANGE} on 2026-11-22: 2", True)],
)
def test_only_the_pin_of_a_mass_change_holds_thinning(pinned: str | None, holds: bool) -> None:
    assert holds_thinning(pinned) is holds
