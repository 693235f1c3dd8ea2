"""Signatures say of each block what it is, or they are not believed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrorback.model import Digest
from mirrorback.store.signature import BLOCK, NOTHING, Signature, SignatureWriter, digest_of_block

DIGEST = Digest(bytes(range(32)))
SIZES = [1, 5, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK]


def opened(path: Path, size: int, digest: Digest = DIGEST) -> Signature | None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        return Signature.open(folder, os.fsencode(path.name), size, digest)
    finally:
        os.close(folder)


def write(path: Path, pieces: list[tuple[int, bytes]], size: int) -> None:
    with path.open("w+b") as file:
        writer = SignatureWriter(file.fileno())
        for offset, data in pieces:
            writer.feed(offset, data)
        writer.finish(size, DIGEST)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(SIZES), st.integers(0, 255)), max_size=8),
    st.booleans(),
)
def test_of_each_block(parts: list[tuple[bool, int, int]], hole_at_the_end: bool) -> None:
    """However the content comes; blocks that lie in a hole have no digest."""
    pieces, content = [], bytearray()
    for given_, size, byte in parts:
        if given_:
            pieces.append((len(content), bytes([byte]) * size))
        content += bytes([byte if given_ else 0]) * size
    if hole_at_the_end:
        content += bytes(2 * BLOCK)
    touched = {
        n for at, data in pieces for n in range(at // BLOCK, (at + len(data) - 1) // BLOCK + 1)
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "1"
        write(path, pieces, len(content))
        signature = opened(path, len(content))
        assert signature is not None
        try:
            for number in range(-(-len(content) // BLOCK)):
                block = bytes(content[number * BLOCK : (number + 1) * BLOCK])
                wanted = digest_of_block(block) if number in touched else NOTHING
                assert signature.block(number) == wanted
                assert wanted == NOTHING or wanted == blake3(block).digest(16)
            assert signature.block(len(content) // BLOCK + 1) == b""
        finally:
            signature.close()


def test_a_signature_of_a_huge_hole_is_one(tmp_path: Path) -> None:
    write(tmp_path / "1", [(1 << 39, b"x")], 1 << 40)
    assert (tmp_path / "1").stat().st_blocks * 512 < 1 << 16
    signature = opened(tmp_path / "1", 1 << 40)
    assert signature is not None
    assert signature.block(0) == NOTHING
    assert signature.block((1 << 39) // BLOCK) == digest_of_block(b"x" + bytes(BLOCK - 1))
    signature.close()


@pytest.mark.parametrize("harm", ["flip", "cut", "grown", "size", "digest", "gone", "link"])
def test_a_damaged_one_is_none(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "1"
    write(path, [(0, os.urandom(300_000))], 300_000)
    good = path.read_bytes()
    if harm == "flip":
        for at in range(0, len(good), 7):
            path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            assert opened(path, 300_000) is None, at
        return
    size, digest = 300_000, DIGEST
    if harm == "cut":
        path.write_bytes(good[:-1])
    elif harm == "grown":
        path.write_bytes(good + b"0")
    elif harm == "size":
        size += 1
    elif harm == "digest":
        digest = Digest(bytes(32))
    elif harm == "gone":
        path.unlink()
    else:
        path.rename(tmp_path / "2")
        path.symlink_to(tmp_path / "2")
    assert opened(path, size, digest) is None
