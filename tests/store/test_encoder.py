"""Deltas: they rebuild the old file, whatever it was, and are as small as they should be."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrorback.store import encoder
from mirrorback.store.chunks import ChunkIndex
from mirrorback.store.encoder import Tuning, encode
from mirrorback.store.large import LargeFile

KIB, MIB = 1 << 10, 1 << 20
SMALL = Tuning(block=1024, window=4096, chunk=256, slots=1 << 14)
NARROW = Tuning(block=1024, window=2048, chunk=256, slots=1 << 14, at_once=1, for_a_byte=4)


class Pieces:
    """A sink that keeps all, and can rebuild the old file."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, int] | bytes] = []

    def copy(self, offset: int, length: int) -> None:
        assert length > 0
        self.pieces.append((offset, length))

    def literal(self, data: bytes) -> None:
        assert type(data) is bytes and data
        self.pieces.append(data)

    def rebuilt(self, new: bytes) -> bytes:
        out = []
        for piece in self.pieces:
            if isinstance(piece, bytes):
                out.append(piece)
            else:
                offset, length = piece
                assert offset >= 0 and offset + length <= len(new)
                out.append(new[offset : offset + length])
        return b"".join(out)

    @property
    def literals(self) -> int:
        return sum(len(piece) for piece in self.pieces if isinstance(piece, bytes))

    @property
    def copied(self) -> int:
        return sum(piece[1] for piece in self.pieces if isinstance(piece, tuple))

    @property
    def commands(self) -> int:
        """With those joined that a sink joins."""
        count, end = 0, None
        for piece in self.pieces:
            if isinstance(piece, bytes):
                count, end = count + (end != -1), -1
            else:
                count, end = count + (end != piece[0]), sum(piece)
        return count


def nothing(count: int) -> None:
    """Progress that nobody looks at."""


def encoded(
    old: bytes, new: bytes, tuning: Tuning = encoder.DEFAULT, limit: int | None = None
) -> Pieces | None:
    """The pieces, after proof that they rebuild the old content; None where given up."""
    sink, told = Pieces(), [0]
    with tempfile.TemporaryFile() as one, tempfile.TemporaryFile() as other:
        for file, data in ((one, old), (other, new)):
            file.write(data)
            file.flush()
        kept = encode(
            one.fileno(),
            other.fileno(),
            sink,
            limit=len(old) if limit is None else limit,
            progress=told.append,
            tuning=tuning,
        )
    if limit is not None:
        assert sink.literals <= limit
    if not kept:
        assert limit is not None
        return None
    assert sink.rebuilt(new) == old
    assert sum(told) == len(old)
    return sink


def must(pieces: Pieces | None) -> Pieces:
    assert pieces is not None
    return pieces


# --- any content, any change ------------------------------------------------------------------

SEEDS = st.integers(0, 9)
CONTENT = st.one_of(
    st.builds(
        lambda seed, size: random.Random(seed).randbytes(size), SEEDS, st.integers(0, 40_000)
    ),
    st.builds(bytes, st.integers(0, 20_000)),
    st.builds(bytes.__mul__, st.binary(min_size=1, max_size=300), st.integers(0, 200)),
    st.builds(
        lambda seed, size: bytes(random.Random(seed).choices(b"ab", k=size)),
        SEEDS,
        st.integers(0, 20_000),
    ),
)
EDIT = st.tuples(
    st.sampled_from(["insert", "delete", "write", "move", "copy", "zero"]),
    st.integers(0, 40_000),
    st.integers(0, 40_000),
    st.integers(0, 9_000),
)


def edited(data: bytes, edits: list[tuple[str, int, int, int]]) -> bytes:
    """What edits make of a file."""
    for number, (kind, at, to, length) in enumerate(edits):
        at, to = at % (len(data) + 1), to % (len(data) + 1)
        part, without = data[at : at + length], data[:at] + data[at + length :]
        fresh = random.Random(number).randbytes(length)
        data = {
            "insert": data[:at] + fresh + data[at:],
            "delete": without,
            "write": data[:at] + fresh[: len(part)] + data[at + length :],
            "move": without[:to] + part + without[to:],
            "copy": data[:to] + part + data[to:],
            "zero": data[:at] + bytes(len(part)) + data[at + length :],
        }[kind]
    return data


@settings(deadline=None)
@given(CONTENT, st.lists(EDIT, max_size=6), st.sampled_from([SMALL, NARROW, encoder.DEFAULT]))
def test_the_old_file_comes_back(old: bytes, edits: list, tuning: Tuning) -> None:
    new = edited(old, edits)
    encoded(old, new, tuning)
    encoded(new, old, tuning)


