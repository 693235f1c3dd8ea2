"""Sizes as people type them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.errors import UsageError
from mirrorback.plan.sizes import LARGEST, Room, parse_room, parse_size

UNITS = ["K", "M", "G", "T", "P", "E"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("007", 7),
        ("512B", 512),
        ("512b", 512),
        ("1K", 1024),
        ("1k", 1024),
        ("1KB", 1024),
        ("1KiB", 1024),
        ("1kib", 1024),
        ("32M", 33_554_432),
        ("32MiB", 33_554_432),
        ("32 M", 33_554_432),
        (" 32M\n", 33_554_432),
        ("1.5G", 1_610_612_736),
        ("1.50GB", 1_610_612_736),
        ("0.5K", 512),
        ("1.9", 1),
        ("0.001K", 1),
        ("2T", 2_199_023_255_552),
        ("1P", 1_125_899_906_842_624),
        ("7E", 8_070_450_532_247_928_832),
        ("7.999999999E", 9_223_372_035_701_854_303),
        ("9223372036854775807", LARGEST),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "lots",
        "-1",
        "+1",
        "-1M",
        "1e3",
        "1e9999",
        "0x10",
        "1_000",
        "1,5G",
        "1.5.5G",
        ".5G",
        "1.G",
        "1.0123456789G",
        "M",
        "B",
        "1Z",
        "1X",
        "1i",
        "1Ki",
        "1iB",
        "1BB",
        "1BiB",
        "1MM",
        "10%",
        "1 0M",
        "32M B",
        "nan",
        "inf",
        "1M\0",
        "\u0663M",
        "1\u212a",
        "\u00bd",
    ],
)
def test_what_is_no_size_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    "text", ["9223372036854775808", "8E", "99999999999999999999E", "8192P", "9" * 20]
)
def test_what_no_file_can_have_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="larger than any file"):
        parse_size(text)


@given(st.integers(0, LARGEST))
def test_a_number_of_bytes_comes_back(size: int) -> None:
    assert parse_size(str(size)) == size


@given(
    st.integers(1, 6),
    st.integers(0, 7),
    st.booleans(),
    st.sampled_from(["", "B", "iB"]),
    st.sampled_from(["", " "]),
)
def test_units_are_powers_of_1024(power: int, count: int, lower: bool, tail: str, gap: str) -> None:
    text = f"{count}{gap}{UNITS[power - 1]}{tail}"
    assert parse_size(text.lower() if lower else text) == count * 1024**power


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_usage_error(text: str) -> None:
    try:
        assert 0 <= parse_size(text) <= LARGEST
    except UsageError:
        pass


@pytest.mark.parametrize(
    ("text", "room", "of_a_thousand"),
    [
        ("10%", Room(percent=Decimal(10)), 100),
        ("2.5 %", Room(percent=Decimal("2.5")), 25),
        ("0.1%", Room(percent=Decimal("0.1")), 1),
        ("99.9%", Room(percent=Decimal("99.9")), 999),
        ("300", Room(bytes=300), 300),
        ("1.5G", Room(bytes=3 << 29), 3 << 29),
    ],
)
def test_room(text: str, room: Room, of_a_thousand: int) -> None:
    assert parse_room(text) == room
    assert room.of(1000) == of_a_thousand
    assert str(room).split()[0].rstrip("%")


@pytest.mark.parametrize(
    "text",
    ["", "%", "0", "0%", "0.0%", "-5%", "-5", "100%", "100.0%", "101%", "999%", "1000%", "lots",
     "10%%", "1e1%", "10 percent", "5G%", "99999999P", "0.1B"],
)  # fmt: skip
def test_no_room(text: str) -> None:
    with pytest.raises(UsageError):
        parse_room(text)


def test_a_share_of_a_huge_drive_is_exact() -> None:
    assert parse_room("33.333333333%").of(10**18) == 333_333_333_330_000_000
