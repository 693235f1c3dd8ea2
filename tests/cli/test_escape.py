"""Nothing that came from outside reaches a terminal as it is."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.cli.escape import escape, plain, text_of

DANGEROUS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"plain name.txt", "plain name.txt"),
        ("grüße 漢字".encode(), "grüße 漢字"),
        (b"[bold]x[/bold] [/x]", "[bold]x[/bold] [/x]"),
        (b"a\nb\tc\rd", "a\\nb\\tc\\rd"),
        (b"\x1b[31mred\x07\x7f\x00", "\\x1b[31mred\\x07\\x7f\\x00"),
        (b"odd\xff\xc3", "odd\\xff\\xc3"),
        ("c1 \x9b31m".encode(), "c1 \\u009b31m"),
        ("\u202egpj.exe\u2066".encode(), "\\u202egpj.exe\\u2066"),
        ("zero\u200bwidth\ufeff\u2060".encode(), "zero\\u200bwidth\\ufeff\\u2060"),
        ("line\u2028para\u2029".encode(), "line\\u2028para\\u2029"),
        ("hangul\u3164filler".encode(), "hangul\\u3164filler"),
        ("tag\U000e0041".encode(), "tag\\U000e0041"),
        ("no\u00a0break".encode(), "no\u00a0break"),
        (b"back\\slash", "back\\\\slash"),
        (b"", ""),
    ],
)
def test_names(name: bytes, shown: str) -> None:
    assert escape(name) == shown


def test_a_name_given_as_text_is_the_same() -> None:
    assert escape("odd\udcff\n") == escape(b"odd\xff\n")


def test_messages_keep_the_backslashes_of_names_escaped_before() -> None:
    name = escape(b"a\nb")
    assert plain(f"{name} is gone\x1b") == "a\\nb is gone\\x1b"


@given(st.binary(max_size=40))
def test_any_bytes_become_one_safe_line(name: bytes) -> None:
    shown = escape(name)
    assert not {unicodedata.category(char) for char in shown} & DANGEROUS
    assert plain(shown) == shown


@given(st.binary(max_size=6), st.binary(max_size=6))
def test_different_names_are_shown_differently(one: bytes, other: bytes) -> None:
    assert (escape(one) == escape(other)) == (one == other)


@given(st.sampled_from(["\\", "n", "x", "0", "a", "\n", "\x0a\\n", "\udc80", "\u0080"]))
def test_text_of_keeps_every_byte(char: str) -> None:
    name = char.encode("utf-8", "surrogateescape")
    assert text_of(name).encode("utf-8", "surrogateescape") == name
