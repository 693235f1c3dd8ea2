"""What is packed comes back, and what is flipped is found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.errors import Damaged
from mirrorback.store import encoding, settings

ATTRIBUTES = st.lists(st.tuples(st.binary(max_size=255), st.binary(max_size=300))).map(tuple)
CELL = st.none() | st.integers(-(1 << 62), 1 << 62) | st.binary(max_size=20) | st.text(max_size=20)


@given(ATTRIBUTES)
def test_attributes(attributes: tuple[tuple[bytes, bytes], ...]) -> None:
    assert encoding.unpack_xattrs(encoding.pack_xattrs(attributes)) == attributes


@given(ATTRIBUTES, st.integers(0, 2000))
def test_attributes_cut_short(attributes: tuple[tuple[bytes, bytes], ...], size: int) -> None:
    packed = encoding.pack_xattrs(attributes)
    try:
        found = encoding.unpack_xattrs(packed[:size])
    except Damaged:
        return
    assert attributes[: len(found)] == found


@given(st.binary(max_size=60))
def test_any_bytes_as_attributes(packed: bytes) -> None:
    try:
        found = encoding.unpack_xattrs(packed)
    except Damaged:
        return
    assert encoding.pack_xattrs(found) == packed


@given(st.integers(-(1 << 100), 1 << 100))
def test_times(time: int) -> None:
    column = encoding.pack_time(time)
    assert isinstance(column, bytes) or -(1 << 63) <= column < 1 << 63
    assert encoding.unpack_time(column) == time


@given(st.lists(CELL, min_size=1, max_size=6), st.data())
def test_a_flipped_bit_of_a_row_is_found(row: list[object], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(row) - 1))
    changed = list(row)
    cell = row[at]
    if isinstance(cell, int):
        changed[at] = cell ^ 1 << data.draw(st.integers(0, 61))
    elif isinstance(cell, bytes) and cell:
        number = data.draw(st.integers(0, len(cell) * 8 - 1))
        changed[at] = (int.from_bytes(cell, "big") ^ 1 << number).to_bytes(len(cell), "big")
    else:
        changed[at] = 7
    assert encoding.row_check(*row) != encoding.row_check(*changed)  # type: ignore[arg-type]


@given(st.binary(max_size=40))
def test_paths_in_the_settings(path: bytes) -> None:
    text = settings.escape(path)
    assert settings.unescape(text) == path


@given(st.text(max_size=40).filter(lambda text: "\r" not in text))
def test_text_in_the_settings(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    sealed = settings.seal(f"key = {settings.quoted(text)}\n")
    assert settings.unseal(sealed, "it") == {"key": text}


@pytest.mark.parametrize("bit", range(8))
def test_sealed_settings_with_any_flipped_bit_are_damaged(bit: int) -> None:
    sealed = settings.seal('format = 1\nsource = "/home/alice"\n')
    for at in range(len(sealed)):
        flipped = bytearray(sealed)
        flipped[at] ^= 1 << bit
        with pytest.raises(Damaged):
            settings.unseal(bytes(flipped), "it")
