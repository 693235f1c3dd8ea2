"""Debian's own zstd and rdiff restore what we write, byte for byte."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from deltas import NOTHING, Recipe, created, framed, made, opened, plaintext, restored, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirrorback.store import delta_commands
from mirrorback.store.delta_writer import DeltaWriter

MISSING = [name for name in ("rdiff", "zstd") if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

FAR = (4 << 30) + (16 << 20)


def patched(delta: Path, base: Path) -> bytes:
    """What the command in README.txt makes."""
    command = 'zstd -dc "$0" | rdiff patch "$1" - "$2"'
    out = delta.with_suffix(".out")
    out.unlink(missing_ok=True)
    script = ["bash", "-euo", "pipefail", "-c", command, str(delta), str(base), str(out)]
    done = subprocess.run(script, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    return out.read_bytes()


BASE = bytes(range(256)) * 300
RECIPES: dict[str, Recipe] = {
    "an empty old file": [],
    "only literals": [b"a" * 64, b"b" * 65],
    "only copies": [(5, 10), (0, 70_000), (300, 1), (70_000, 6_800)],
    "one literal of each width": [b"x", (0, 1), b"y" * 255, (0, 1), os.urandom(70_000)],
    "a literal of several commands": [os.urandom(3_000_000)],
    "a literal that is all zeros": [bytes(2_000_000), (1, 1), bytes(64)],
    "the whole base": [(0, len(BASE))],
    "the base twice": [(0, len(BASE)), (0, len(BASE))],
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_stock_tools_restore(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "base").write_bytes(BASE)
    old = write(tmp_path / "d", BASE, recipe)
    assert patched(tmp_path / "d", tmp_path / "base") == old == made(BASE, recipe)


@pytest.mark.parametrize("recipe", [[], [b"a"], [os.urandom(100_000)]])
def test_stock_tools_restore_from_an_empty_base(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "base").touch()
    old = write(tmp_path / "d", b"", recipe)
    assert patched(tmp_path / "d", tmp_path / "base") == old


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.binary(min_size=1, max_size=300),
            st.integers(1, 90_000).map(bytes),
            st.tuples(st.integers(0, 300), st.sampled_from([1, 64, 255, 256, 65_535, 65_536])),
        ),
        max_size=8,
    )
)
def test_stock_tools_restore_anything(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "base").write_bytes(BASE)
    old = write(tmp_path / "d", BASE, recipe)
    assert patched(tmp_path / "d", tmp_path / "base") == old


def test_stock_tools_read_every_command_that_we_read(tmp_path: Path) -> None:
    commands = []
    for number, width in enumerate((1, 2, 4, 8)):
        commands.append(bytes([0x41 + number]) + (3).to_bytes(width, "big") + b"abc")
        for other, length in enumerate((1, 2, 4, 8)):
            opcode = bytes([0x45 + 4 * number + other])
            commands.append(opcode + (200).to_bytes(width, "big") + (99).to_bytes(length, "big"))
    commands += [bytes([length]) + os.urandom(length) for length in range(1, 65)]
    (tmp_path / "base").write_bytes(BASE)
    (tmp_path / "d").write_bytes(framed(plaintext(commands)))
    with opened(tmp_path / "d", scan=True) as reader:
        assert restored(reader, BASE) == patched(tmp_path / "d", tmp_path / "base")


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """A base of more than 4 GiB, nearly all of it hole."""
    path = tmp_path / "huge"
    with open(path, "wb") as file:
        for at in (0, (1 << 32) - 50, 1 << 32, FAR):
            file.seek(at)
            file.write(b"at %d " % at + os.urandom(70_000))
    if path.stat().st_blocks * 512 > 1 << 24:
        pytest.skip("no holes on this file system")
    return path


def test_stock_tools_copy_from_beyond_4_gib(tmp_path: Path, huge: Path) -> None:
    with created(tmp_path / "d") as fd, open(huge, "rb") as file:
        writer = DeltaWriter(fd)
        expected = b""
        for at in (FAR, (1 << 32) - 1, 1 << 32, 3, (1 << 32) - 40):
            for length in (1, 300, 70_000):
                writer.copy(at, length)
                expected += os.pread(file.fileno(), length, at)
                writer.literal(b"|")
                expected += b"|"
        size = huge.stat().st_size
        writer.finish(len(expected), NOTHING, size, NOTHING)
    assert patched(tmp_path / "d", huge) == expected


def test_stock_tools_copy_more_than_4_gib(tmp_path: Path, huge: Path) -> None:
    size = huge.stat().st_size
    assert delta_commands.copy_command(0, size)[0] == 0x48  # with a length of 8 bytes
    with created(tmp_path / "d") as fd:
        writer = DeltaWriter(fd)
        writer.copy(0, size)
        writer.finish(size, NOTHING, size, NOTHING)
    command = 'zstd -dc "$0" | rdiff patch "$1" - - | cmp - "$1"'
    script = ["bash", "-euo", "pipefail", "-c", command, str(tmp_path / "d"), str(huge)]
    subprocess.run(script, check=True, timeout=120)


def test_zstd_itself_finds_nothing_wrong(tmp_path: Path) -> None:
    write(tmp_path / "d", BASE, [os.urandom(100_000), (0, 100), bytes(100_000)])
    done = subprocess.run(["zstd", "-t", str(tmp_path / "d")], stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 0, done.stderr
