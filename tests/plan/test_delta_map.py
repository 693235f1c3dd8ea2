"""Maps of deltas, against restoring bytes one version after another."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from deltas import Recipe, histories, made
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.errors import Damaged
from mirrorback.model import COPY, LITERAL, SIZE_LIMIT, Segments
from mirrorback.plan import delta_map


def segments(*rows: tuple[int, int, int]) -> Segments:
    """Columns of rows of (length, kind, offset)."""
    return Segments(*(np.array([row[at] for row in rows], np.int64) for at in range(3)))


def mapped(recipe: Recipe) -> tuple[Segments, bytes]:
    """A recipe as a map, and a plaintext with its literals, and something between them."""
    plain = b"head"
    rows = []
    for step in recipe:
        if isinstance(step, bytes):
            rows.append((len(step), LITERAL, len(plain)))
            plain += step + b"-"
        else:
            rows.append((step[1], COPY, step[0]))
    return segments(*rows), plain


def read(
    composed: delta_map.Composed, plains: list[bytes], base: bytes, start: int, end: int
) -> bytes:
    """A range of the old version by a composed map."""
    sources = [*plains, base]
    parts = []
    for length, source, offset in composed.pieces(start, end):
        assert length > 0
        part = sources[source][offset : offset + length]
        assert len(part) == length
        parts.append(part)
    return b"".join(parts)


@given(histories(), st.data())
def test_a_chain_of_maps_gives_the_bytes_of_restoring_each(
    history: tuple[bytes, list[Recipe]], data: st.DataObject
) -> None:
    base, recipes = history
    versions = [base]
    maps: list[Segments] = []
    plains: list[bytes] = []
    for recipe in recipes:
        own, plain = mapped(recipe)
        old = made(versions[0], recipe)
        delta_map.validate(own, len(old), len(versions[0]), len(plain))
        versions.insert(0, old)
        maps.insert(0, own)
        plains.insert(0, plain)
    beneath = None
    for at in range(len(maps) - 1, -1, -1):
        beneath = delta_map.beneath(maps[at], at, beneath, len(maps))
        assert read(beneath, plains, base, 0, beneath.size) == versions[at]
    for at, version in enumerate(versions[:-1]):
        composed = delta_map.compose(maps[at:])
        merged = delta_map.merge(composed)
        for form in (composed, merged):
            assert form.size == len(version)
            assert read(form, plains[at:], base, 0, len(version)) == version
        start = data.draw(st.integers(0, len(version)))
        end = data.draw(st.integers(start, len(version)))
        assert read(merged, plains[at:], base, start, end) == version[start:end]


@given(histories(most=3))
def test_merged_pieces_cannot_be_joined_further(history: tuple[bytes, list[Recipe]]) -> None:
    maps = [mapped(recipe)[0] for recipe in reversed(history[1])]
    merged = delta_map.merge(delta_map.compose(maps))
    rows = list(merged.pieces(0, merged.size))
    for (length, source, offset), following in itertools.pairwise(rows):
        assert (source, offset + length) != following[1:]
    assert sum(length for length, _, _ in rows) == merged.size


def test_ranges_that_touch_are_joined() -> None:
    newer = segments((10, COPY, 100), (10, COPY, 110), (5, LITERAL, 9))
    composed = delta_map.compose([segments((12, COPY, 5), (8, COPY, 17)), newer])
    assert list(composed.pieces(0, 20)) == [(5, 2, 105), (7, 2, 110), (3, 2, 117), (5, 1, 9)]
    merged = delta_map.merge(composed)
    assert list(merged.pieces(0, 20)) == [(15, 2, 105), (5, 1, 9)]
    assert list(merged.pieces(14, 16)) == [(1, 2, 119), (1, 1, 9)]


def test_an_empty_version_has_no_pieces() -> None:
    for chain in ([segments()], [segments(), segments((4, COPY, 0))], [segments(), segments()]):
        composed = delta_map.merge(delta_map.compose(chain))
        assert composed.size == 0
        assert list(composed.pieces(0, 0)) == []


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2), (0, 5), (5, 5)])
def test_a_range_outside_is_no_range(start: int, end: int) -> None:
    composed = delta_map.compose([segments((4, COPY, 0))])
    with pytest.raises(ValueError, match="no range"):
        list(composed.pieces(start, end))


def test_places_beyond_4_gib_stay_exact() -> None:
    far = 5 << 32
    chain = [segments((far, COPY, 7), (3, LITERAL, 4)), segments((far + 9, COPY, far))]
    composed = delta_map.compose(chain)
    assert composed.size == far + 3
    assert list(composed.pieces(far - 1, far + 3)) == [(1, 2, 2 * far + 6), (3, 0, 4)]


def test_more_pieces_than_are_taken_at_a_time() -> None:
    count = 50_000
    one = Segments(
        np.ones(count, np.int64), np.zeros(count, np.int64), np.arange(count - 1, -1, -1)
    )
    twice = delta_map.merge(delta_map.compose([one, one]))
    assert list(twice.pieces(0, count)) == [(count, 2, 0)]
    rows = list(delta_map.compose([one]).pieces(3, count))
    assert rows == [(1, 1, count - 1 - at) for at in range(3, count)]


def test_a_copy_beyond_the_next_version_is_damage() -> None:
    with pytest.raises(Damaged, match="beyond the end"):
        delta_map.compose([segments((5, COPY, 0)), segments((4, COPY, 0))])
    with pytest.raises(Damaged, match="beyond the end"):
        delta_map.compose([segments((5, COPY, 0)), segments()])


def test_maps_that_double_what_they_copy_are_stopped() -> None:
    def doubling(size: int) -> Segments:
        return segments((size, COPY, 0), (size, COPY, 0))

    chain = [doubling(1 << power) for power in range(55, -1, -1)]
    with pytest.raises(Damaged, match="too many pieces"):
        delta_map.compose(chain)
    with pytest.raises(Damaged, match="too many pieces"):
        delta_map.compose(chain[-3:], limit=7)
    assert len(delta_map.compose(chain[-3:], limit=8).length) == 8


def test_the_limit_counts_literals_that_are_settled() -> None:
    chain = [segments((1, LITERAL, 5), (1, COPY, 0)), segments((1, LITERAL, 5))]
    with pytest.raises(Damaged, match="too many pieces"):
        delta_map.compose(chain, limit=1)
    assert len(delta_map.compose(chain, limit=2).length) == 2


def test_no_deltas_are_no_chain() -> None:
    with pytest.raises(ValueError, match="at least one"):
        delta_map.compose([])


GOOD = [(10, COPY, 90), (5, LITERAL, 45), (1, COPY, 0)]


@pytest.mark.parametrize(
    ("row", "changed", "words"),
    [
        (0, (10, COPY, 91), "beyond the end of its base"),
        (1, (5, LITERAL, 46), "beyond the end of its own data"),
        (1, (5, 2, 45), "kind"),
        (1, (5, -1, 45), "kind"),
        (2, (0, COPY, 0), "length"),
        (2, (-1, COPY, 0), "length"),
        (2, (SIZE_LIMIT, COPY, 0), "length"),
        (2, (1, COPY, -1), "place"),
        (2, (1, COPY, SIZE_LIMIT), "place"),
        (2, ((1 << 63) - 1, COPY, (1 << 63) - 1), "length"),
        (2, (2, COPY, 0), "makes 17 bytes"),
    ],
)
def test_a_map_with_a_wrong_number_is_damage(
    row: int, changed: tuple[int, int, int], words: str
) -> None:
    delta_map.validate(segments(*GOOD), 16, 100, 50)
    rows = list(GOOD)
    rows[row] = changed
    with pytest.raises(Damaged, match=words):
        delta_map.validate(segments(*rows), 16, 100, 50)


@pytest.mark.parametrize("sizes", [(SIZE_LIMIT, 100, 50), (16, SIZE_LIMIT, 50), (16, 100, -1)])
def test_impossible_sizes_are_damage(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(Damaged, match="impossible size"):
        delta_map.validate(segments(*GOOD), *sizes)


def test_lengths_whose_sum_overflows_are_damage() -> None:
    rows = [(1 << 61, COPY, 0)] * 8 + [(16, COPY, 0)]
    with np.errstate(all="raise"), pytest.raises(Damaged, match="makes 18446744073709551632"):
        delta_map.validate(segments(*rows), 16, 1 << 61, 50)


def test_columns_of_unequal_length_are_damage() -> None:
    length, kind, offset = segments(*GOOD)
    with pytest.raises(Damaged, match="equally long"):
        delta_map.validate(Segments(length, kind[:2], offset), 16, 100, 50)


def test_an_ordinary_run_loads_none_of_it() -> None:
    code = (
        "import sys, mirrorback.cli.app, mirrorback.engine.backup, mirrorback.engine.restore, "
        "mirrorback.engine.verify\n"
        "sys.exit(bool({'numpy', 'zstandard'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
