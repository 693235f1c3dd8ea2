"""How changed large files are stored."""

from __future__ import annotations

import enum

SUFFIX = b".rdiff.zst"  # of a reverse delta, behind the file's own name
MOST = 1 << 46  # bytes; what is larger is mostly holes, and as a rule beyond all of a drive
LONGEST_NAME = 255  # bytes
LONGEST_CHAIN = 128  # deltas from a version to the whole file that it is restored from


class Form(enum.Enum):
    """What a large file's earlier version becomes when it changes."""

    WHOLE = "whole"  # stays as it is; the new one is copied
    REFLINK = "reflink"  # the same, but the new one shares what has not changed
    DELTA = "delta"  # a reverse delta


def form(setting: str, *, reflinks: bool) -> Form | None:
    """The form that a setting (`auto` or a form's name) means on a drive with or without
    reflinks; None where that drive cannot do it."""
    if setting == "auto":
        return Form.REFLINK if reflinks else Form.DELTA
    wanted = Form(setting)
    return None if wanted is Form.REFLINK and not reflinks else wanted


def delta_name(name: bytes) -> bytes | None:
    """The name of a file's reverse delta; None where there is no room for the suffix."""
    whole = name + SUFFIX
    return whole if len(whole) <= LONGEST_NAME else None


def revision_limit(old_size: int, new_size: int) -> int:
    """Bytes that may differ where a file is changed in place: each is written three times."""
    return max(old_size, new_size) // 4


def delta_limit(old_size: int) -> int:
    """Bytes that a delta may hold before the old version is rather kept whole."""
    return old_size // 2
