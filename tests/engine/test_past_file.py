"""Old versions read through their chain of deltas, against restoring one after another."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from deltas import NOTHING, Recipe, created, histories, opened, write
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.engine.past_file import PastFile
from mirrorback.errors import Damaged
from mirrorback.model import Digest
from mirrorback.store.delta_writer import DeltaWriter


def laid_down(folder: Path, base: bytes, recipes: list[Recipe]) -> list[bytes]:
    """Write a base and the deltas of its history, number 0 over the base; returns the
    versions, the oldest last."""
    (folder / "base").write_bytes(base)
    versions = []
    for number, recipe in enumerate(recipes):
        base = write(folder / str(number), base, recipe)
        versions.append(base)
    return versions


@contextmanager
def past(folder: Path, numbers: list[int], *, scan: bool = False) -> Iterator[PastFile]:
    """The version of the first of these deltas."""
    with ExitStack() as stack:
        readers = [stack.enter_context(opened(folder / str(at), scan=scan)) for at in numbers]
        file = stack.enter_context(open(folder / "base", "rb"))
        yield PastFile(file.fileno(), readers)


@given(histories(), st.data())
def test_every_version_and_range_is_that_of_restoring(
    history: tuple[bytes, list[Recipe]], data: st.DataObject
) -> None:
    with TemporaryDirectory() as name:
        versions = laid_down(Path(name), *history)
        for at, version in enumerate(versions):
            with past(Path(name), list(range(at, -1, -1))) as file:
                assert file.size == len(version)
                assert b"".join(part for _, part in file.pieces()) == version
                assert file.pread(0, len(version) + 1) == version
                start = data.draw(st.integers(0, len(version) + 2))
                size = data.draw(st.integers(0, len(version) + 2))
                assert file.pread(start, size) == version[start : start + size]


@given(histories(most=3))
def test_so_it_is_where_every_index_is_lost(history: tuple[bytes, list[Recipe]]) -> None:
    with TemporaryDirectory() as name:
        versions = laid_down(Path(name), *history)
        for number in range(len(versions)):
            path = Path(name, str(number))
            os.truncate(path, path.stat().st_size - 1)
        with past(Path(name), list(range(len(versions)))[::-1], scan=True) as file:
            assert file.pread(0, file.size) == versions[-1]


def long_history(folder: Path, length: int) -> list[bytes]:
    """A chain of so many deltas with a few changes each, shifts among them."""
    rng = random.Random(7)
    base = rng.randbytes(2_500_000)
    recipes: list[Recipe] = []
    size = len(base)
    for _ in range(length):
        cuts = sorted(rng.sample(range(size), 6))
        recipe: Recipe = [(0, cuts[0])] if cuts[0] else []
        for start, end in zip(cuts[::2], cuts[1::2], strict=True):
            recipe += [rng.randbytes(rng.randrange(1, 2000)), (start, end - start)]
        recipe.append((cuts[-1] - 1, size - cuts[-1] + 1))
        recipes.append(recipe)
        size = sum(len(step) if isinstance(step, bytes) else step[1] for step in recipe)
    return laid_down(folder, base, recipes)


def test_a_chain_of_128_deltas(tmp_path: Path) -> None:
    versions = long_history(tmp_path, 128)
    with past(tmp_path, list(range(127, -1, -1))) as file:
        found = list(file.pieces())
        assert b"".join(data for _, data in found) == versions[-1]
        assert [offset for offset, _ in found] == list(range(0, file.size, 1 << 20))
        assert all(len(data) <= 1 << 20 for _, data in found)
        wrong: list[int] = []

        def look(seed: int) -> None:
            rng = random.Random(seed)
            for _ in range(100):
                at, size = rng.randrange(file.size), rng.randrange(9000)
                if file.pread(at, size) != versions[-1][at : at + size]:
                    wrong.append(at)

        threads = [threading.Thread(target=look, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
    with past(tmp_path, list(range(64, -1, -1))) as file:
        assert file.pread(0, file.size) == versions[64]


def sized(path: Path, old_size: int, old: Digest, base_size: int, base: Digest) -> None:
    """A delta of files of these sizes and digests, all of it copied or new."""
    with created(path) as fd:
        writer = DeltaWriter(fd)
        writer.copy(0, min(old_size, base_size))
        writer.literal(bytes(max(old_size - base_size, 0)))
        writer.finish(old_size, old, base_size, base)


A, B, SPARSE = Digest(b"a" * 32), Digest(b"b" * 32), Digest(b"c" * 32, sparse=True)


@pytest.mark.parametrize(
    ("older", "newer", "base_size", "words"),
    [
        ((5, A, 6, B), (6, B, 9, A), 9, None),
        ((5, A, 6, A), (6, SPARSE, 9, A), 9, None),  # two forms cannot be compared
        ((5, A, 7, B), (6, B, 9, A), 9, "delta 1 of 2 starts from a version of 7 bytes"),
        ((5, A, 6, B), (6, A, 9, A), 9, "with the digest blake3:6262"),
        ((5, A, 6, B), (6, B, 9, A), 8, "starts from a file of 9 bytes, but this one has 8"),
        ((5, A, 6, B), (6, B, 9, A), 10, "starts from a file of 9 bytes, but this one has 10"),
        ((5, A, 6, B), (6, B, 9, A), 0, "but this one has 0"),
    ],
)
def test_deltas_that_do_not_belong_together_are_damage(
    tmp_path: Path,
    older: tuple[int, Digest, int, Digest],
    newer: tuple[int, Digest, int, Digest],
    base_size: int,
    words: str | None,
) -> None:
    sized(tmp_path / "1", *older)
    sized(tmp_path / "0", *newer)
    base = bytes(range(base_size))
    (tmp_path / "base").write_bytes(base)
    if words is None:
        with past(tmp_path, [1, 0]) as file:
            assert file.pread(0, 9) == base[:5]
    else:
        with pytest.raises(Damaged, match=words), past(tmp_path, [1, 0]):
            pass


def test_a_delta_that_forgot_its_base_is_still_held_to_it(tmp_path: Path) -> None:
    laid_down(tmp_path, b"0123456789", [[(2, 8)], [(4, 4)]])
    for name in ("0", "1"):
        os.truncate(tmp_path / name, (tmp_path / name).stat().st_size - 1)
    with past(tmp_path, [1, 0], scan=True) as file:
        assert file.pread(0, 9) == b"6789"
    os.truncate(tmp_path / "base", 9)
    with pytest.raises(Damaged, match="beyond the end of the file"), past(tmp_path, [0], scan=True):
        pass
    with pytest.raises(Damaged, match="beyond the end"), past(tmp_path, [0, 1], scan=True):
        pass


def test_a_base_that_becomes_shorter_is_damage(tmp_path: Path) -> None:
    laid_down(tmp_path, b"0123456789", [[(2, 8)]])
    with past(tmp_path, [0]) as file:
        os.truncate(tmp_path / "base", 6)
        assert file.pread(0, 4) == b"2345"
        with pytest.raises(Damaged, match="shorter"):
            file.pread(0, 5)


def test_short_reads_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (old,) = laid_down(tmp_path, os.urandom(9000), [[(2, 8000), os.urandom(5000), (8, 900)]])
    original = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: original(fd, min(size, 100), at))
    with past(tmp_path, [0]) as file:
        assert file.pread(0, file.size) == old


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    laid_down(tmp_path, b"0123456789", [[(2, 8)]])
    with past(tmp_path, [0]) as file:
        for offset, size in ((-1, 3), (0, -1)):
            with pytest.raises(ValueError, match="no range"):
                file.pread(offset, size)
        assert file.pread(1 << 62, 1 << 62) == b""
    with pytest.raises(ValueError, match="at least one"):
        PastFile(0, [])


def test_a_damaged_literal_is_damage_and_the_rest_is_read(tmp_path: Path) -> None:
    (old,) = laid_down(tmp_path, b"0123456789", [[(2, 8), os.urandom(100_000)]])
    path = tmp_path / "0"
    data = bytearray(path.read_bytes())
    data[70_000] ^= 4
    path.write_bytes(data)
    with past(tmp_path, [0]) as file:
        assert file.pread(0, 30_000) == old[:30_000]
        with pytest.raises(Damaged):
            file.pread(60_000, 20_000)


def test_a_chain_that_would_fill_the_memory_is_damage(tmp_path: Path) -> None:
    """Each version is the next one twice: few bytes of deltas, endlessly many pieces."""
    size = 1
    for number in range(50):
        with created(tmp_path / str(number)) as fd:
            writer = DeltaWriter(fd)
            writer.copy(0, size)
            writer.copy(0, size)
            writer.finish(2 * size, NOTHING, size, NOTHING)
        size *= 2
    (tmp_path / "base").write_bytes(b"x")
    with pytest.raises(Damaged, match="too many pieces"), past(tmp_path, list(range(49, -1, -1))):
        pass
    with past(tmp_path, list(range(9, -1, -1))) as file:
        assert file.pread(0, 2000) == b"x" * 1024