@settings(deadline=None)
@given(CONTENT, CONTENT, st.integers(0, 40_000))
def test_two_files_that_have_nothing_to_do_with_each_other(
    old: bytes, new: bytes, limit: int
) -> None:
    pieces = must(encoded(old, new, SMALL))
    again = encoded(old, new, SMALL, limit)
    assert (again is not None) == (pieces.literals <= limit)


@pytest.mark.parametrize("size", [
    0, 1, 63, 64, 65,
    4 * KIB - 1, 4 * KIB, 4 * KIB + 1,
    64 * KIB - 1, 64 * KIB, 64 * KIB + 1,
    256 * KIB - 1, 256 * KIB, 256 * KIB + 1,
    MIB - 1, MIB, MIB + 1,
])  # fmt: skip
def test_sizes_around_those_of_blocks(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert must(encoded(data, data)).literals == 0
    for less in {0, 1, size // 2, size - 1} - {-1}:
        assert must(encoded(data[:less], data)).literals == 0
        longer = must(encoded(data, data[:less]))  # what has been cut off is nowhere
        assert size - less <= longer.literals <= size - less + 64
    assert must(encoded(data, b"")).literals == size
    front = must(encoded(data, b"ab" + data))
    assert front.literals <= min(size, 4 * KIB)  # so little is not looked for


# --- small deltas -------------------------------------------------------------------------------


def test_only_what_changed_is_a_literal() -> None:
    old = random.Random(1).randbytes(4 * MIB)
    new = bytearray(old)
    for page in random.Random(2).sample(range(1024), 10):
        new[page * 4096 : (page + 1) * 4096] = random.Random(page).randbytes(4096)
    pieces = must(encoded(old, bytes(new)))
    assert pieces.literals <= 10 * 4096
    assert pieces.commands <= 21


@pytest.mark.parametrize("tuning", [SMALL, encoder.DEFAULT])
@pytest.mark.parametrize("inserted", [1, 777, 70_000, 900_000])
def test_an_insertion_in_front_is_free(inserted: int, tuning: Tuning) -> None:
    old = random.Random(1).randbytes(MIB)
    new = random.Random(2).randbytes(inserted) + old + b"appended" * 999
    pieces = must(encoded(old, new, tuning))
    assert pieces.literals == 0
    assert pieces.commands == 1


@pytest.mark.parametrize("at", [0, 3, 100_000, 500_000, 262_144 - 5, 262_144, 262_144 + 40_000])
def test_an_insertion_and_a_deletion_cost_what_is_gone(at: int) -> None:
    old = random.Random(1).randbytes(MIB)
    fresh = random.Random(2).randbytes(5000)
    pieces = must(encoded(old, old[:at] + fresh + old[at:]))
    assert pieces.literals <= 1  # by chance a byte at the seam
    assert pieces.commands <= 3
    pieces = must(encoded(old, old[:at] + old[at + 5000 :]))
    assert 5000 <= pieces.literals <= 5001
    assert pieces.commands <= 3


def test_blocks_that_were_shuffled_are_found() -> None:
    old = random.Random(1).randbytes(4 * MIB)
    order = list(range(64))
    random.Random(2).shuffle(order)
    new = b"".join(old[n * 64 * KIB : (n + 1) * 64 * KIB] for n in order)
    pieces = must(encoded(old, new))
    assert pieces.literals <= 1000
    assert pieces.commands <= 140


def test_what_moved_is_found_though_zeros_are_everywhere() -> None:
    rng = random.Random(1)
    parts = [rng.randbytes(20_000) if number % 3 else bytes(30_000) for number in range(60)]
    old = b"".join(parts)
    pieces = must(encoded(old, b"x" * 12_345 + old))
    assert pieces.literals <= 40_000


def test_a_second_shift_and_the_way_back_are_followed() -> None:
    old = random.Random(1).randbytes(3 * MIB)
    moved = old[MIB : MIB + 300_000]
    new = old[:MIB] + old[MIB + 300_000 : 2 * MIB] + moved + old[2 * MIB :]
    pieces = must(encoded(old, new))
    assert pieces.literals <= 3
    assert pieces.commands <= 8


def test_smaller_blocks_that_were_shuffled_are_found_for_the_most_part() -> None:
    old = random.Random(1).randbytes(4 * MIB)
    order = list(range(256))
    random.Random(2).shuffle(order)
    new = b"".join(old[n * 16 * KIB : (n + 1) * 16 * KIB] for n in order)
    assert must(encoded(old, new)).literals <= 1 * MIB


@pytest.mark.parametrize("apart", [100, 1000])
def test_lines_that_come_and_go_cost_themselves(apart: int) -> None:
    # Lines of much the same look: bytes are often equal by chance at a wrong shift.
    rng = random.Random(1)
    lines = [b"%d key=%s\n" % (n, rng.randbytes(20).hex().encode()) for n in range(40_000)]
    more = b"".join(lines)
    less = b"".join(line for n, line in enumerate(lines) if n % apart)
    gone = len(more) - len(less)
    assert must(encoded(more, less)).literals <= gone * 1.1
    assert must(encoded(less, more)).literals <= gone * 0.1


def test_a_mailbox_that_got_a_header_and_lost_a_message() -> None:
    rng = random.Random(1)
    words = [rng.randbytes(3).hex() for _ in range(500)]
    messages = [
        b"From %d\n\n" % number + " ".join(rng.choices(words, k=500)).encode()
        for number in range(600)
    ]
    old = b"".join(messages)
    new = b"X-Header: yes\n" + b"".join(messages[:200] + messages[201:]) + messages[3] * 5
    pieces = must(encoded(old, new))
    assert pieces.literals <= len(messages[200]) + 200
    assert pieces.commands <= 10


@pytest.mark.parametrize("unit", [b"\0", b"a", b"ab", b"0123456789" * 30])
def test_periodic_content_needs_hardly_a_literal(unit: bytes) -> None:
    old = unit * (2 * MIB // len(unit))
    for new in (b"x" + old, old[: MIB + 7], old[70_001:], old + b"y" * 100_000):
        assert must(encoded(old, new)).literals <= 32 * KIB


def test_what_is_nowhere_in_the_newer_file_is_a_literal() -> None:
    old, new = random.Random(1).randbytes(300_000), random.Random(2).randbytes(300_000)
    pieces = must(encoded(old, new))
    assert pieces.literals == 300_000
    unique = b"found nowhere else: " + random.Random(3).randbytes(50)
    pieces = must(encoded(old[:1000] + unique + old[1070:], old))
    assert [piece for piece in pieces.pieces if isinstance(piece, bytes)] == [unique]


# --- limits -------------------------------------------------------------------------------------


def test_the_limit_is_kept_to_the_byte() -> None:
    old = random.Random(1).randbytes(300_000)
    new = old[:100_000] + bytes(5000) + old[105_000:]
    needed = must(encoded(old, new)).literals
    assert encoded(old, new, limit=needed) is not None
    assert encoded(old, new, limit=needed - 1) is None
    assert encoded(old, new, limit=0) is None
    assert encoded(old, old, limit=0) is not None
    assert encoded(b"", new, limit=0) is not None


def test_giving_up_is_early(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(random.Random(1).randbytes(8 * MIB))
    new.write_bytes(random.Random(2).randbytes(8 * MIB))
    told: list[int] = []
    with old.open("rb") as one, new.open("rb") as other:
        sink = Pieces()
        assert not encode(one.fileno(), other.fileno(), sink, limit=MIB, progress=told.append)
    assert MIB - 64 * KIB <= sum(told) <= MIB
    assert sink.literals <= MIB


# --- bounds -------------------------------------------------------------------------------------


@pytest.fixture
def indexes(monkeypatch: pytest.MonkeyPatch) -> list[ChunkIndex]:
    """All indexes that are made."""
    made: list[ChunkIndex] = []

    def make(file: LargeFile, average: int, slots: int) -> ChunkIndex:
        made.append(ChunkIndex(file, average, slots))
        return made[-1]

    monkeypatch.setattr(encoder, "ChunkIndex", make)
    return made


def test_no_chunk_is_cut_where_nothing_moved(indexes: list[ChunkIndex]) -> None:
    old = random.Random(1).randbytes(2 * MIB)
    new = bytearray(old)
    for at in range(0, 2 * MIB, 64 * KIB):
        new[at : at + 20_000] = bytes(20_000)
    assert must(encoded(old, bytes(new))).literals <= 32 * 20_000
    assert not indexes


def test_what_was_rewritten_between_the_same_costs_no_index(indexes: list[ChunkIndex]) -> None:
    old = random.Random(1).randbytes(MIB)
    new = old[:200_000] + random.Random(2).randbytes(40_000) + old[240_000:]
    assert must(encoded(old, new)).literals <= 40_000
    assert len(indexes) <= 1


def test_a_little_at_the_end_is_not_worth_an_index(indexes: list[ChunkIndex]) -> None:
    old = random.Random(1).randbytes(MIB)
    new = old[:-20_000] + random.Random(2).randbytes(20_000)
    assert must(encoded(old, new)).literals <= 20_000
    assert not indexes


def test_the_way_back_to_the_same_offset_needs_no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    old = random.Random(1).randbytes(3 * MIB)
    new = old[:MIB] + random.Random(2).randbytes(300_000) + old[MIB : 2 * MIB - 300_000]
    new += old[2 * MIB :]
    find, asked = ChunkIndex.find, 0

    def only_once(index: ChunkIndex, digests: list[int]) -> list[int | None]:
        nonlocal asked
        asked += 1
        return find(index, digests) if asked == 1 else [None] * len(digests)

    monkeypatch.setattr(ChunkIndex, "find", only_once)
    assert must(encoded(old, new)).literals <= 300_100
    assert asked > 1


def test_what_may_still_be_needed_stays_in_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passed: list[int] = []
    monkeypatch.setattr(LargeFile, "passed", lambda self, offset: passed.append(offset))
    old = random.Random(1).randbytes(2 * MIB)
    must(encoded(old, old[MIB:] + old[:MIB]))
    assert max(passed[1::2]) <= 2 * MIB
    assert all(offset <= at for at, offset in zip(passed[::2], passed[1::2], strict=True))


def test_the_index_stays_within_its_slots(indexes: list[ChunkIndex]) -> None:
    old = random.Random(1).randbytes(2 * MIB)
    tuning = Tuning(block=1024, window=4096, chunk=1024, slots=64)
    assert must(encoded(old, bytes(900_000) + old, tuning)).literals < 2 * MIB
    assert [index.slots for index in indexes] == [64]
    assert len(indexes[0]) <= 64


def test_little_is_indexed_for_little_that_is_lost(indexes: list[ChunkIndex]) -> None:
    old = random.Random(1).randbytes(40 * MIB)
    new = old[: 20 * MIB] + bytes(100_000) + old[20 * MIB + 100_000 :]
    tuning = Tuning(at_once=4 * MIB, for_a_byte=8)
    assert must(encoded(old, new, tuning)).literals <= 100_000
    assert [index.indexed for index in indexes] == [4 * MIB]


def test_more_is_indexed_where_more_is_lost(indexes: list[ChunkIndex]) -> None:
    old = random.Random(1).randbytes(24 * MIB)
    new = random.Random(2).randbytes(16 * MIB) + old
    tuning = Tuning(at_once=4 * MIB, for_a_byte=64)
    assert must(encoded(old, new, tuning)).literals <= MIB
    assert 20 * MIB <= indexes[0].indexed <= 40 * MIB


# --- holes --------------------------------------------------------------------------------------

TIB = 1 << 40
Layout = list[tuple[int, bytes]]


def layout_file(path: Path, size: int, layout: Layout) -> int:
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_TRUNC)
    os.ftruncate(fd, size)
    for offset, data in layout:
        os.pwrite(fd, data, offset)
    return fd


class Counted:
    """Counts the bytes that are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        pread, preadv = os.pread, os.preadv
        monkeypatch.setattr(os, "pread", lambda *given: self._add(pread(*given)))
        monkeypatch.setattr(os, "preadv", lambda *given: self._more(preadv(*given)))

    def _add(self, data: bytes) -> bytes:
        self.bytes += len(data)
        return data

    def _more(self, count: int) -> int:
        self.bytes += count
        return count


@pytest.fixture
def sparse(tmp_path: Path) -> Callable[[int, Layout, int, Layout, int], tuple[Pieces, bool]]:
    """Encodes two files of much hole."""

    def run(
        old_size: int, old: Layout, new_size: int, new: Layout, limit: int
    ) -> tuple[Pieces, bool]:
        one = layout_file(tmp_path / "old", old_size, old)
        other = layout_file(tmp_path / "new", new_size, new)
        try:
            if any(os.fstat(fd).st_blocks * 512 >= MIB * 64 for fd in (one, other)):
                pytest.skip("no holes here")
            sink = Pieces()
            return sink, encode(one, other, sink, limit=limit, progress=nothing)
        finally:
            os.close(one)
            os.close(other)

    return run


DATA = random.Random(1).randbytes(200_000)


def test_equal_holes_are_not_read(sparse: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    layout = [(0, DATA), (TIB // 2, DATA), (TIB - len(DATA), DATA)]
    changed = [(0, DATA), (TIB // 2, b"x" * 50 + DATA[50:]), (TIB - len(DATA), DATA)]
    pieces, kept = sparse(TIB, layout, TIB, changed, TIB // 2)
    assert kept and pieces.literals == 50 and pieces.copied == TIB - 50
    assert len(pieces.pieces) < 40
    assert pieces.commands == 3  # holes are copied from where they are
    assert counted.bytes < 8 * MIB


def test_a_hole_at_another_place_will_do(sparse: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    pieces, kept = sparse(TIB, [], 1 << 30, [(0, DATA)], TIB // 2)
    assert kept and pieces.literals == 0 and pieces.copied == TIB
    assert counted.bytes < 8 * MIB


def test_a_hole_that_is_nowhere_is_given_up_at_once(sparse: Callable) -> None:
    pieces, kept = sparse(TIB, [(0, DATA)], len(DATA), [(0, DATA)], TIB // 2)
    assert not kept and pieces.literals <= MIB
    pieces, kept = sparse(TIB, [], 0, [], TIB // 2)
    assert not kept and not pieces.pieces
    pieces, kept = sparse(8 * MIB, [], 0, [], 8 * MIB)
    assert kept and pieces.literals == 8 * MIB


@pytest.mark.parametrize("seed", range(30))
def test_holes_anywhere_come_back(sparse: Callable, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)

    def layout(size: int) -> Layout:
        places = [rng.randrange(size) // 4096 * 4096 for _ in range(rng.randrange(5))]
        return [(at, DATA[: min(rng.randrange(1, len(DATA)), size - at)]) for at in places]

    old_size, new_size = rng.randrange(1, 6 * MIB), rng.randrange(1, 6 * MIB)
    old = layout(old_size)
    new = rng.choice([old, layout(new_size), []])
    new_size = max([new_size, *(at + len(data) for at, data in new)])
    pieces, kept = sparse(old_size, old, new_size, new, old_size)
    assert kept
    whole = (tmp_path / "new").read_bytes()
    assert pieces.rebuilt(whole) == (tmp_path / "old").read_bytes()


# --- files that change meanwhile ----------------------------------------------------------------


@pytest.mark.parametrize("which", ["old", "new"])
@pytest.mark.parametrize("to", [0, 10, MIB, 9 * MIB])
def test_a_file_that_changes_its_size_meanwhile_ends_all_the_same(
    tmp_path: Path, which: str, to: int
) -> None:
    data = random.Random(1).randbytes(4 * MIB)
    (tmp_path / "old").write_bytes(data)
    (tmp_path / "new").write_bytes(b"shifted" + data)
    done = 0

    def change(count: int) -> None:
        nonlocal done
        done += count
        if done >= MIB:
            os.truncate(tmp_path / which, to)

    with (tmp_path / "old").open("rb") as one, (tmp_path / "new").open("rb") as other:
        assert encode(one.fileno(), other.fileno(), Pieces(), limit=4 * MIB, progress=change)
    assert done == 4 * MIB


@pytest.mark.parametrize("seed", range(20))
def test_files_that_never_hold_still_are_gone_through(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    read = LargeFile.read

    def unsteady(file: LargeFile, offset: int, length: int) -> bytes:
        data = bytearray(read(file, offset, length))
        for _ in range(rng.randrange(3)):
            at = rng.randrange(length)
            data[at : at + 3000] = bytes([rng.randrange(3)]) * len(data[at : at + 3000])
        return bytes(data)

    monkeypatch.setattr(LargeFile, "read", unsteady)
    monkeypatch.setattr(LargeFile, "look", unsteady)
    told: list[int] = []
    with tempfile.TemporaryFile() as one, tempfile.TemporaryFile() as other:
        for file in (one, other):
            file.write(b"x" * (file is other) + random.Random(1).randbytes(60_000))
            file.flush()
        fds = one.fileno(), other.fileno()
        assert encode(*fds, Pieces(), limit=60_000, progress=told.append, tuning=SMALL)
    assert sum(told) == 60_000
    assert len(told) < 3000


def test_what_the_drive_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(bytes(MIB))

    def fail(*given: object) -> bytes:
        raise OSError(5, "no")

    with (tmp_path / "f").open("rb") as file:
        monkeypatch.setattr(os, "pread", fail)
        monkeypatch.setattr(os, "preadv", fail)
        with pytest.raises(OSError, match="no"):
            encode(file.fileno(), file.fileno(), Pieces(), limit=0, progress=nothing)


def test_a_night_without_large_files_does_not_wait_for_large_packages() -> None:
    program = (
        "import sys, mirrorback.store.encoder;"
        "print({'numpy', 'pyfastcdc', 'xxhash'} & set(sys.modules) or 'none')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"none"
