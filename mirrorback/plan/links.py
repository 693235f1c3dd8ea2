"""Which object each source inode is shown by, when hard links come and go.

In a snapshot two paths share an inode exactly when they did in the source.  So
an object may go on only for one source inode, and all names of one source
inode get the same object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Inode = tuple[int, int]  # device and number


@dataclass(frozen=True, slots=True)
class Member:
    """One name of a source inode, as far as it differs from the catalog."""

    id: int
    inode: Inode
    candidate: int | None  # an object that has this very content and metadata
    own: bool  # which was this inode's the last time
    lineage: int | None  # of the entry it goes on from, None for a new one
    before: frozenset[int] = frozenset()  # lineages hard-linked to it then, itself included


@dataclass(frozen=True, slots=True)
class Group:
    """What is decided for one source inode: one object for all its names, or a
    new one that the leader makes and the others follow."""

    members: tuple[Member, ...]
    object: int | None

    @property
    def leader(self) -> Member:
        """The name that makes a new object: one whose bytes are on the drive, if any."""
        return min(self.members, key=lambda m: (m.candidate is None, m.id))

    def relinked(self, others: frozenset[int] = frozenset()) -> list[Member]:
        """The members that are hard-linked to other names than before; `others`
        are the lineages of names of this inode that have not changed."""
        lineages = frozenset(m.lineage for m in self.members if m.lineage is not None) | others
        strangers = sum(m.lineage is None for m in self.members)
        return [
            m for m in self.members if m.lineage is not None and (strangers or m.before != lineages)
        ]


def assign(members: Iterable[Member], held: Mapping[int, int]) -> list[Group]:
    """Decide for every source inode that the members name.

    `held` are objects that unchanged names go on showing, with the number of
    the source inode they belong to: no other inode may have them.  An object
    goes to the inode it was before, else to the first that asks.
    """
    names: dict[Inode, list[Member]] = {}
    for member in members:
        names.setdefault(member.inode, []).append(member)
    taken: dict[int, Inode] = {}
    given: dict[Inode, int] = {}
    for own in (True, False):
        for inode, group in names.items():
            if inode in given:
                continue
            for member in group:
                wanted = member.candidate
                if wanted is None or member.own is not own or wanted in taken:
                    continue
                if held.get(wanted, inode[1]) != inode[1]:
                    continue
                taken[wanted] = inode
                given[inode] = wanted
                break
    return [Group(tuple(group), given.get(inode)) for inode, group in names.items()]
