"""Malicious deltas, sound by their checksums: refused, and in little memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from deltas import (
    NOTHING,
    checked,
    framed,
    opened,
    outcome,
    peak,
    plaintext,
    restored,
    with_index,
)

from mirrorback.errors import Damaged
from mirrorback.model import COPY, LITERAL, Digest
from mirrorback.store import delta_commands
from mirrorback.store import delta_format as form

BASE = random.Random(1).randbytes(5000)


def rows(*segments: tuple[int, int, int]) -> bytes:
    """The segments of an index, packed."""
    gathered = form.Rows()
    for segment in segments:
        gathered.add(*segment)
    return form.packed_segments(form.compressor(1), gathered.block(0), form.Offsets())


def frame_sizes(*sizes: int) -> bytes:
    """The frame table of an index, packed."""
    return form.packed(form.compressor(1), form.np.array(sizes, "<u2"))


PLAIN = plaintext([delta_commands.copy_command(9, 5), delta_commands.literal_command(3) + b"xyz"])
FRAMES = framed(PLAIN)
SEGMENTS = [(5, COPY, 9), (3, LITERAL, 8)]


def index_of(segments: bytes, frames: bytes) -> form.Index:
    """A right index of PLAIN."""
    return form.Index(8, NOTHING, 20, NOTHING, len(PLAIN), 2, len(segments), len(frames))


def made_by_hand(path: Path, **wrong: int | Digest) -> None:
    """Write the delta of PLAIN; `wrong` are numbers that its index is to tell."""
    segments, frames = rows(*SEGMENTS), frame_sizes(len(FRAMES))
    index = index_of(segments, frames)._replace(**wrong)
    path.write_bytes(with_index(FRAMES, index, segments + frames))


def test_a_delta_made_by_hand_is_read(tmp_path: Path) -> None:
    made_by_hand(tmp_path / "d")
    with opened(tmp_path / "d") as reader:
        reader.check()
        assert restored(reader, BASE[:20]) == BASE[9:14] + b"xyz"


HUGE = [1 << 62, (1 << 63) - 1, (1 << 64) - 1]
NUMBERS = ("old_size", "base_size", "plain_size", "segments")


@pytest.mark.parametrize("value", [*HUGE, 1 << 50, 1 << 40, 1 << 32, 1 << 26, 0, 1, 3])
@pytest.mark.parametrize("name", NUMBERS)
def test_sizes_that_cannot_be_are_refused(tmp_path: Path, name: str, value: int) -> None:
    made_by_hand(tmp_path / "d", **{name: value})
    if name == "base_size" and 14 <= value < 1 << 62:
        assert checked(tmp_path / "d")  # whoever has the base can tell
    else:
        assert not checked(tmp_path / "d")


@pytest.mark.parametrize("value", [1 << 20, 1 << 40, (1 << 43) - 1, 1 << 43])
def test_more_frames_than_the_file_is_long_are_refused_at_once(tmp_path: Path, value: int) -> None:
    made_by_hand(tmp_path / "d", plain_size=value)
    with pytest.raises(Damaged, match="do not fit the file"), opened(tmp_path / "d"):
        pass


def test_more_segments_than_the_plaintext_is_long_are_refused_at_once(tmp_path: Path) -> None:
    segments, frames = rows(*[(1, COPY, 0)] * 8), frame_sizes(len(FRAMES))
    index = index_of(segments, frames)._replace(segments=8)
    (tmp_path / "d").write_bytes(with_index(FRAMES, index, segments + frames))
    with pytest.raises(Damaged, match="do not fit the file"), opened(tmp_path / "d"):
        pass


def test_a_plaintext_without_end_is_found_by_check(tmp_path: Path) -> None:
    cut = framed(PLAIN[:-1])
    segments, frames = rows(*SEGMENTS), frame_sizes(len(cut))
    index = index_of(segments, frames)._replace(plain_size=len(PLAIN) - 1)
    (tmp_path / "d").write_bytes(with_index(cut, index, segments + frames))
    with opened(tmp_path / "d") as reader, pytest.raises(Damaged, match="no end"):
        reader.check()


def test_an_index_with_a_whole_block_more_is_found_by_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(form, "BLOCK", 2)
    offsets, gathered = form.Offsets(), form.Rows()
    for segment in [*SEGMENTS, (1, COPY, 3)]:
        gathered.add(*segment)
    compressor = form.compressor(1)
    blocks = [form.packed_segments(compressor, each, offsets) for each in gathered.blocks()]
    segments, frames = b"".join(blocks), frame_sizes(len(FRAMES))
    index = index_of(segments, frames)._replace(segments=3, old_size=9)
    (tmp_path / "d").write_bytes(with_index(FRAMES, index, segments + frames))
    with opened(tmp_path / "d") as reader, pytest.raises(Damaged, match="fewer commands"):
        reader.check()


@pytest.mark.parametrize("value", [0, 1, 4, 1 << 20, (1 << 32) - 1])
@pytest.mark.parametrize("name", ["segment_bytes", "frame_bytes"])
def test_parts_that_do_not_fit_are_refused(tmp_path: Path, name: str, value: int) -> None:
    made_by_hand(tmp_path / "d", **{name: value})
    assert not checked(tmp_path / "d")


@pytest.mark.parametrize("said", [0, 1, form.CLOSING - 1, form.CLOSING, 10_000, (1 << 32) - 1])
def test_an_index_of_another_length_is_refused(tmp_path: Path, said: int) -> None:
    segments, frames = rows(*SEGMENTS), frame_sizes(len(FRAMES))
    data = with_index(FRAMES, index_of(segments, frames), segments + frames, said=said)
    (tmp_path / "d").write_bytes(data)
    assert not checked(tmp_path / "d")


def test_a_newer_index_is_not_guessed_at(tmp_path: Path) -> None:
    segments, frames = rows(*SEGMENTS), frame_sizes(len(FRAMES))
    data = with_index(FRAMES, index_of(segments, frames), segments + frames, version=2)
    (tmp_path / "d").write_bytes(data)
    with pytest.raises(Damaged, match="version 2"), opened(tmp_path / "d"):
        pass
    with opened(tmp_path / "d", scan=True) as reader:
        assert reader.rebuilt and restored(reader, BASE) == BASE[9:14] + b"xyz"


@pytest.mark.parametrize(
    "segments",
    [
        [(5, COPY, 16), (3, LITERAL, 8)],
        [(5, COPY, 9), (3, LITERAL, 10)],
        [(5, COPY, -1), (3, LITERAL, 8)],
        [(5, COPY, 9), (3, LITERAL, -1)],
        [(5, 2, 9), (3, LITERAL, 8)],
        [(8, COPY, 9), (0, LITERAL, 8)],
        [(9, COPY, 9), (-1, LITERAL, 8)],
        [((1 << 63) - 1, COPY, (1 << 63) - 1), (3, LITERAL, 8)],
        [(1 << 62, COPY, 9), (1 << 62, COPY, 9)],
        [(5, COPY, -(1 << 63)), (3, LITERAL, 1 << 62)],
        [(3, LITERAL, (1 << 63) - 1), (5, LITERAL, (1 << 63) - 1)],
    ],
)
def test_ranges_outside_are_refused(tmp_path: Path, segments: list[tuple[int, int, int]]) -> None:
    packed, frames = rows(*segments), frame_sizes(len(FRAMES))
    data = with_index(FRAMES, index_of(packed, frames), packed + frames)
    (tmp_path / "d").write_bytes(data)
    with pytest.raises(Damaged), opened(tmp_path / "d"):
        pass


@pytest.mark.parametrize(
    "segments",
    [
        [(5, COPY, 8), (3, LITERAL, 8)],
        [(4, COPY, 9), (4, LITERAL, 7)],
        [(5, COPY, 9), (3, COPY, 8)],
        [(5, COPY, 9), (3, LITERAL, 7)],
        [(8, COPY, 9)],
        [(5, COPY, 9), (2, LITERAL, 8), (1, LITERAL, 10)],
    ],
)
def test_an_index_that_tells_of_other_commands_is_found_by_check(
    tmp_path: Path, segments: list[tuple[int, int, int]]
) -> None:
    packed, frames = rows(*segments), frame_sizes(len(FRAMES))
    index = index_of(packed, frames)._replace(segments=len(segments))
    (tmp_path / "d").write_bytes(with_index(FRAMES, index, packed + frames))
    with opened(tmp_path / "d") as reader, pytest.raises(Damaged, match=r"commands"):
        reader.check()


@pytest.mark.parametrize("sizes", [(0,), (len(FRAMES) - 1,), (65_535,), (len(FRAMES), 0)])
def test_a_wrong_frame_table_is_refused(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    segments, frames = rows(*SEGMENTS), frame_sizes(*sizes)
    data = with_index(FRAMES, index_of(segments, frames), segments + frames)
    (tmp_path / "d").write_bytes(data)
    assert not checked(tmp_path / "d")


def indexed_as(path: Path, frames: bytes) -> None:
    """Other frames, with an index that says they are PLAIN."""
    segments, sizes = rows(*SEGMENTS), frame_sizes(len(frames))
    path.write_bytes(with_index(frames, index_of(segments, sizes), segments + sizes))


def bare(plain: bytes, **options: bool) -> bytes:
    """A frame of another kind than ours."""
    return form.zstandard.ZstdCompressor(level=1, **options).compress(plain)


def streamed(plain: bytes) -> bytes:
    """A frame that does not tell its size."""
    compressing = form.zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj()
    return compressing.compress(plain) + compressing.flush()


BOMBS: dict[str, Callable[[], bytes]] = {
    "more than it should": lambda: bare(PLAIN + bytes(9), write_checksum=True),
    "a gigabyte": lambda: streamed(bytes(1 << 30))[: form.FRAME_MOST],
    "a gigabyte that it tells": lambda: bare(bytes(1 << 30), write_checksum=True)[
        : form.FRAME_MOST
    ],
    "no checksum": lambda: bare(PLAIN, write_checksum=False),
    "no size": lambda: streamed(PLAIN),
    "two frames": lambda: framed(PLAIN[:5]) + framed(PLAIN[5:]),
    "a skippable frame": lambda: form.SKIPPABLE.pack(form.SKIPPABLE_MAGIC, 11) + bytes(11),
    "something behind": lambda: FRAMES + b"\0",
    "nothing of the kind": lambda: bytes(20),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_frame_that_is_not_of_its_kind_is_not_decoded(tmp_path: Path, name: str) -> None:
    indexed_as(tmp_path / "d", BOMBS[name]())
    assert not checked(tmp_path / "d")
    if name != "something behind":
        with pytest.raises(Damaged), opened(tmp_path / "d") as reader:
            reader.literal(0, len(PLAIN))


@pytest.mark.parametrize("name", [name for name in BOMBS if name != "something behind"])
def test_a_frame_that_is_not_of_its_kind_is_not_scanned(tmp_path: Path, name: str) -> None:
    (tmp_path / "d").write_bytes(BOMBS[name]())
    assert outcome(tmp_path / "d", BASE, True) is None


OPENING = """
import os, sys
from mirrorback.errors import Damaged
from mirrorback.store.delta_reader import DeltaReader
for path in sys.argv[1:]:
    for scan in (False, True):
        try:
            DeltaReader(os.open(path, os.O_RDONLY), scan=scan).check()
            sys.exit(path)
        except Damaged:
            pass
