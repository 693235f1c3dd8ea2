"""Values of options as typed, into what the engine takes."""

from __future__ import annotations

from collections.abc import Sequence

from mirrorback.cli.escape import escape
from mirrorback.errors import UsageError

SOURCE_SNAPSHOTS = ("btrfs",)
LARGE_FILES = ("auto", "delta", "reflink", "whole")


def size(text: str | None) -> int | None:
    """`32M` in bytes; None where it was not given.  Raises UsageError."""
    if text is None:
        return None
    from mirrorback.engine.sizes import parse_size

    return parse_size(text)


def large_files(text: str | None) -> str | None:
    """How large files are to be kept.  Raises UsageError."""
    if text is None or text in LARGE_FILES:
        return text
    raise UsageError(f"--large-files {escape(text)}: give auto, delta, reflink or whole")


def action(command: str, text: str, known: Sequence[str]) -> str:
    """What a command is to do: one of its actions.  Raises UsageError."""
    if text in known:
        return text
    raise UsageError(f"{command} {escape(text)}: give {', '.join(known[:-1])} or {known[-1]}")


def source_snapshot(text: str | None) -> str | None:
    """By what the source is to be frozen.  Raises UsageError."""
    if text is None or text in SOURCE_SNAPSHOTS:
        return text
    raise UsageError(f"--source-snapshot {escape(text)}: give btrfs")


def mode(text: str | None) -> int | None:
    """`0750` as a number; None where it was not given.  Raises UsageError."""
    if text is None:
        return None
    try:
        value = int(text, 8) if text.isascii() and text.isdigit() else -1
    except ValueError:
        value = -1
    if not 0 <= value <= 0o7777:
        raise UsageError(f"--mode {escape(text)}: give permissions in octal, such as 0750")
    if value & 0o700 != 0o700:
        raise UsageError(f"--mode {escape(text)}: the owner needs all permissions, such as 0700")
    return value
