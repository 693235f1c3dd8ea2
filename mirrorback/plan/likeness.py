"""Whether an inode on the drive still has the metadata it was given, as far as a drive holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mirrorback.model import Kind

GRAINS = (100, 1_000, 1_000_000, 10_000_000, 1_000_000_000, 2_000_000_000)  # ns, of file systems
_CERTAIN = 2**31 * 1_000_000_000  # ns from 1970, before and after: times that all can hold
_SET_ID = 0o6000
_OWNER_MAY = 0o700
CERTAIN_ATTRIBUTES = 900  # bytes in all that fit wherever there are attributes


class Holds(NamedTuple):
    """What the drive can hold; of values that can be marshalled."""

    modes: bool  # and attributes of users
    owners: bool
    uid: int  # the owner of the repository's own folder: what he makes is his
    gid: int


class Given(NamedTuple):
    """What an inode was given, or has."""

    mode: int  # permission bits only
    uid: int
    gid: int
    mtime: int  # ns


Attributes = tuple[tuple[bytes, bytes], ...]


def same_time(wanted: int, found: int) -> bool:
    """Whether a time (ns) is what a drive may have made of another."""
    if wanted == found or not -_CERTAIN <= wanted < _CERTAIN:
        return True  # beyond, drives clamp or wrap
    return any(found == wanted - wanted % grain for grain in GRAINS)


def differences(wanted: Given, found: Given, kind: Kind, holds: Holds) -> list[str]:
    """What is not as it was given, in words; a folder's time is not looked at."""
    words = []
    if holds.modes and kind is not Kind.SYMLINK and not _same_mode(wanted, found, kind, holds):
        words.append(f"permissions are {found.mode:04o}, not {wanted.mode:04o}")
    if holds.modes and not _same_owner(wanted, found, holds):
        words.append(f"owner is {found.uid}:{found.gid}, not {wanted.uid}:{wanted.gid}")
    if kind is not Kind.DIRECTORY and not same_time(wanted.mtime, found.mtime):
        words.append("time stamp was changed")
    return words


def _same_owner(wanted: Given, found: Given, holds: Holds) -> bool:
    if (wanted.uid, wanted.gid) == (found.uid, found.gid):
        return True
    return not holds.owners and found.uid in (wanted.uid, holds.uid)


def _same_mode(wanted: Given, found: Given, kind: Kind, holds: Holds) -> bool:
    modes = {wanted.mode}
    if (wanted.uid, wanted.gid) != (found.uid, found.gid):
        modes.add(wanted.mode & ~_SET_ID)  # not for the wrong owner
    if kind is Kind.DIRECTORY and holds.uid != 0:
        modes |= {mode | _OWNER_MAY for mode in modes}
    return found.mode in modes


def same_attributes(wanted: Attributes, found: Attributes, holds: Holds) -> bool:
    """Whether extended attributes are what a drive may have made of others.  It may have
    refused some, and a system may have added its own, but none of a user's."""
    if wanted == found:
        return True
    ours, theirs = dict(wanted), dict(found)
    fits = sum(map(len, (*ours.keys(), *ours.values()))) <= CERTAIN_ATTRIBUTES
    return not any(
        _altered(name, ours, theirs, holds, fits) for name in ours.keys() | theirs.keys()
    )


def _altered(
    name: bytes,
    wanted: Mapping[bytes, bytes],
    found: Mapping[bytes, bytes],
    holds: Holds,
    fits: bool,
) -> bool:
    personal = name.startswith(b"user.")
    if name not in found:
        return personal and holds.modes and fits
    if name not in wanted:
        return holds.modes and (personal or name.startswith(b"system.posix_acl_"))
    return wanted[name] != found[name] and (holds.owners or personal)
