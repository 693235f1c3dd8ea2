"""Which part is read back, and which of several inodes is the object."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.errors import UsageError
from mirrorback.plan.verifying import (
    ALL,
    Budget,
    Candidate,
    Sample,
    Share,
    Slice,
    parse_budget,
    parse_part,
    parse_subset,
    true_one,
)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("5%", Share(Decimal(5))),
        ("2.5%", Share(Decimal("2.5"))),
        ("100%", Share(Decimal(100))),
        ("0.001%", Share(Decimal("0.001"))),
        ("1/7", Slice(1, 7)),
        ("7/7", Slice(7, 7)),
        ("1/1", Slice(1, 1)),
    ],
)
def test_subsets(text: str, part: Share | Slice) -> None:
    assert parse_subset(text) == part == parse_part(text, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0%",
        "-5%",
        "101%",
        "100.1%",
        "5",
        "%",
        "five%",
        "5%%",
        "0/7",
        "8/7",
        "1/0",
        "-1/7",
        "1/7/9",
        "1/2000000",
        "٥%",
        "5%5%",
        "1e1%",
        "0.0%",
        "nan%",
        "1/",
        "/7",
        "1.5/7",
    ],
)
def test_subsets_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError):
        parse_subset(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30m", 1800), ("90s", 90), ("2h", 7200), ("1h30m", 5400), ("1d", 86400), (" 1s ", 1)],
)
def test_budgets(text: str, seconds: int) -> None:
    assert parse_budget(text) == seconds
    assert parse_part(None, text) == Budget(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "0m", "0s", "-5m", "30", "m", "30 minutes", "1.5h", "30m1h", "9999d", "٣m", "1h-5m"],
)
def test_budgets_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError):
        parse_budget(text)


def test_both_exclude_each_other_and_neither_is_all() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        parse_part("5%", "30m")
    assert parse_part(None, None) == ALL


@given(st.integers(0, 500), st.integers(1, 100), st.integers())
def test_a_sample_is_as_large_as_it_should_be(total: int, percent: int, seed: int) -> None:
    count = Share(Decimal(percent)).count(total)
    assert count == (max(1, round(total * percent / 100)) if total else 0)
    sample = Sample(count, total, random.Random(seed))
    assert sum(sample.takes() for _ in range(total)) == count
    assert not sample.takes()  # what came later than it was counted


def test_a_sample_favours_nobody() -> None:
    chance = random.Random(1)
    counts = [0] * 10
    for _ in range(2000):
        sample = Sample(3, 10, chance)
        for index in range(10):
            counts[index] += sample.takes()
    assert sum(counts) == 6000 and all(500 < count < 700 for count in counts)


@given(st.integers(1, 20), st.integers(0, 10_000))
def test_the_slices_are_all_together(of: int, number: int) -> None:
    assert sum(Slice(one, of).holds(number) for one in range(1, of + 1)) == 1


def test_the_true_one_is_sound_and_has_the_most_names() -> None:
    rotten, few, many = Candidate(False, 9), Candidate(True, 1), Candidate(True, 5)
    assert true_one([rotten, few, many]) == 2
    assert true_one([rotten, few]) == 1
    assert true_one([rotten]) is None and true_one([]) is None
    assert true_one([few, few]) == 0
