"""The plaintext of a reverse delta: librsync's delta format (librsync 2, `src/prototab.h`).

The magic `72 73 02 36`; then commands: an opcode, and numbers whose widths it tells, big
endian.  1 to 64 is LITERAL of so many bytes; 0x41 to 0x44 LITERAL with a length of 1, 2, 4, 8
bytes; 0x45 to 0x54 COPY with an offset and a length, of 1, 2, 4, 8 bytes each; 0 is END.
A literal's bytes follow its command.
"""

from __future__ import annotations

from collections.abc import Iterator

from mirrorback.errors import Damaged
from mirrorback.model import COPY, LITERAL, SIZE_LIMIT

MAGIC = bytes.fromhex("72730236")
END = b"\0"
SHORTEST = 2  # bytes of plaintext that the shortest command takes

_SMALL = 64  # lengths of literals up to here are opcodes of their own
_LITERAL_N1 = 0x41
_COPY_N1_N1 = 0x45
_LAST = 0x54
_WIDTHS = (1, 2, 4, 8)


def literal_command(length: int) -> bytes:
    """The command before `length` bytes (at least one) that stand in the delta."""
    if length <= _SMALL:
        return bytes((length,))
    width = _width(length)
    return bytes((_LITERAL_N1 + width,)) + length.to_bytes(_WIDTHS[width], "big")


def copy_command(offset: int, length: int) -> bytes:
    """The command that copies `length` bytes (at least one) from `offset` in the base."""
    where, much = _width(offset), _width(length)
    return b"%c%b%b" % (
        _COPY_N1_N1 + len(_WIDTHS) * where + much,
        offset.to_bytes(_WIDTHS[where], "big"),
        length.to_bytes(_WIDTHS[much], "big"),
    )


def _width(number: int) -> int:
    """The place in `_WIDTHS` of the smallest that holds a number."""
    return (number > 0xFF) + (number > 0xFFFF) + (number > 0xFFFFFFFF)


def _numbers(opcode: int) -> tuple[int, int] | None:
    """The widths of a command's offset (0: a literal, which has none) and length; None
    where there is no such command."""
    if opcode <= _SMALL:
        return 0, 0
    if opcode < _COPY_N1_N1:
        return 0, _WIDTHS[opcode - _LITERAL_N1]
    if opcode <= _LAST:
        where, much = divmod(opcode - _COPY_N1_N1, len(_WIDTHS))
        return _WIDTHS[where], _WIDTHS[much]
    return None


_NUMBERS = tuple(_numbers(opcode) for opcode in range(256))


class Parser:
    """Reads the commands of a plaintext that is given in pieces, keeping no more of it than
    part of one command."""

    def __init__(self) -> None:
        self._at = 0  # in the plaintext, of what is fed next
        self._skip = 0  # bytes of a literal that are still to come
        self._part = b""
        self.ended = False  # END has been read, and nothing behind it

    @property
    def size(self) -> int:
        """The bytes of plaintext read so far."""
        return self._at

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int]]:
        """The commands that begin in the next piece, as (length, kind, offset) with the
        meaning of `model.Segments`.  To be exhausted before the next call; the first piece
        has at least the magic.  Raises Damaged for what is no librsync delta."""
        if self.ended and data:
            raise Damaged("the delta goes on behind its end")
        if not self._at:
            if not data.startswith(MAGIC):
                raise Damaged("the delta does not begin as one")
            self._skip = len(MAGIC)
        begin = self._at - len(self._part)
        self._at += len(data)
        if self._skip >= len(data):
            self._skip -= len(data)
            return
        data = self._part + data
        at, self._skip, self._part = self._skip, 0, b""
        while at < len(data):
            opcode = data[at]
            if not opcode:
                self._end(len(data) - at - 1)
                return
            numbers = _NUMBERS[opcode]
            if numbers is None:
                raise Damaged(f"the delta has a command that is not known: {opcode}")
            middle = at + 1 + numbers[0]
            end = middle + numbers[1]
            if end > len(data):
                self._part = data[at:]
                return
            length = int.from_bytes(data[middle:end], "big") if numbers[1] else opcode
            if numbers[0]:
                kind, offset = COPY, int.from_bytes(data[at + 1 : middle], "big")
                at = end
            else:
                kind, offset = LITERAL, begin + end
                at = end + length
            if not 0 < length < SIZE_LIMIT or offset >= SIZE_LIMIT:
                raise Damaged("the delta has a command with impossible numbers")
            yield length, kind, offset
        self._skip = at - len(data)

    def _end(self, behind: int) -> None:
        if behind:
            raise Damaged("the delta goes on behind its end")
        self.ended = True
