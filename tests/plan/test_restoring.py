"""What a restore does with what is already there."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.plan.restoring import NAME_MAX, Overwrite, Step, aside_name, decide, is_aside

STAMP = "2026-11-22-020000"
NAME = st.binary(min_size=1, max_size=NAME_MAX).filter(
    lambda name: b"/" not in name and b"\0" not in name
)

STEPS: list[tuple[Overwrite | None, str, Step]] = [
    # exists, same kind, same size, same links, newer: y, n, or . for both
    (None, "n....", Step.CREATE),
    (Overwrite.NEVER, "y....", Step.SKIP),
    (Overwrite.IF_NEWER, "y...n", Step.SKIP),
    (Overwrite.IF_NEWER, "y...y", Step.REPLACE),
    (Overwrite.ALWAYS, "y....", Step.REPLACE),
    (Overwrite.IF_CHANGED, "yn...", Step.REPLACE),
    (Overwrite.IF_CHANGED, "yyn..", Step.REPLACE),
    (Overwrite.IF_CHANGED, "yyyn.", Step.REPLACE),
    (Overwrite.IF_CHANGED, "yyyy.", Step.COMPARE),
]


@pytest.mark.parametrize("policy", list(Overwrite))
@pytest.mark.parametrize("flags", list(itertools.product([True, False], repeat=5)))
def test_what_is_done_for_one_entry(policy: Overwrite, flags: tuple[bool, ...]) -> None:
    exists, same_kind, same_size, same_links, newer = flags
    found = decide(
        policy,
        exists=exists,
        same_kind=same_kind,
        same_size=same_size,
        same_links=same_links,
        newer=newer,
    )
    wanted = [
        step
        for row, letters, step in STEPS
        if row in (None, policy)
        and all(c == "." or (c == "y") is flag for c, flag in zip(letters, flags, strict=True))
    ]
    assert [found] == wanted


def test_the_rules_have_the_words_of_the_command_line() -> None:
    assert [rule.value for rule in Overwrite] == ["if-changed", "if-newer", "never", "always"]


@pytest.mark.parametrize(
    ("name", "number", "aside"),
    [
        (b"a.txt", 1, b"a.txt.before-restore-2026-11-22-020000"),
        (b"a.txt", 2, b"a.txt.before-restore-2026-11-22-020000-2"),
        (b"a.txt", 9999, b"a.txt.before-restore-2026-11-22-020000-9999"),
        (b"\xff\n", 1, b"\xff\n.before-restore-2026-11-22-020000"),
        (b"x" * 222, 1, b"x" * 222 + b".before-restore-2026-11-22-020000"),
        (b"x" * 223, 1, b"x" * 222 + b".before-restore-2026-11-22-020000"),
        (b"x" * 255, 1, b"x" * 222 + b".before-restore-2026-11-22-020000"),
        (b"x" * 255, 10, b"x" * 219 + b".before-restore-2026-11-22-020000-10"),
    ],
)
def test_what_is_replaced_is_kept_under_a_name_that_fits(
    name: bytes, number: int, aside: bytes
) -> None:
    assert aside_name(name, STAMP, number) == aside


@given(NAME, st.integers(1, 9999))
def test_a_name_given_fits_and_is_recognised(name: bytes, number: int) -> None:
    aside = aside_name(name, STAMP, number)
    assert len(aside) <= NAME_MAX
    assert is_aside(aside)
    assert b"/" not in aside
    kept = aside.partition(b".before-restore-")[0]
    assert name.startswith(kept) or is_aside(name)


@given(NAME, st.sets(st.integers(1, 9999), min_size=2, max_size=5))
def test_numbers_make_names_different(name: bytes, numbers: set[int]) -> None:
    assert len({aside_name(name, STAMP, number) for number in numbers}) == len(numbers)


@given(NAME, st.integers(1, 9), st.integers(1, 9))
def test_what_was_kept_aside_can_be_kept_aside_again(name: bytes, one: int, other: int) -> None:
    twice = aside_name(aside_name(name, STAMP, one), STAMP, other)
    assert len(twice) <= NAME_MAX
    assert is_aside(twice)


@pytest.mark.parametrize(
    ("name", "aside"),
    [
        (b"a.before-restore-2026-11-22-020000", True),
        (b"\xff.before-restore-2026-11-22-020000-2", True),
        (b"a", False),
        (b"before-restore-2026-11-22-020000", False),
        (b"a.before-restore", False),
        (b"a.Before-Restore-2026-11-22-020000", False),
        (b"", False),
    ],
)
def test_only_names_that_a_restore_gives_are_recognised(name: bytes, aside: bool) -> None:
    assert is_aside(name) is aside
