"""Files of reverse deltas, written and read back."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from deltas import (
    NOTHING,
    Recipe,
    created,
    digest,
    framed,
    histories,
    made,
    opened,
    peak,
    plaintext,
    restored,
    write,
)
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.errors import Damaged, DeltaTooLarge
from mirrorback.model import COPY, LITERAL, SIZE_LIMIT, Digest
from mirrorback.store import content, delta_writer
from mirrorback.store import delta_format as form
from mirrorback.store.delta_reader import DeltaReader
from mirrorback.store.delta_writer import LITERAL_MOST, DeltaWriter


@given(histories(most=1))
def test_what_is_written_is_read(history: tuple[bytes, list[Recipe]]) -> None:
    base, (recipe,) = history
    with TemporaryDirectory() as folder:
        path = Path(folder, "d")
        old = write(path, base, recipe)
        with opened(path) as reader:
            assert not reader.rebuilt
            assert (reader.old_size, reader.base_size) == (len(old), len(base))
            assert (reader.old_digest, reader.base_digest) == (digest(old), digest(base))
            assert restored(reader, base) == old
            reader.check()
            columns = reader.segments
        # The same without the index.
        frames = path.read_bytes()[: -form.CLOSING]
        path.write_bytes(frames)
        with opened(path, scan=True) as reader:
            assert reader.rebuilt
            assert reader.old_size == len(old)
            assert reader.old_digest is reader.base_size is reader.base_digest is None
            assert all(map(np.array_equal, reader.segments, columns))
            assert restored(reader, base) == old
            reader.check()
        with pytest.raises(Damaged, match="no index"), opened(path):
            pass


def test_neighbours_are_joined(tmp_path: Path) -> None:
    base = bytes(range(200))
    recipe: Recipe = [(3, 4), (7, 10), (17, 1), (17, 2), b"ab", b"c", (0, 5), (5, 5), b"d"]
    old = write(tmp_path / "d", base, recipe)
    with opened(tmp_path / "d") as reader:
        assert reader.segments.length.tolist() == [15, 2, 3, 10, 1]
        assert reader.segments.kind.tolist() == [COPY, COPY, LITERAL, COPY, LITERAL]
        assert restored(reader, base) == old == made(base, recipe)


def test_nothing_given_makes_no_segment(tmp_path: Path) -> None:
    with created(tmp_path / "d") as fd:
        writer = DeltaWriter(fd)
        writer.copy(0, 3)
        writer.literal(b"")
        writer.copy(3, 2)
        writer.copy(9, 0)
        writer.copy(5, 1)
        writer.finish(6, NOTHING, 6, NOTHING)
        assert DeltaReader(fd).segments.length.tolist() == [6]


@pytest.mark.parametrize("piece", [1, 1000, LITERAL_MOST - 1, LITERAL_MOST, 5 * LITERAL_MOST])
def test_long_literals_are_cut_at_a_mebibyte(tmp_path: Path, piece: int) -> None:
    data = os.urandom(3 * LITERAL_MOST + 77) if piece > 1 else os.urandom(70_000)
    with created(tmp_path / "d") as fd:
        writer = DeltaWriter(fd)
        for at in range(0, len(data), piece):
            writer.literal(memoryview(data)[at : at + piece])
        writer.copy(1, 9)
        writer.literal(b"end")
        writer.finish(len(data) + 12, NOTHING, 10, NOTHING)
        reader = DeltaReader(fd)
        assert restored(reader, bytes(10)) == data + bytes(9) + b"end"
        whole, rest = divmod(len(data), LITERAL_MOST)
        assert reader.segments.length.tolist() == [LITERAL_MOST] * whole + [rest, 9, 3]
        reader.check()


@pytest.mark.parametrize("over", range(-12, 3))
def test_commands_across_the_edge_of_a_frame(tmp_path: Path, over: int) -> None:
    recipe: Recipe = [os.urandom(form.FRAME + over), (100, 900), b"x", (5, 3)]
    base = os.urandom(1000)
    old = write(tmp_path / "d", base, recipe)
    with opened(tmp_path / "d") as reader:
        assert restored(reader, base) == old
        reader.check()
    (tmp_path / "e").write_bytes((tmp_path / "d").read_bytes()[:-1])
    with opened(tmp_path / "e", scan=True) as reader:
        assert restored(reader, base) == old


def test_both_forms_of_digest_are_kept(tmp_path: Path) -> None:
    for old in (Digest(b"o" * 32, sparse=True), Digest(b"o" * 32)):
        for base in (Digest(b"b" * 32, sparse=True), Digest(b"b" * 32)):
            with created(tmp_path / "d") as fd:
                DeltaWriter(fd).finish(0, old, 7, base)
                reader = DeltaReader(fd)
                assert (reader.old_digest, reader.base_digest) == (old, base)


def test_places_beyond_4_gib(tmp_path: Path) -> None:
    far = 5 << 32
    with created(tmp_path / "d") as fd:
        writer = DeltaWriter(fd)
        writer.copy(far, far)
        writer.literal(b"abc")
        writer.copy(7, far)
        writer.finish(2 * far + 3, NOTHING, 2 * far, NOTHING)
        reader = DeltaReader(fd)
        reader.check()
        assert reader.old_size == 2 * far + 3
        assert reader.segments.length.tolist() == [far, 3, far]
        assert reader.segments.offset.tolist()[::2] == [far, 7]
        os.ftruncate(fd, os.fstat(fd).st_size - 1)
        scanned = DeltaReader(fd, scan=True)
        assert scanned.segments.length.tolist() == [far, 3, far]


@given(
    st.lists(
        st.tuples(st.integers(1, 1 << 40), st.integers(0, 1), st.integers(0, 1 << 61)), max_size=30
    ),
    st.integers(1, 7),
)
def test_offsets_survive_their_coding_in_blocks(
    rows: list[tuple[int, int, int]], step: int
) -> None:
    gathered = form.Rows()
    for row in rows:
        gathered.add(*row)
    whole = gathered.block(0)
    there, back = form.Offsets(), form.Offsets()
    for at in range(0, len(rows), step):
        block = type(whole)(*(column[at : at + step] for column in whole))
        packed = form.packed_segments(form.compressor(1), block, there)
        assert form.packed_length(packed[:4]) == len(packed) - 4
        again = form.unpacked_segments(packed[4:], len(block.length), back)
        assert all(map(np.array_equal, again, block))


def test_more_segments_and_frames_than_a_block_of_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(form, "BLOCK", 64)
    monkeypatch.setattr(form, "FRAME", 256)
    base = os.urandom(4000)
    recipe: Recipe = []
    for at in range(0, 3000, 7):
        recipe += [(at, 5), os.urandom(at % 90 + 1)]
    old = write(tmp_path / "d", base, recipe)
    with opened(tmp_path / "d") as reader:
        assert len(reader.segments.length) == len(recipe)
        assert restored(reader, base) == old
        told: list[int] = []
        reader.check(told.append)
        assert len(told) > 64
        assert sum(told) < (tmp_path / "d").stat().st_size
    (tmp_path / "d").write_bytes((tmp_path / "d").read_bytes()[:-1])
    with opened(tmp_path / "d", scan=True) as reader:
        assert restored(reader, base) == old
        reader.check()


def test_an_index_that_compresses_well_is_filled_up(tmp_path: Path) -> None:
    count = 20_000
    with created(tmp_path / "d") as fd:
        writer = DeltaWriter(fd)
        for at in range(count):
            writer.copy(at * 200, 100)
            writer.literal(bytes(100))
        writer.finish(200 * count, NOTHING, 200 * count, NOTHING)
        _, length, _ = form.opened(
            os.pread(fd, form.CLOSING, os.fstat(fd).st_size - form.CLOSING), os.fstat(fd).st_size
        )
        assert 2 * count <= form.SEGMENTS_A_BYTE * length <= 2 * count + 2000
        DeltaReader(fd).check()


@pytest.mark.parametrize("kept", [1, 3])
def test_any_range_of_the_plaintext(tmp_path: Path, kept: int) -> None:
    data = os.urandom(6 * form.FRAME)
    write(tmp_path / "d", b"", [data])
    fd = os.open(tmp_path / "d", os.O_RDONLY)
    reader = DeltaReader(fd, kept=kept)
    begin = int(reader.segments.offset[0])
    for at in (0, 1, form.FRAME - begin, 2 * form.FRAME - 1, 5 * form.FRAME):
        for length in (0, 1, 100, form.FRAME, form.FRAME + 1):
            assert reader.literal(begin + at, min(length, len(data) - at)) == data[at:][:length]
    assert reader.literal(begin, len(data)) == data
    for offset, length in ((-1, 2), (0, -1), (reader.plain_size, 1), (1 << 62, 1 << 62)):
        with pytest.raises(ValueError, match="no range"):
            reader.literal(offset, length)
    os.close(fd)


def test_several_threads_read_at_once(tmp_path: Path) -> None:
    data = os.urandom(20 * form.FRAME)
    write(tmp_path / "d", b"", [data])
    wrong: list[int] = []
    with opened(tmp_path / "d") as reader:
        begin = int(reader.segments.offset[0])

        def look(seed: int) -> None:
            for step in range(300):
                at = (seed * 7919 + step * 104_729) % (len(data) - 5000)
                if reader.literal(begin + at, 5000) != data[at : at + 5000]:
                    wrong.append(at)

        threads = [threading.Thread(target=look, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("old_size", "base_size"), [(9, 10), (11, 10), (10, 4), (1 << 62, 10), (0, 0)]
)
def test_a_delta_of_other_files_is_not_finished(
    tmp_path: Path, old_size: int, base_size: int
) -> None:
    with created(tmp_path / "d") as fd:
        writer = DeltaWriter(fd)
        writer.copy(0, 5)
        writer.literal(b"12345")
        with pytest.raises(ValueError, match="the delta"):
            writer.finish(old_size, NOTHING, base_size, NOTHING)


def test_what_a_delta_cannot_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with created(tmp_path / "d") as fd:
        for offset, length in ((SIZE_LIMIT, 1), (1, SIZE_LIMIT - 1)):
            with pytest.raises(DeltaTooLarge):
                DeltaWriter(fd).copy(offset, length)
        for offset, length in ((-1, 1), (1, -1)):
            with pytest.raises(ValueError, match="no range"):
                DeltaWriter(fd).copy(offset, length)
        monkeypatch.setattr(form, "SEGMENT_LIMIT", 5)
        writer = DeltaWriter(fd)
        for at in range(5):
            writer.copy(at * 9, 1)
        with pytest.raises(DeltaTooLarge, match="segments"):
            writer.literal(b"a")
        monkeypatch.setattr(form, "PLAIN_LIMIT", 100_000)
        writer = DeltaWriter(fd)
        writer.literal(bytes(140_000))
        with pytest.raises(DeltaTooLarge, match="data"):
            writer.copy(0, 1)


def test_an_index_is_below_4_gib_whatever_it_holds() -> None:
    columns = form.SEGMENT_LIMIT * 17 + form.PLAIN_LIMIT // form.FRAME * 2
    blocks = form.SEGMENT_LIMIT // form.BLOCK + form.PLAIN_LIMIT // form.FRAME // form.BLOCK
    # What zstd adds at most (ZSTD_COMPRESSBOUND), and the length before each block.
    assert columns + columns // 256 + blocks * 128 + form.CLOSING < 1 << 32
    assert form.FRAME_MOST < 1 << 16


def test_a_full_drive_is_an_error_of_the_drive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes, offset: int) -> None:
        raise OSError(28, "full")

    with created(tmp_path / "d") as fd:
        writer = DeltaWriter(fd)
        writer.literal(os.urandom(100_000))
        monkeypatch.setattr(content, "write_all", full)
        with pytest.raises(OSError, match="full"):
            writer.finish(100_000, NOTHING, 0, NOTHING)
        with pytest.raises(OSError, match="full"):
            DeltaWriter(fd).literal(os.urandom(3 << 20))


def test_the_size_so_far_is_close(tmp_path: Path) -> None:
    with created(tmp_path / "d") as fd:
        writer = DeltaWriter(fd)
        for at in range(3000):
            writer.copy(at * 4096, 2048)
            writer.literal(os.urandom(2048))
            if at == 1000:
                assert 0.95 < writer.size / (1001 * 2060) < 1.05
        guess = writer.size
        size = writer.finish(3000 * 4096, NOTHING, 3000 * 4096, NOTHING)
        assert size == writer.size == os.fstat(fd).st_size
        assert 0.99 < guess / size < 1.01


def test_a_number_of_any_width_is_read(tmp_path: Path) -> None:
    base = os.urandom(300)
    for opcode in range(0x41, 0x55):
        widths = (1, 2, 4, 8)
        if opcode < 0x45:
            command = bytes([opcode]) + (3).to_bytes(widths[opcode - 0x41], "big") + b"abc"
            expected = b"abc"
        else:
            where, much = divmod(opcode - 0x45, 4)
            command = (
                bytes([opcode])
                + (200).to_bytes(widths[where], "big")
                + (99).to_bytes(widths[much], "big")
            )
            expected = base[200:299]
        (tmp_path / "d").write_bytes(framed(plaintext([command])))
        with opened(tmp_path / "d", scan=True) as reader:
            assert restored(reader, base) == expected
            reader.check()


MUCH = """
import os, sys
from mirrorback.model import Digest
from mirrorback.store.delta_reader import DeltaReader
from mirrorback.store.delta_writer import DeltaWriter
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
writer, none, at = DeltaWriter(fd), Digest(bytes(32)), 0
block = os.urandom(1 << 20)
writer.literal(block * 20)
for at in range(190):
    writer.literal(block)
