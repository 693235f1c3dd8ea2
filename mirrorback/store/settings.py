"""`repository.toml` and `mirror.toml`: the few lines that outlive the catalog.

Both end in a line with the digest of what stands above it, so that a flipped
bit is noticed; a person may still read them, and edit them by taking that line
out.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from mirrorback.errors import Damaged, MirrorbackError
from mirrorback.store import durable

FORMAT = 1
SEAL = "# blake3: "


@dataclass(frozen=True, slots=True)
class Settings:
    """What a repository says of itself."""

    id: str
    source: bytes
    host: str
    created: str  # ISO 8601
    delta_min_size: int
    large_files: str
    mode: int
    format: int = FORMAT


_DOTS = 64  # in a comment that a person has written, perhaps
_DIGEST = re.compile(r"[0-9a-f]{60,}\s*\Z")


def seal(text: str) -> bytes:
    """The text with its digest below it."""
    return (text + SEAL + blake3(text.encode()).hexdigest() + "\n").encode()


def unseal(content: bytes, what: str) -> dict[str, Any]:
    """The table in a sealed text; one whose last line is no seal is taken as a
    person left it.  Raises Damaged."""
    try:
        text = content.decode()
        head, mark, tail = text.rpartition(SEAL)
        if not mark and _DIGEST.search(text):
            raise ValueError("its digest is not marked as one")
        if mark and blake3(head.encode()).hexdigest() + "\n" != tail:
            raise ValueError("its digest is wrong")
        if any(line.partition("=")[0].count(".") > _DOTS for line in text.splitlines()):
            raise ValueError("a key has too many parts")  # the time goes by their square
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{what} is damaged: {error}") from error


def quoted(text: str) -> str:
    """A TOML basic string.  JSON's escapes are TOML's too, but for surrogate pairs."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def write(folder: int, settings: Settings) -> None:
    """Write `repository.toml` into an open folder, durably.  Raises OSError."""
    text = (
        "# A mirrorback repository.  How to get files back without the program:\n"
        "# see README.txt one folder up.\n"
        f"format = {settings.format}\n"
        f"id = {quoted(settings.id)}\n"
        # Percent-escaped, since a path may be any bytes.
        f"source = {quoted(escape(settings.source))}\n"
        f"host = {quoted(settings.host)}\n"
        f"created = {quoted(settings.created)}\n"
        f"mode = {quoted(f'{settings.mode:04o}')}\n"
        "\n[settings]\n"
        f"delta-min-size = {settings.delta_min_size}\n"
        f"large-files = {quoted(settings.large_files)}\n"
    )
    durable.replace(folder, b"repository.toml", seal(text))


def read(folder: int) -> Settings:
    """Read `repository.toml`.  Raises FileNotFoundError, Damaged, and
    MirrorbackError for a format newer than this program."""
    what = ".mirrorback/repository.toml"
    table = unseal(durable.read(folder, b"repository.toml"), what)
    found = table.get("format")
    if isinstance(found, int) and found > FORMAT:
        raise MirrorbackError(
            f"the repository has format {found}; this mirrorback knows up to {FORMAT}:"
            " use a newer one"
        )
    try:
        extra = table["settings"]
        settings = Settings(
            id=_text(table["id"]),
            source=unescape(_text(table["source"])),
            host=_text(table["host"]),
            created=_text(table["created"]),
            mode=int(_text(table["mode"]), 8),
            delta_min_size=_number(extra["delta-min-size"]),
            large_files=_text(extra["large-files"]),
            format=_number(found),
        )
        if not settings.source.startswith(b"/"):
            raise ValueError("source is not an absolute path")
        return settings
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{what} is damaged: {error}") from error


def escape(path: bytes) -> str:
    """A path as text: what is not printable UTF-8, and `%`, as %XX."""
    text = ""
    for char in path.decode("utf-8", "surrogateescape"):
        if char.isprintable() and char != "%" and not 0xDC80 <= ord(char) <= 0xDCFF:
            text += char
        else:
            text += "".join(f"%{b:02X}" for b in char.encode("utf-8", "surrogateescape"))
    return text


def unescape(text: str) -> bytes:
    """The inverse of `escape`.  Raises ValueError."""
    head, *rest = text.encode().split(b"%")
    if any(len(part) < 2 for part in rest):
        raise ValueError("a path is cut short")
    return head + b"".join(bytes([int(part[:2], 16)]) + part[2:] for part in rest)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a size")
    return value


def local_host() -> str:
    """The name of this machine."""
    return os.uname().nodename
