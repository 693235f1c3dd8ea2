"""Reverse deltas for tests: histories of bytes, files of deltas, and deltas made by hand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from blake3 import blake3
from hypothesis import strategies as st

from mirrorback.errors import Damaged
from mirrorback.model import Digest
from mirrorback.store import delta_commands
from mirrorback.store import delta_format as form
from mirrorback.store.delta_reader import DeltaReader
from mirrorback.store.delta_writer import DeltaWriter

NOTHING = Digest(bytes(32))
Step = tuple[int, int] | bytes  # a range of the base (offset, length), or bytes
Recipe = list[Step]  # of an old version


def recipes(base_size: int) -> st.SearchStrategy[Recipe]:
    """Ways to make an old version from a base of that size."""
    literal = st.binary(min_size=1, max_size=40)
    if not base_size:
        return st.lists(literal, max_size=3)
    copy = st.integers(0, base_size - 1).flatmap(
        lambda at: st.tuples(st.just(at), st.integers(1, min(base_size - at, 60)))
    )
    whole = st.just((0, base_size))
    return st.lists(st.one_of(literal, copy, whole), max_size=6)


@st.composite
def histories(draw: st.DrawFn, most: int = 5) -> tuple[bytes, list[Recipe]]:
    """A newest version, and recipes: the first makes the version before it, and so on."""
    base = draw(st.binary(max_size=100))
    size = len(base)
    found = []
    for _ in range(draw(st.integers(1, most))):
        recipe = draw(recipes(size))
        if sum(map(step_size, recipe)) > 3000:
            recipe = recipe[:1]
        found.append(recipe)
        size = sum(map(step_size, recipe))
    return base, found


def step_size(step: Step) -> int:
    """The bytes that a step makes."""
    return len(step) if isinstance(step, bytes) else step[1]


def made(base: bytes, recipe: Recipe) -> bytes:
    """The old version: the reference for everything else."""
    return b"".join(
        step if isinstance(step, bytes) else base[step[0] : step[0] + step[1]] for step in recipe
    )


def digest(data: bytes) -> Digest:
    """The plain digest of some bytes."""
    return Digest(blake3(data).digest())


def write(path: Path, base: bytes, recipe: Recipe) -> bytes:
    """Write a delta; returns the old version."""
    old = made(base, recipe)
    with created(path) as fd:
        writer = DeltaWriter(fd)
        for step in recipe:
            if isinstance(step, bytes):
                writer.literal(step)
            else:
                writer.copy(*step)
        size = writer.finish(len(old), digest(old), len(base), digest(base))
        assert size == writer.size == os.fstat(fd).st_size
    return old


@contextmanager
def created(path: Path) -> Iterator[int]:
    """A new empty file, open."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def opened(path: Path, *, scan: bool = False) -> Iterator[DeltaReader]:
    """A reader of a delta."""
    fd = os.open(path, os.O_RDONLY)
    try:
        yield DeltaReader(fd, scan=scan)
    finally:
        os.close(fd)


def restored(reader: DeltaReader, base: bytes) -> bytes:
    """The old version by the reader's segments, one after another."""
    length, kind, offset = (column.tolist() for column in reader.segments)
    return b"".join(
        reader.literal(at, much) if literal else base[at : at + much]
        for much, literal, at in zip(length, kind, offset, strict=True)
    )


def outcome(path: Path, base: bytes, scan: bool) -> bytes | None:
    """The old version; None for Damaged."""
    try:
        with opened(path, scan=scan) as reader:
            return restored(reader, base)
    except Damaged:
        return None


def checked(path: Path) -> bool:
    """Whether a delta passes everything."""
    try:
        with opened(path) as reader:
            reader.check()
        return True
    except Damaged:
        return False


def framed(plain: bytes) -> bytes:
    """A plaintext in frames, without an index."""
    compress = form.compressor(1).compress
    return b"".join(
        compress(plain[at : at + form.FRAME]) for at in range(0, len(plain), form.FRAME)
    )


def plaintext(commands: Sequence[bytes]) -> bytes:
    """Commands, with the literals behind them, as a whole plaintext."""
    return delta_commands.MAGIC + b"".join(commands) + delta_commands.END


def with_index(
    frames: bytes, index: form.Index, body: bytes, *, said: int | None = None, version: int = 1
) -> bytes:
    """A file with an index made by hand whose checksum is right; `said` is the length that it
    claims, if that is not the true one."""
    length = len(body) + form.CLOSING if said is None else said
    checked = bytearray(body + form.closing(index, length))
    checked[-6:-4] = version.to_bytes(2, "little")
    head = form.SKIPPABLE.pack(form.SKIPPABLE_MAGIC, length & 0xFFFFFFFF)
    return frames + head + checked + form.ending(blake3(checked).digest())


def peak(code: str, *words: str) -> int:
    """The most memory, in bytes, that a program of its own has had at once (VmHWM; what
    getrusage tells counts the process that started it)."""
    told = code + "\nprint(open('/proc/self/status').read())"
    script = [sys.executable, "-c", told, *words]
    done = subprocess.run(script, stdout=subprocess.PIPE, text=True, timeout=120, check=True)
    found = re.search(r"VmHWM:\s+(\d+) kB", done.stdout)
    assert found is not None
    return int(found[1]) << 10
