"""Pins: of people, and of mass changes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mirrorback.plan.guards import (
    MASS_CHANGE,
    acknowledged,
    holds_thinning,
    pin_by_hand,
    pin_by_mass_change,
)

REASONS = st.text() | st.text().map(lambda rest: MASS_CHANGE + rest)


@given(REASONS | st.none())
def test_no_reason_of_a_person_is_that_of_a_mass_change(reason: str | None) -> None:
    pin = pin_by_hand(None, reason)
    assert pin and not holds_thinning(pin)
    assert "\n" not in pin


@given(REASONS)
def test_a_second_pin_keeps_the_first_reason_unless_another_is_given(reason: str) -> None:
    first = pin_by_hand(None, reason)
    assert pin_by_hand(first, None) == first
    assert pin_by_hand(first, "another") == "another"
    assert pin_by_hand("", None) == ""  # pinned, though nobody said why


@given(REASONS | st.none())
def test_a_mass_change_gives_a_pin_back_that_was_there(reason: str | None) -> None:
    own = None if reason is None else pin_by_hand(None, reason)
    pin = pin_by_mass_change(own, "on 2026-11-25: 600 of 1,100 files removed, 0 changed")
    assert holds_thinning(pin)
    assert pin_by_hand(pin, None) == pin_by_hand(pin, "mine") == pin
    assert pin_by_mass_change(pin, "again") == pin
    assert acknowledged(pin) == own


def test_what_unpin_leaves_of_other_pins() -> None:
    assert acknowledged(None) is None
    assert acknowledged("by hand") is None
    assert acknowledged("") is None
