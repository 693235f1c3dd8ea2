"""The commands of a delta's plaintext, written and read back."""

from __future__ import annotations

import itertools

import pytest
from deltas import plaintext
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.errors import Damaged
from mirrorback.model import COPY, LITERAL, SIZE_LIMIT
from mirrorback.store.delta_commands import MAGIC, Parser, copy_command, literal_command

EDGES = [1, 64, 65, 255, 256, 65535, 65536, (1 << 32) - 1, 1 << 32, SIZE_LIMIT - 1]
NUMBERS = st.one_of(st.sampled_from(EDGES), st.integers(1, SIZE_LIMIT - 1))
COPIES = st.tuples(st.just(COPY), NUMBERS, st.one_of(st.just(0), NUMBERS))
LITERALS = st.tuples(st.just(LITERAL), st.sampled_from([1, 63, 64, 65, 255, 256, 700]), st.just(0))
COMMANDS = st.lists(st.one_of(COPIES, LITERALS), max_size=8)


def parsed(plain: bytes, cuts: list[int]) -> list[tuple[int, int, int]]:
    """The commands of a plaintext that is fed in pieces; the first has the magic at least."""
    parser = Parser()
    found = []
    edges = [0, *sorted({cut for cut in cuts if len(MAGIC) <= cut < len(plain)}), len(plain)]
    for start, end in itertools.pairwise(edges):
        found += parser.feed(plain[start:end])
    assert parser.ended
    assert parser.size == len(plain)
    return found


@given(COMMANDS, st.lists(st.integers(0, 3000), max_size=12))
def test_what_is_written_is_read_however_it_is_cut(
    commands: list[tuple[int, int, int]], cuts: list[int]
) -> None:
    plain = MAGIC
    expected = []
    for kind, length, offset in commands:
        if kind == COPY:
            plain += copy_command(offset, length)
            expected.append((length, COPY, offset))
        else:
            plain += literal_command(length)
            expected.append((length, LITERAL, len(plain)))
            plain += bytes(length)
    assert parsed(plain + b"\0", cuts) == expected


@given(COMMANDS)
def test_every_single_cut_is_fine(commands: list[tuple[int, int, int]]) -> None:
    parts = []
    for kind, length, offset in commands:
        if kind == COPY:
            parts.append(copy_command(offset, length))
        else:
            parts.append(literal_command(length) + b"x" * length)
    plain = plaintext(parts)
    expected = parsed(plain, [])
    assert parsed(plain, list(range(len(plain)))) == expected
    for cut in range(0, len(plain), 7):
        assert parsed(plain, [cut]) == expected


def test_the_smallest_widths_are_taken() -> None:
    assert literal_command(1) == b"\x01"
    assert literal_command(64) == b"\x40"
    assert literal_command(65) == b"\x41\x41"
    assert literal_command(256) == b"\x42\x01\x00"
    assert literal_command(65536) == b"\x43\x00\x01\x00\x00"
    assert literal_command(1 << 32) == b"\x44\0\0\0\x01\0\0\0\0"
    assert copy_command(0, 255) == b"\x45\x00\xff"
    assert copy_command(0, 256) == b"\x46\x00\x01\x00"
    assert copy_command(256, 1) == b"\x49\x01\x00\x01"
    assert copy_command(1 << 32, 1 << 32) == b"\x54" + (b"\0\0\0\x01" + bytes(4)) * 2


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        (b"", "begin"),
        (MAGIC[:3], "begin"),
        (b"rs\x01\x36\0", "begin"),
        (b"\0" + MAGIC + b"\0", "begin"),
        (MAGIC + b"\x55\0", "not known"),
        (MAGIC + b"\xff\0", "not known"),
        (MAGIC + b"\0\0", "behind its end"),
        (MAGIC + b"\x02ab\0x", "behind its end"),
        (MAGIC + b"\x41\x00\0", "impossible"),
        (MAGIC + b"\x45\x00\x00\0", "impossible"),
        (MAGIC + b"\x44" + (1 << 62).to_bytes(8, "big") + b"\0", "impossible"),
        (MAGIC + b"\x44" + b"\xff" * 8 + b"\0", "impossible"),
        (MAGIC + b"\x51" + (1 << 62).to_bytes(8, "big") + b"\x01\0", "impossible"),
    ],
)
def test_what_is_no_delta_is_damage(plain: bytes, words: str) -> None:
    with pytest.raises(Damaged, match=words):
        list(Parser().feed(plain))


def test_more_after_the_end_is_damage_in_the_next_piece_too() -> None:
    parser = Parser()
    assert list(parser.feed(MAGIC + b"\0")) == []
    assert list(parser.feed(b"")) == []
    with pytest.raises(Damaged, match="behind its end"):
        list(parser.feed(b"\0"))


def test_a_literal_that_does_not_end_has_no_end() -> None:
    parser = Parser()
    assert list(parser.feed(MAGIC + b"\x44" + (1 << 40).to_bytes(8, "big"))) == [
        (1 << 40, LITERAL, 13)
    ]
    assert list(parser.feed(bytes(1000))) == []
    assert not parser.ended
