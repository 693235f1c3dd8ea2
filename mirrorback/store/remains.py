"""What the folders of a repository show without its catalog, and what a run that was cut short
has left there, brought in order by the folders alone.

`publish` knows the order of steps.  Between the exchange of two folders and the renaming of the
former mirror nothing but `mirror.toml` (of the former) and `mirror.toml.new` (of the new one)
tells which is which: by the inode number of the folder, and in a repository that was copied by
what the two folders hold.  What was not yet exchanged is forgotten: no backup has claimed it.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from mirrorback.errors import Damaged
from mirrorback.store import durable, publish, settings, system, tree
from mirrorback.store.catalog import FOLDER_NAME
from mirrorback.store.remove import remove_tree
from mirrorback.store.repository import CURRENT, INCOMING, INNER, MIRROR, REDO, Repository

_FORMER = re.compile(rb"former-[0-9]+")
VOTES = 1000  # differences between two folders after which it is clear which is the older


class Said(NamedTuple):
    """What `mirror.toml` says of the snapshot that is the mirror."""

    name: str
    time: int  # ns since 1970 UTC
    offset: int  # seconds
    root: int | None  # inode number of its folder, where it was made


class Place(NamedTuple):
    """A snapshot's folder: where it is, and what it is called, or is to be called."""

    name: str | None  # None is the mirror
    inside: bool  # in `.mirrorback`
    held: bytes  # its name there

    @property
    def path(self) -> bytes:
        """Relative to the repository."""
        return INNER + b"/" + self.held if self.inside else self.held


class Layout(NamedTuple):
    """Where the snapshots are."""

    dated: list[Place]  # without order
    mirror: Place | None
    said: Said | None  # of the mirror; None where nobody knows
    forgotten: bool  # `incoming` is no snapshot
    committed: bool  # a publication may have come as far as the mirror's large files
    odd: list[bytes]  # what has a dated folder's name and is none


def look(repo: Repository) -> Layout:
    """Find the snapshots; changes nothing.  Raises Damaged, OSError."""
    dated, odd = _dated(repo)
    names = {place.name for place in dated}
    said, new = _said(repo, MIRROR), _said(repo, MIRROR + b".new")
    current = repo.root_number(repo.fd, CURRENT)
    incoming = repo.root_number(repo.inner, INCOMING)
    former = _former(repo)
    mirror = None if current is None else Place(None, False, CURRENT)
    if former is not None and said is not None:
        # The drive cannot exchange names, and a run was cut at that.
        if current is None and incoming is not None:
            mirror, incoming = Place(None, True, INCOMING), None
        dated.append(Place(_free(repo, said.name), True, former))
        return Layout(dated, mirror, new, incoming is not None, True, odd)
    if current is None:
        if dated or former is not None:
            raise Damaged(
                "`current` is missing, and there are other snapshots: put it back, or give that"
                " name to the newest of them, and run again"
            )
        return Layout([], None, None, incoming is not None, False, odd)
    if incoming is not None and new is not None:
        if said is None or not _exchanged(repo, current, incoming, said, new, names):
            return Layout(dated, mirror, said, True, False, odd)
        dated.append(Place(_free(repo, said.name), True, INCOMING))
        return Layout(dated, mirror, new, False, True, odd)
    if new is not None and _is_of(new, current, said, names):
        return Layout(dated, mirror, new, False, True, odd)
    if said is not None and said.name in names:
        said = None  # it is that of a mirror before
    return Layout(dated, mirror, said, incoming is not None, incoming is None and new is None, odd)


def settle(repo: Repository, layout: Layout) -> Layout:
    """Give every snapshot its own name; where they are then.  Raises OSError."""
    moved = False
    if layout.forgotten:
        _clear(repo)
        with contextlib.suppress(FileExistsError):
            os.mkdir(b"trash", 0o700, dir_fd=repo.inner)
        publish.forget(repo)
        moved = True
    dated = []
    for place in layout.dated:
        assert place.name is not None
        name = os.fsencode(place.name)
        if place.inside:
            system.rename_new(repo.inner, place.held, repo.fd, name)
            moved = True
        dated.append(Place(place.name, False, name))
    mirror = layout.mirror
    if mirror is not None and mirror.inside:
        system.rename_new(repo.inner, mirror.held, repo.fd, CURRENT)
        mirror = Place(None, False, CURRENT)
        moved = True
    if moved:
        system.sync_filesystem(repo.fd)
    return layout._replace(dated=dated, mirror=mirror, forgotten=False)


def _clear(repo: Repository) -> None:
    """Empty `redo`: what lies there without a commit is for what is forgotten."""
    redo = repo.open_inner(REDO)
    try:
        for name in map(os.fsencode, os.listdir(redo)):
            remove_tree(redo, name, threads=1)
    finally:
        os.close(redo)


def remember(repo: Repository, said: Said) -> None:
    """Write `mirror.toml`, durably.  Raises OSError."""
    durable.replace(repo.inner, MIRROR, mirror_text(said))


def mirror_text(said: Said) -> bytes:
    """What stands in `mirror.toml`."""
    text = f"snapshot = {settings.quoted(said.name)}\ntime = {said.time}\noffset = {said.offset}\n"
    if said.root is not None:
        text += f"root = {said.root}\n"
    return settings.seal(text)


