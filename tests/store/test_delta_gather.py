"""Pieces of several deltas and of a whole file, put together."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
from deltas import created, write

from mirrorback.errors import Damaged
from mirrorback.store import delta_gather
from mirrorback.store.delta_gather import Gatherer
from mirrorback.store.delta_reader import DeltaReader


@pytest.mark.parametrize("at_once", [1, 5, 512])
@pytest.mark.parametrize("kept", [0, 64])
def test_any_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int, kept: int
) -> None:
    """Whatever is decoded together and kept: beyond frames, one after the other and not."""
    monkeypatch.setattr(delta_gather, "_AT_ONCE", at_once)
    monkeypatch.setattr(delta_gather, "_KEPT", kept - 4)
    rolls = random.Random(at_once)
    sources = [rolls.randbytes(300_000), bytes(range(250)) * 1200, rolls.randbytes(200_000)]
    fds = [os.open(tmp_path / "whole", os.O_RDWR | os.O_CREAT)]
    os.write(fds[0], sources[2])
    starts = []
    try:
        for number, text in enumerate(sources[:2]):
            write(tmp_path / str(number), b"", [text])
            fds.append(os.open(tmp_path / str(number), os.O_RDONLY))
        readers = [DeltaReader(fd) for fd in fds[1:]]
        starts = [int(reader.segments.offset[0]) for reader in readers] + [0]
        gatherer = Gatherer(fds[0], readers)
        for count in (1, 3, 40, 400):
            rows, expected = [], []
            for _ in range(count):
                source = rolls.randrange(3)
                length = rolls.choice((1, 100, 4096, 90_000))
                at = rolls.randrange(len(sources[source]) - length)
                rows.append((length, source, starts[source] + at))
                expected.append(sources[source][at : at + length])
            columns = np.array(rows, np.int64).T
            found = gatherer.gather(columns[0], columns[1], columns[2])
            assert found == b"".join(expected)
            assert len(gatherer._decoded) <= kept
        os.ftruncate(fds[0], 1000)
        with pytest.raises(Damaged, match="shorter"):
            gatherer.gather(*np.array([[10], [2], [995]], np.int64))
    finally:
        for fd in fds:
            os.close(fd)


def test_a_damaged_frame_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "delta"
    write(path, b"", [os.urandom(100_000)])
    with created(tmp_path / "whole") as whole:
        fd = os.open(path, os.O_RDWR)
        try:
            reader = DeltaReader(fd)
            gatherer = Gatherer(whole, [reader])
            os.pwrite(fd, b"????", 50_000)
            columns = np.array([[10, 10], [0, 0], [100, 40_000]], np.int64)
            for _ in range(2):
                with pytest.raises(Damaged):
                    gatherer.gather(*columns)
            assert len(gatherer.gather(*columns[:, :1])) == 10
        finally:
            os.close(fd)
