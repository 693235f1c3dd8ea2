"""Untrusted text, made safe to show: the one function all names and messages pass.

A file name may hold terminal commands, line breaks, or characters that reverse or
hide what stands beside them.
"""

from __future__ import annotations

import re

# Printable by Unicode's categories, yet shown as nothing (default ignorable).
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Spaces other than U+0020 are not printable to Python, but harmless.
_SPACES = frozenset(
    "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009"
    "\u200a\u202f\u205f\u3000"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def text_of(name: bytes) -> str:
    """A name as text for JSON: UTF-8, every odd byte as a lone surrogate."""
    return name.decode("utf-8", "surrogateescape")


def escape(name: bytes | str) -> str:
    """A file name to be shown: one line, and different for different names.

    Control, format, bidirectional and invisible characters become `\\n`, `\\x1b`,
    `\\u202e`, bytes that are not UTF-8 `\\xNN`, and a backslash is doubled.
    """
    text = text_of(name) if isinstance(name, bytes) else name
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    return plain(text)


def plain(message: str) -> str:
    """A message to be shown: as `escape`, but backslashes stand as they are, since
    names in it may have been escaped already."""
    if message.isprintable() and (message.isascii() or not _INVISIBLE.search(message)):
        return message
    return "".join(map(_shown, message))


def _shown(char: str) -> str:
    if (char.isprintable() or char in _SPACES) and not _INVISIBLE.match(char):
        return char
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