"""


def test_bombs_take_no_memory(tmp_path: Path) -> None:
    paths = []
    for name in ("a gigabyte", "a gigabyte that it tells", "no checksum", "no size"):
        frame = BOMBS[name]()
        paths += [tmp_path / f"{name} alone", tmp_path / f"{name} with an index"]
        paths[-2].write_bytes(frame)
        indexed_as(paths[-1], frame)
    segments = form.compressor(1).compress(bytes(1 << 28))
    segments = len(segments).to_bytes(4, "little") + segments
    frames = frame_sizes(20)
    paths.append(tmp_path / "index")
    data = with_index(bytes(20), index_of(segments, frames), segments + frames)
    paths[-1].write_bytes(data)
    assert peak(OPENING, *map(str, paths)) < 60 << 20


def test_an_index_that_decodes_to_more_is_refused(tmp_path: Path) -> None:
    bomb = form.compressor(1).compress(bytes(1 << 28))
    segments = len(bomb).to_bytes(4, "little") + bomb
    frames = frame_sizes(len(FRAMES))
    data = with_index(FRAMES, index_of(segments, frames), segments + frames)
    (tmp_path / "d").write_bytes(data)
    with pytest.raises(Damaged, match="not of its kind"), opened(tmp_path / "d"):
        pass


def test_more_segments_than_the_index_is_long_are_refused(tmp_path: Path) -> None:
    """A small file cannot claim columns that fill the memory, even where they are there."""
    count = 100_000
    plain = plaintext([delta_commands.copy_command(0, 1)] * count)
    frames = framed(plain)
    pieces = len(range(0, len(plain), form.FRAME))
    sizes, at = [], 0
    for _ in range(pieces):
        size = form.frame_length(frames[at:])
        assert size is not None
        sizes.append(size)
        at += size
    offsets, gathered = form.Offsets(), form.Rows()
    for _ in range(count):
        gathered.add(1, COPY, 0)
    segments = b"".join(
        form.packed_segments(form.compressor(19), block, offsets) for block in gathered.blocks()
    )
    table = frame_sizes(*sizes)
    index = form.Index(count, NOTHING, 1, NOTHING, len(plain), count, len(segments), len(table))
    for filled, fine in ((b"", False), (bytes(count // form.SEGMENTS_A_BYTE), True)):
        (tmp_path / "d").write_bytes(with_index(frames, index, segments + table + filled))
        assert checked(tmp_path / "d") is fine


def test_scanning_stops_at_more_commands_than_a_file_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = plaintext([delta_commands.copy_command(0, 1)] * 500_000)
    (tmp_path / "d").write_bytes(framed(plain))
    with opened(tmp_path / "d", scan=True) as reader:
        assert reader.old_size == 500_000
    monkeypatch.setattr(form, "SCANNED_FEW", 1000)
    with pytest.raises(Damaged, match="more commands"), opened(tmp_path / "d", scan=True):
        pass


@pytest.mark.parametrize(
    "plain",
    [
        PLAIN[:-1],
        PLAIN[:-2],
        PLAIN + b"\0",
        delta_commands.MAGIC,
        PLAIN[1:],
        plaintext([delta_commands.literal_command(1 << 40)]),
        plaintext([delta_commands.copy_command(0, (1 << 62) - 1)] * 4),
        plaintext([b"\x54" + b"\xff" * 16]),
    ],
)
def test_a_plaintext_that_is_no_delta_is_not_scanned(tmp_path: Path, plain: bytes) -> None:
    (tmp_path / "d").write_bytes(framed(plain))
    with pytest.raises(Damaged), opened(tmp_path / "d", scan=True):
        pass


def test_frames_of_other_sizes_are_not_scanned(tmp_path: Path) -> None:
    plain = plaintext([delta_commands.literal_command(60_000) + bytes(60_000)])
    (tmp_path / "d").write_bytes(framed(plain[:20_000]) + framed(plain[20_000:]))
    with pytest.raises(Damaged), opened(tmp_path / "d", scan=True):
        pass


def test_the_checksum_is_blake3_of_the_index(tmp_path: Path) -> None:
    made_by_hand(tmp_path / "d")
    data = (tmp_path / "d").read_bytes()
    covered = data[len(FRAMES) + form.SKIPPABLE.size : -40]
    assert data[-40:] == blake3(covered).digest() + b"mbrdelta"