for at in range(150_000):
    writer.copy(at * 4096, 4000)
    writer.literal(block[at : at + 96])
size = 210 * len(block) + 150_000 * 4096
writer.finish(size, none, 150_000 * 4096, none)
os.ftruncate(fd, os.fstat(fd).st_size - int(sys.argv[2]))
reader = DeltaReader(fd, scan=True)
assert reader.rebuilt == (sys.argv[2] != "0")
reader.check()
for at in range(0, reader.plain_size - (1 << 20), 1 << 20):
    reader.literal(at, 1 << 20)
assert len(reader.segments.length) == 300_210
"""


@pytest.mark.parametrize("lost", ["0", "1"])
def test_memory_stays_small(tmp_path: Path, lost: str) -> None:
    assert peak(MUCH, str(tmp_path / "d"), lost) < 100 << 20  # with numpy and the interpreter


def test_the_level_is_zstd_s(tmp_path: Path) -> None:
    text = b"".join(b"%d bottles, %x more;" % (at, at * at) for at in range(20_000))
    sizes = []
    for level in (1, delta_writer.LEVEL, 15):
        with created(tmp_path / "d") as fd:
            writer = DeltaWriter(fd, level)
            writer.literal(text)
            sizes.append(writer.finish(len(text), NOTHING, 0, NOTHING))
            assert restored(DeltaReader(fd), b"") == text
    assert sizes[0] > sizes[2]
    assert sizes[0] < len(text) // 2


def test_a_frame_that_did_not_compress_is_told_from_others_and_its_checksum_is_checked() -> None:
    plain = os.urandom(form.FRAME)
    frame = form.compressor(3).compress(plain)
    assert form.stored(frame) == plain == form.decoded(frame, form.FRAME)
    assert form.stored(frame + b"x") is None
    assert form.stored(form.compressor(3).compress(bytes(form.FRAME))) is None
    assert form.stored(form.compressor(3).compress(plain[1:])) is None
    for at in (10, 20_000, len(frame) - 5, len(frame) - 1):
        bad = bytearray(frame)
        bad[at] ^= 4
        with pytest.raises(Damaged):
            form.stored(bytes(bad))
