"""Fixtures: a repository for an attacker to write to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from filesystems import require_root
from hostility import Attack, Starter, lived
from runs import LargeNights


@pytest.fixture(scope="session")
def starter() -> Iterator[Starter]:
    """What starts commands."""
    require_root()
    made = Starter()
    yield made
    made.close()


@pytest.fixture(scope="session")
def lived_nights(tmp_path_factory: pytest.TempPathFactory) -> LargeNights:
    """A repository that has lived; each test has a copy."""
    return lived(tmp_path_factory.mktemp("lived"))


@pytest.fixture
def attack(lived_nights: LargeNights, starter: Starter, tmp_path: Path) -> Attack:
    """A copy of it."""
    return Attack(lived_nights, starter, tmp_path)