def _said(repo: Repository, name: bytes) -> Said | None:
    try:
        table = settings.unseal(durable.read(repo.inner, name), os.fsdecode(name))
    except (OSError, Damaged):
        return None
    found = Said(
        table.get("snapshot", ""), table.get("time", ""), table.get("offset", ""), table.get("root")
    )
    numbers = (found.time, found.offset)
    if not isinstance(found.name, str) or not FOLDER_NAME.fullmatch(found.name):
        return None
    if not all(type(number) is int and abs(number) < 1 << 63 for number in numbers):
        return None
    return found if type(found.root) is int else found._replace(root=None)


def _dated(repo: Repository) -> tuple[list[Place], list[bytes]]:
    found, odd = [], []
    with os.scandir(repo.fd) as entries:
        for entry in entries:
            if FOLDER_NAME.fullmatch(entry.name):
                raw = os.fsencode(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    found.append(Place(entry.name, False, raw))
                else:
                    odd.append(raw)
    return found, odd


def _former(repo: Repository) -> bytes | None:
    """The newest mirror that waits for its dated name, in `.mirrorback`."""
    names = [n for n in map(os.fsencode, os.listdir(repo.inner)) if _FORMER.fullmatch(n)]
    return max(names, default=None)


def _free(repo: Repository, name: str) -> str:
    base = name[: publish.NAME_LENGTH]
    for free in (name, *(base if n == 1 else f"{base}-{n}" for n in range(1, 1000))):
        if not os.path.lexists(os.path.join(repo.path, os.fsencode(free))):
            return free
    raise Damaged(f"there are folders of the name {name} already; move them away")


def _is_of(new: Said, current: int, said: Said | None, names: set[str | None]) -> bool:
    """Whether a publication that was cut has given the mirror its folder."""
    if new.root is not None and new.root == current:
        return True
    if said is not None and said.root is not None and said.root == current:
        return False
    return said is None or said.name in names


def _exchanged(
    repo: Repository,
    current: int,
    incoming: int,
    said: Said,
    new: Said,
    names: set[str | None],
) -> bool:
    if said.name in names:
        return False  # the former mirror has its name: this is another build
    if new.root is not None and new.root in (current, incoming):
        return new.root == current
    if said.root is not None and said.root in (current, incoming):
        return said.root == incoming
    newest = max((n for n in names if n is not None), default=None)
    with contextlib.ExitStack() as opened:
        tops = [
            _opened(opened, repo.fd, CURRENT),
            _opened(opened, repo.inner, INCOMING),
            None if newest is None else _opened(opened, repo.fd, os.fsencode(newest)),
        ]
        return _second_is_older(tops)


def _opened(stack: contextlib.ExitStack, where: int, name: bytes) -> tree.Cursor:
    fd = os.open(name, tree.DIRECTORY_FLAGS, dir_fd=where)
    stack.callback(os.close, fd)
    return stack.enter_context(contextlib.closing(tree.Cursor(fd)))


def _second_is_older(tops: list[tree.Cursor | None]) -> bool:
    """Of two folders, which are neighbours in time, whether the second is the older.  What one
    of them has in common with a third, older folder, and the other has not, makes that one the
    older; else a time stamp does.  Where all that is no help, the second is kept: yes, if
    anything differs."""
    votes: Counter[int] = Counter()
    for one, other, third in _differing(tops, votes):
        if tops[2] is not None and third in (one, other):
            votes[2 if third == other else 1] += 10
        elif tops[2] is not None and None in (one, other) and third is None:
            votes[2 if other is None else 1] += 10
        elif one is not None and other is not None and one.mtime != other.mtime:
            votes[2 if other.mtime < one.mtime else 1] += 1
        votes[0] += 1
        if votes[0] > VOTES:
            break
    return bool(votes[0]) and votes[2] >= votes[1]


class _Sight(NamedTuple):
    folder: bool
    ino: int  # 0 of a folder: each snapshot has its own
    mtime: int  # the same


def _differing(
    tops: list[tree.Cursor | None], votes: Counter[int]
) -> Iterator[tuple[_Sight | None, _Sight | None, _Sight | None]]:
    """What differs between the first two folders, with what the third has there."""
    todo = [b""]
    while todo:
        path = todo.pop()
        (first, one), (second, other), (third, _at) = (_listed(top, path) for top in tops)
        if one != other:
            votes[0] += 1
            votes[2 if other < one else 1] += 1  # a folder's time goes on with its names
        for name in first.keys() | second.keys():
            found = first.get(name), second.get(name), third.get(name)
            if found[0] is not None and found[0].folder and found[0] == found[1]:
                todo.append(tree.join(path, name))
            elif found[0] != found[1]:
                yield found


def _listed(top: tree.Cursor | None, path: bytes) -> tuple[dict[bytes, _Sight], int]:
    """What a directory holds, and its time."""
    found: dict[bytes, _Sight] = {}
    if top is None:
        return found, 0
    try:
        fd = top.open(path)
        for name in map(os.fsencode, os.listdir(fd)):
            st = os.stat(name, dir_fd=fd, follow_symlinks=False)
            folder = stat.S_ISDIR(st.st_mode)
            found[name] = _Sight(folder, *((0, 0) if folder else (st.st_ino, st.st_mtime_ns)))
        return found, os.fstat(fd).st_mtime_ns
    except OSError:
        return found, 0
