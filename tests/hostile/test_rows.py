"""Rows of the catalog that an attacker has written, with right checks and a right seal.

How many are tried is set by MIRRORBACK_EXAMPLES.
"""

from __future__ import annotations

import os
import random

import pytest
from hostility import ALL, READING, RESTORING, WRITING, Attack, checked, mutate
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("MIRRORBACK_EXAMPLES", "12"))
ALWAYS_THE_SAME = "MIRRORBACK_EXAMPLES" not in os.environ


def directory(attack: Attack, name: bytes) -> int:
    """The number of a directory."""
    with attack.database() as db:
        (number,) = db.execute("SELECT id FROM directory WHERE name = ?", (name,)).fetchone()
        assert isinstance(number, int)
        return number


def test_a_source_that_is_in_a_folder_of_its_own(attack: Attack) -> None:
    """Each way down leads to the top again."""
    inside = directory(attack, b"d")
    with attack.database() as db:
        db.execute("UPDATE directory SET parent = ?, name = x'6f' WHERE id = 1", (inside,))
        db.execute(
            "INSERT INTO entry SELECT NULL, ?, x'6f', 2, first, last, object, id, NULL, NULL, 0, 0"
            " FROM entry WHERE dir = 0",
            (inside,),
        )
        checked(db)
    attack.require_harmless(*ALL)


def test_a_folder_that_is_in_itself(attack: Attack) -> None:
    inside, moved = directory(attack, b"d"), directory(attack, b"moved")
    with attack.database() as db:
        db.execute("UPDATE directory SET parent = ? WHERE id = ?", (moved, inside))
        db.execute("UPDATE directory SET parent = ? WHERE id = ?", (inside, moved))
        checked(db)
    attack.require_harmless(*READING, *RESTORING, *WRITING[:2])


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE owner SET uid = 1 << 40",
        "UPDATE owner SET uid = -2",
        "UPDATE owner SET user = char(27) || '[31mroot', grp = char(155)",
        "UPDATE object SET mode = 1 << 40",
        "UPDATE object SET mode = 2541 | 49152",
        "UPDATE object SET size = (1 << 62) WHERE kind = 1",
        "UPDATE object SET size = -1",
        "UPDATE object SET mtime = x'7fffffffffffffffffffffffffffffff'",
        "UPDATE object SET mtime = x'ff'",
        "UPDATE object SET mtime = 1e300",
        "UPDATE object SET rdev = -1, kind = 6",
        "UPDATE object SET rdev = (1 << 63) - 1, kind = 7",
        "UPDATE object SET flags = -1",
        "UPDATE object SET flags = (1 << 63) - 1",
        "UPDATE object SET target = NULL",
        "UPDATE object SET target = x'612f0062' WHERE kind = 3",
        "UPDATE object SET target = x'' WHERE kind = 3",
        "UPDATE object SET target = zeroblob(5000000) WHERE kind = 3",
        "UPDATE object SET kind = 3, target = x'2f6574632f706173737764'",
        "UPDATE object SET kind = 2",
        "UPDATE object SET kind = 9",
        "UPDATE object SET digest = x'00'",
        "UPDATE object SET digest = 'text', sparse = 3",
        "UPDATE object SET drive = 3",
        "UPDATE object SET drive = 7",
        "UPDATE entry SET kind = 2",
        "UPDATE entry SET kind = 1",
        "UPDATE entry SET object = 1",
        "UPDATE entry SET dir = 1 WHERE dir > 1",
        "UPDATE entry SET dir = 0",
        "UPDATE entry SET first = 1, last = NULL",
        "UPDATE entry SET from_dir = 1 << 60, from_name = x'2e2e'",
        "UPDATE snapshot SET time = (1 << 62)",
        "UPDATE snapshot SET time = x'ffff'",
        "UPDATE snapshot SET offset = 1 << 50",
        "UPDATE snapshot SET files = (1 << 63) - 1, bytes = -5",
        "UPDATE snapshot SET pinned = char(27) || ']0;owned' || char(7)",
        "UPDATE snapshot SET state = 1",
        "UPDATE snapshot SET state = 2",
        "UPDATE snapshot SET state = 2, root = 0",
        "UPDATE snapshot SET name = '2026-11-02-020000-' || id",
        "UPDATE delta SET base = object",
        "UPDATE delta SET base = 0, stored = (1 << 62)",
        "INSERT INTO replacing SELECT id, 3, id, NULL, 0 FROM object",
        "INSERT INTO replacing SELECT id, 0, NULL, 0, 0 FROM object",
        "INSERT INTO verified SELECT id, 1 << 62, char(27) || '[31m', 0 FROM object",
        "UPDATE property SET value = zeroblob(1000)",
        "DELETE FROM owner",
        "DELETE FROM directory",
        "DELETE FROM snapshot",
        "UPDATE attributes SET value = x'0500000000017573657200'",
        "UPDATE attributes SET value = x'ffffffffffff'",
        "UPDATE attributes SET value = x'0300040000006100620a0b0c0d'",
    ],
)
def test_all_rows_changed(attack: Attack, change: str) -> None:
    with attack.database() as db:
        db.execute(change)
        checked(db)
    attack.require_harmless(
        *("snapshots REPO", "ls REPO -R --json", "restore REPO --to BACK", "verify REPO"),
        "backup SOURCE REPO",
    )


@given(chance=st.randoms(use_true_random=False))
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=ALWAYS_THE_SAME,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
def test_any_values(attack: Attack, chance: random.Random) -> None:
    attack.fresh()
    with attack.database() as db:
        changes = [mutate(db, chance) for _ in range(chance.choice((1, 1, 2, 3)))]
        checked(db)
    commands = [*chance.sample(READING, 2), chance.choice(RESTORING), chance.choice(WRITING)]
    wrong = list(attack.faults(*commands))
    assert not wrong, (changes, wrong)
