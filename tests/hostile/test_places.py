"""Something else in the place of a file or folder of the repository: symlinks that lead out of
it, pipes, devices, hard links to what lies outside.

How many are tried is set by MIRRORBACK_EXAMPLES.
"""

from __future__ import annotations

import os
import random

import pytest
from hostility import ALL, KINDS, RESTORING, SECRET, WRITING, Attack, checked, plant
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("MIRRORBACK_EXAMPLES", "12"))
ALWAYS_THE_SAME = "MIRRORBACK_EXAMPLES" not in os.environ
PLACES = (
    *(".mirrorback", "current", "OLD", "README.txt", "README.txt.new", "current/d", "OLD/d"),
    *("current/d/a", "current/d/image", "OLD/d/image.rdiff.zst", "OLD/d/a", "current/moved"),
    *(
        f".mirrorback/{name}"
        for name in (
            *("catalog.db", "catalog.db-journal", "catalog.db-wal", "catalog.db-shm"),
            *("catalog.blake3", "catalog.blake3.new", "catalog.db.new", "catalog.db.new-journal"),
            *("repository.toml", "repository.toml.new", "mirror.toml", "mirror.toml.new", "lock"),
            *("log", "trash", "incoming", "redo", "signatures", "reserve", "damaged", "spool.db"),
        )
    ),
)


def planted(attack: Attack, place: str, kind: str) -> None:
    """Plant something, as far as there is a place for it."""
    path = attack.repository / place.replace("OLD", attack.folders[0])
    if path.parent.is_dir() and not path.parent.is_symlink():
        plant(path, kind, attack.outside)


@pytest.mark.parametrize("command", WRITING)
@pytest.mark.parametrize("place", ["lock", "README.txt.new", "catalog.blake3.new"])
def test_a_pipe_or_a_hard_link_where_a_file_is_to_be(
    attack: Attack, place: str, command: str
) -> None:
    for kind in ("fifo", "hard link"):
        attack.fresh()
        above = "" if place.startswith("README") else ".mirrorback/"
        planted(attack, above + place, kind)
        attack.require_harmless(command, "verify REPO", "doctor REPO")


def test_a_trash_outside_gets_and_loses_nothing(attack: Attack) -> None:
    planted(attack, ".mirrorback/trash", ".")
    (attack.inner / "incoming").mkdir()
    (attack.inner / "incoming" / "d").mkdir()
    (attack.inner / "incoming" / "d" / "in").write_text("in")
    attack.require_harmless(*WRITING)


@pytest.mark.parametrize("place", ["current/d/a", "OLD/d/a", "current/d/image", "current", "OLD"])
@pytest.mark.parametrize("kind", ["secret", "d", "."])
def test_a_restore_never_gives_what_a_symlink_leads_to(
    attack: Attack, place: str, kind: str
) -> None:
    """Even of a file of which nobody knows the digest, and of the secret's own size."""
    with attack.database() as db:
        db.execute("UPDATE object SET digest = NULL, size = ? WHERE kind = 1", (len(SECRET),))
        checked(db)
    planted(attack, place, kind)
    attack.require_harmless(*RESTORING, "cat REPO d/a", "cat REPO d/a --at OLD")


@given(chance=st.randoms(use_true_random=False))
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=ALWAYS_THE_SAME,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
def test_anything_anywhere(attack: Attack, chance: random.Random) -> None:
    attack.fresh()
    plants = [
        (chance.choice(PLACES), chance.choice(KINDS)) for _ in range(chance.choice((1, 1, 2, 3)))
    ]
    for place, kind in plants:
        planted(attack, place, kind)
    wrong = list(attack.faults(*chance.sample(ALL, 3)))
    assert not wrong, (plants, wrong)
