"""A chain of deltas is read in one go, and comes to the same as each version by itself."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from runs import LargeNights, change_pages
from test_repair import flip

from mirrorback.engine import chains, faults, read_back
from mirrorback.engine.chains import Chains
from mirrorback.model import Problem

NIGHTS = 6


@pytest.fixture
def chain(large: LargeNights, image: Path) -> LargeNights:
    """A large file that changes each night, also in length, and shifts once."""
    for night in range(NIGHTS):
        change_pages(image, night)
        if night == 2:
            image.write_bytes(random.Random(9).randbytes(70_001) + image.read_bytes())
        if night == 4:
            image.write_bytes(image.read_bytes()[:-300_000])
        time.sleep(0.03)
        large.backup()
    return large


class Counted:
    """How often versions were read by themselves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        alone = read_back.ReadBack.read_through

        def counted(one: Any, *rest: Any) -> Any:
            self.count += 1
            return alone(one, *rest)

        monkeypatch.setattr(read_back.ReadBack, "read_through", counted)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def deltas(large: LargeNights) -> list[Path]:
    return sorted(large.repository.glob("2*/d/image.rdiff.zst"))


def told(large: LargeNights) -> dict[str, str]:
    found: list[Problem] = large.problems()
    return {name: one.problem for one in found for name in one.snapshots}


def test_all_is_read_in_one_go(chain: LargeNights, counted: Counted) -> None:
    assert len(deltas(chain)) == NIGHTS - 1
    assert chain.problems() == []
    assert counted.count == 0


@pytest.mark.parametrize("pieces", [1, 5, 1 << 21])
def test_in_parts_that_fit_in_memory(
    chain: LargeNights, counted: Counted, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    monkeypatch.setattr(chains, "MOST_PIECES", pieces)
    assert chain.problems() == []
    assert counted.count == 0


@pytest.mark.parametrize("which", range(NIGHTS - 1))
def test_a_damaged_delta_and_what_is_older(chain: LargeNights, which: int) -> None:
    flip(deltas(chain)[which], 300)
    names = [folder.name for folder in chain.folders()]
    words = told(chain)
    assert set(words) == set(names[: which + 1])
    assert all(words[name] == faults.DEPENDS for name in names[:which])
    assert words[names[which]] != faults.DEPENDS


def test_a_missing_delta_and_what_is_older(chain: LargeNights) -> None:
    deltas(chain)[2].unlink()
    names = [folder.name for folder in chain.folders()]
    assert told(chain) == {
        names[0]: faults.DEPENDS,
        names[1]: faults.DEPENDS,
        names[2]: faults.MISSING,
    }


def test_a_damaged_base_is_found_out_once(chain: LargeNights, counted: Counted) -> None:
    current = chain.current / "d" / "image"
    for at in range(0, current.stat().st_size, 4096):
        flip(current, at)
    words = told(chain)
    assert words.pop("2026-11-07-020000") == faults.ROTTEN
    assert set(words.values()) == {faults.DEPENDS} and len(words) == NIGHTS - 1
    assert counted.count == 0


def test_while_a_run_changes_the_mirror(
    chain: LargeNights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read wrong says nothing then."""
    read = Chains._read
    image = chain.source / "d" / "image"

    def meanwhile(self: Chains, *rest: Any) -> Any:
        if not done:
            done.append(1)
            change_pages(image, 77)
            time.sleep(0.03)
            chain.backup()
        return read(self, *rest)

    done: list[int] = []
    monkeypatch.setattr(Chains, "_read", meanwhile)
    assert chain.problems() == [] and done


def test_a_budget_that_is_over(chain: LargeNights) -> None:
    with chain.history() as history:
        rows = history.catalog.db.execute("SELECT object FROM delta ORDER BY object").fetchall()
        numbers = [row[0] for row in rows]
        assert Chains(history, lambda count: None, lambda: True).read(numbers) == {}
        found = Chains(history, lambda count: None, lambda: False).read(numbers)
        assert found == dict.fromkeys(numbers, True)
