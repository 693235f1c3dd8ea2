"""What a restore does with what is already there: pure rules."""

from __future__ import annotations

import enum


class Overwrite(enum.StrEnum):
    """What to do with a file that is there already."""

    IF_CHANGED = "if-changed"
    IF_NEWER = "if-newer"
    NEVER = "never"
    ALWAYS = "always"


class Step(enum.Enum):
    """What is done for one entry."""

    CREATE = "create"
    REPLACE = "replace"
    ADJUST = "adjust"  # the content is right; only metadata may have to be set
    SKIP = "skip"
    COMPARE = "compare"  # its content decides between ADJUST and REPLACE


ASIDE = ".before-restore-"
NAME_MAX = 255


def decide(
    policy: Overwrite,
    *,
    exists: bool,
    same_kind: bool,
    same_size: bool,
    same_links: bool,
    newer: bool,
) -> Step:
    """What to do for an entry that is no directory.

    `same_size` also says that target or device are the same, where there are
    such; `same_links` that it is hard-linked as it should be; `newer` that the
    snapshot's is the younger one.  Content decides, never the time stamp alone.
    """
    if not exists:
        return Step.CREATE
    if policy is Overwrite.NEVER or (policy is Overwrite.IF_NEWER and not newer):
        return Step.SKIP
    if policy is Overwrite.ALWAYS or policy is Overwrite.IF_NEWER:
        return Step.REPLACE
    if not same_kind or not same_size or not same_links:
        return Step.REPLACE
    return Step.COMPARE


def aside_name(name: bytes, stamp: str, number: int) -> bytes:
    """The name under which something is kept that a restore replaces."""
    suffix = (ASIDE + stamp + (f"-{number}" if number > 1 else "")).encode()
    kept = name[: NAME_MAX - len(suffix)]
    if len(kept) < len(name):
        # Not in the middle of a character, which some drives refuse.
        whole = kept.decode("utf-8", "ignore").encode()
        kept = whole if kept.startswith(whole) and len(kept) - len(whole) < 4 else kept
    return kept + suffix


def is_aside(name: bytes) -> bool:
    """Whether a name is one that a restore has given."""
    return ASIDE.encode() in name
