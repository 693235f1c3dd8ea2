"""What is asked of whoever looks at directories for `verify`, and what comes back; all of it of
values that can be marshalled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mirrorback.store.standing import Wanted, WantedFolder

Range = tuple[int, int | None]  # the first and the last of some snapshots


class Job(NamedTuple):
    """A directory to be looked at."""

    path: bytes
    rows: Sequence[Wanted]  # what stands there; at least what is to be read
    folder: Sequence[WantedFolder]  # what it is itself
    listed: Sequence[Range]  # in which snapshots it is to be listed
    read: frozenset[int]  # objects to be read back
    spanning: frozenset[int]  # objects that other directories show, too


class Found(NamedTuple):
    """What was seen in one."""

    doubtful: list[int]  # objects that may not be what they should be
    undressed: list[tuple[int, str]]  # objects that are, everywhere, but for metadata: what is
    #                                   wrong with these
    learnt: list[tuple[int, bytes]]  # objects whose digest nobody knew, with that
    foreign: list[tuple[bytes, int]]  # names that should not be there, and in which snapshot
    folders: list[tuple[int, int]]  # the same of itself: the object, in which snapshot
    inodes: list[tuple[int, int, bool]]  # of objects: the number, and whether it has a link
    #                                      that this directory does not account for
    shared: list[tuple[int, int]]  # objects that are two, in one inode


class Top(NamedTuple):
    """The folder of a snapshot: open, or by its name in the repository."""

    fd: int | None
    name: bytes
