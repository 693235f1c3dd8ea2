"""What is read from `.mirrorback`, of any bytes: what is not right is damage, and nothing else.

How much is tried is set by MIRRORBACK_EXAMPLES.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from deltas import checked, outcome, write
from hostility import Attack, Starter
from hostility import checked as rows_checked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import LargeNights

from mirrorback.errors import Damaged, MirrorbackError
from mirrorback.model import Digest
from mirrorback.store import encoding
from mirrorback.store import settings as toml
from mirrorback.store.content import BLOCK, MOST_ZEROS, PlainHasher
from mirrorback.store.signature import Signature, SignatureWriter

EXAMPLES = int(os.environ.get("MIRRORBACK_EXAMPLES", "12"))
ALWAYS_THE_SAME = "MIRRORBACK_EXAMPLES" not in os.environ
many = settings(
    max_examples=20 * EXAMPLES,
    deadline=None,
    derandomize=ALWAYS_THE_SAME,
    suppress_health_check=list(HealthCheck),
)
BASE = random.Random(1).randbytes(100_000)
RECIPE = [(4096, 40_000), b"new" * 20_000, (0, 5000), (90_000, 10_000), b"end"]


@contextlib.contextmanager
def folder(path: Path) -> Iterator[int]:
    """An open folder."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@st.composite
def changed(draw: st.DrawFn, data: bytes) -> bytes:
    """Some bytes with a few changes: single bytes, numbers, parts taken out or said twice."""
    found = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(-200, len(found) - 1)) % max(1, len(found))
        how = draw(st.sampled_from(("byte", "number", "out", "twice", "more")))
        if how == "byte" and found:
            found[at] = draw(st.integers(0, 255))
        elif how == "number":
            value = draw(st.sampled_from((0, 1, 1 << 31, 1 << 40, 1 << 62, (1 << 63) - 1)))
            found[at : at + 8] = value.to_bytes(8, "little")
        elif how == "out":
            del found[at : at + draw(st.integers(1, 5000))]
        elif how == "twice":
            found[at:at] = found[at : at + draw(st.integers(1, 100))]
        else:
            found[at:at] = draw(st.binary(max_size=50))
    return bytes(found)


def delta() -> bytes:
    """A delta as it is written."""
    with tempfile.TemporaryDirectory() as made:
        write(Path(made) / "d", BASE, RECIPE)
        return (Path(made) / "d").read_bytes()


DELTA = delta()
TAIL = DELTA.rindex(bytes.fromhex("502a4d18")) + 8  # where its index begins


def right_again(data: bytes) -> bytes:
    """With a right checksum over what is taken for the index."""
    return data[:-40] + blake3(data[TAIL:-40]).digest() + data[-8:] if len(data) > TAIL else data


@given(data=st.one_of(st.binary(max_size=3000), changed(DELTA), changed(DELTA).map(right_again)))
@many
def test_a_delta_of_any_bytes(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "d").write_bytes(data)
    checked(tmp_path / "d")
    for scan in (False, True):
        found = outcome(tmp_path / "d", BASE, scan)
        assert found is None or len(found) < 10_000_000


@given(data=st.data())
@many
def test_a_signature_of_any_bytes(tmp_path: Path, data: st.DataObject) -> None:
    size, digest = 3 * BLOCK + 5, Digest(blake3(b"x").digest())
    with (tmp_path / "s").open("w+b") as file:
        writer = SignatureWriter(file.fileno())
        writer.feed(0, BASE[:size])
        writer.finish(size, digest)
    whole = (tmp_path / "s").read_bytes()
    (tmp_path / "s").write_bytes(data.draw(st.one_of(st.binary(max_size=500), changed(whole))))
    with folder(tmp_path) as fd:
        signature = Signature.open(fd, b"s", size, digest)
        if signature is not None:
            assert (tmp_path / "s").read_bytes() == whole
            signature.block(1 << 62)
            signature.close()


TOML = st.one_of(
    st.text(max_size=300),
    st.sampled_from(
        (
            *("a = " + "[" * 100_000, "a" + ".a" * 100_000 + " = 1", "[" * 5000 + "]" * 5000),
            *("format = " + "9" * 5000, "format = true", "format = 1e999", "format = -1"),
            *("id = 1979-05-27T07:32:00Z", "[settings]\n[settings]", "source = '../../etc'"),
        )
    ),
)


def both(text: str) -> st.SearchStrategy[bytes]:
    """As a person may leave it, and with a right digest."""
    data = text.encode("utf-8", "replace")
    return st.sampled_from((data, toml.seal(data.decode())))


@given(data=st.one_of(st.binary(max_size=300), TOML.flatmap(both)))
@many
def test_settings_of_any_bytes(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "repository.toml").write_bytes(data)
    with folder(tmp_path) as fd, pytest.raises(MirrorbackError):
        toml.read(fd)
    with contextlib.suppress(Damaged):
        toml.unseal(data, "it")


@given(data=st.binary(max_size=200))
@many
def test_attributes_of_any_bytes(data: bytes) -> None:
    with contextlib.suppress(Damaged):
        assert encoding.pack_xattrs(encoding.unpack_xattrs(data)) == data


# --- sizes ------------------------------------------------------------------------------


@pytest.fixture
def vast(lived_nights: LargeNights, starter: Starter, tmp_path: Path) -> Iterator[Attack]:
    """A copy on a file system whose files may have exabytes."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        yield Attack(lived_nights, starter, tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("digest", ["digest = NULL", "sparse = 0", "sparse = 1"])
def test_a_file_of_exabytes(vast: Attack, digest: str) -> None:
    """Nothing but a hole, in the mirror as in the catalog."""
    path, size = vast.repository / "current/d/a", (1 << 62) - 1
    path.unlink()
    path.touch()
    os.truncate(path, size)
    with vast.database() as db:
        number = "(SELECT object FROM entry WHERE name = x'61' AND last IS NULL)"
        db.execute(f"UPDATE object SET size = ?, {digest} WHERE id = {number}", (size,))
        rows_checked(db)
    vast.require_harmless("restore REPO --to BACK", "verify REPO", "stats REPO")


def test_a_hole_without_end_is_no_file_that_was_read() -> None:
    with pytest.raises(Damaged):
        PlainHasher().finish(MOST_ZEROS + 1)
