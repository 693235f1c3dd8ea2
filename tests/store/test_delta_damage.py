"""Damaged deltas: never wrong bytes, never another error than Damaged."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from deltas import (
    Recipe,
    checked,
    created,
    opened,
    outcome,
    write,
)

from mirrorback.errors import Damaged
from mirrorback.store import delta_format as form

SEED = 20_261_122
BASE = random.Random(1).randbytes(5000)


def sample(tmp_path: Path) -> tuple[Path, bytes, bytes]:
    """A delta of several frames, its bytes, and the old version."""
    rng = random.Random(SEED)
    recipe: Recipe = []
    for at in range(0, 4000, 40):
        recipe += [(at, 30), rng.randbytes(rng.randrange(1, 500)), bytes(rng.randrange(1, 900))]
    path = tmp_path / "d"
    old = write(path, BASE, recipe)
    return path, path.read_bytes(), old


@pytest.mark.parametrize("scan", [False, True])
def test_a_flipped_bit_is_noticed_or_harmless(tmp_path: Path, scan: bool) -> None:
    path, data, old = sample(tmp_path)
    assert outcome(path, BASE, scan) == old and checked(path)
    rng = random.Random(SEED)
    index = form.opened(data[-form.CLOSING :], len(data))[1] + form.SKIPPABLE.size
    places = [rng.randrange(len(data)) for _ in range(250)]
    places += [len(data) - 1 - rng.randrange(index) for _ in range(250)]
    places += [*range(14), *range(len(data) - form.CLOSING, len(data))]
    noticed = 0
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        found = outcome(path, BASE, scan)
        assert found in (None, old), place
        noticed += found is None
        if place >= len(data) - index:  # the index is not needed to restore
            assert found == (old if scan else None), place
            assert not checked(path), place
    assert noticed > 100


@pytest.mark.parametrize("scan", [False, True])
def test_a_cut_file_is_noticed_or_read_by_its_frames(tmp_path: Path, scan: bool) -> None:
    path, data, old = sample(tmp_path)
    index = form.opened(data[-form.CLOSING :], len(data))[1] + form.SKIPPABLE.size
    frames = len(data) - index
    cuts = {*range(300), *range(0, len(data), 131), *range(frames - 20, frames + 20)}
    cuts |= set(range(len(data) - 200, len(data)))
    for cut in sorted(cuts):
        path.write_bytes(data[:cut])
        whole = scan and cut >= frames
        assert outcome(path, BASE, scan) == (old if whole else None), cut
        assert not checked(path)


def test_a_delta_that_grew_has_no_index_at_its_end(tmp_path: Path) -> None:
    path, data, old = sample(tmp_path)
    for more in (b"\0", os.urandom(3000), data, data[-form.CLOSING :]):
        path.write_bytes(data + more)
        assert outcome(path, BASE, False) is None
        assert outcome(path, BASE, True) == old


def test_zeroed_and_swapped_stretches_are_noticed(tmp_path: Path) -> None:
    path, data, old = sample(tmp_path)
    rng = random.Random(SEED)
    for _ in range(150):
        changed = bytearray(data)
        start, length = rng.randrange(len(data)), rng.choice([1, 40, 512, 4096])
        other = rng.randrange(len(data))
        changed[start : start + length] = rng.choice([bytes(length), data[other : other + length]])
        path.write_bytes(changed[: len(data)])
        for scan in (False, True):
            assert outcome(path, BASE, scan) in (None, old)


def test_frames_changed_for_others_are_noticed(tmp_path: Path) -> None:
    """Each frame is sound by itself, and of the length that the index tells of."""
    path = tmp_path / "d"
    halves = [random.Random(at).randbytes(form.FRAME) for at in (1, 2)]
    write(path, b"", [b"".join(halves)])
    data = path.read_bytes()
    first = form.frame_length(data)
    assert first is not None
    second = form.frame_length(data[first:])
    assert second == first
    path.write_bytes(data[first : first + second] + data[:first] + data[first + second :])
    assert not checked(path)
    with pytest.raises(Damaged, match="begin as one"), opened(path, scan=True) as reader:
        reader.check()


@pytest.mark.parametrize("data", [b"", b"\0", bytes(1000), b"rs\x026\0", os.urandom(5000)])
@pytest.mark.parametrize("scan", [False, True])
def test_a_file_that_is_no_delta_is_damage(tmp_path: Path, data: bytes, scan: bool) -> None:
    (tmp_path / "d").write_bytes(data)
    with pytest.raises(Damaged), opened(tmp_path / "d", scan=scan):
        pass


def test_a_file_that_is_cut_while_it_is_read_is_damage(tmp_path: Path) -> None:
    with created(tmp_path / "d") as fd:
        write(tmp_path / "e", b"", [os.urandom(200_000)])
        os.pwrite(fd, (tmp_path / "e").read_bytes(), 0)
        with opened(tmp_path / "d") as reader:
            os.ftruncate(fd, 100_000)
            with pytest.raises(Damaged, match="too early"):
                reader.literal(150_000, 10)
            with pytest.raises(Damaged, match="too early"):
                reader.check()
