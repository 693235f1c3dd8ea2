"""Describing trees, so that two can be compared in everything that is to be kept."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple


class Node(NamedTuple):
    """All that a backup keeps of an entry."""

    format: int  # S_IFMT
    mode: int
    uid: int
    gid: int
    mtime: int
    rdev: int
    content: str | bytes | None  # digest of a file's bytes, target of a symlink
    xattrs: tuple[tuple[bytes, bytes], ...]
    together: tuple[bytes, ...]  # all paths in the tree that share the inode


Tree = dict[bytes, Node]
SUFFIX = b".rdiff.zst"


def describe(top: Path | bytes) -> Tree:
    """Every entry of a tree by its path below `top`, whose own is b""."""
    root = os.fsencode(top)
    found: dict[bytes, os.stat_result] = {b"": os.lstat(root)}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, root)] = os.lstat(path)
    groups: dict[tuple[int, int], list[bytes]] = {}
    for path, st in found.items():
        groups.setdefault((st.st_dev, st.st_ino), []).append(path)
    return {
        path: _node(os.path.join(root, path) if path else root, st, groups)
        for path, st in found.items()
    }


def _node(full: bytes, st: os.stat_result, groups: dict[tuple[int, int], list[bytes]]) -> Node:
    content: str | bytes | None = None
    if stat.S_ISREG(st.st_mode):
        with open(full, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    elif stat.S_ISLNK(st.st_mode):
        content = os.readlink(full)
    device = stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode)
    names = map(os.fsencode, os.listxattr(full, follow_symlinks=False))
    return Node(
        format=stat.S_IFMT(st.st_mode),
        mode=stat.S_IMODE(st.st_mode),
        uid=st.st_uid,
        gid=st.st_gid,
        mtime=st.st_mtime_ns,
        rdev=st.st_rdev if device else 0,
        content=content,
        xattrs=tuple(
            sorted((name, os.getxattr(full, name, follow_symlinks=False)) for name in names)
        ),
        together=tuple(sorted(groups[st.st_dev, st.st_ino])),
    )


def differences(wanted: Tree, found: Tree) -> list[str]:
    """In words, everything that is not the same in two trees; none is equality."""
    told = [f"missing: {path!r}" for path in sorted(wanted.keys() - found.keys())]
    told += [f"too many: {path!r}" for path in sorted(found.keys() - wanted.keys())]
    for path in sorted(wanted.keys() & found.keys()):
        for field, old, new in zip(Node._fields, wanted[path], found[path], strict=True):
            if old != new:
                told.append(f"{path!r}: {field} is {new!r}, not {old!r}")
    return told


def require_same(wanted: Tree, found: Tree) -> None:
    """Fail, naming every difference, unless two trees are the same."""
    told = differences(wanted, found)
    assert not told, "\n".join(told)


def require_shown(wanted: Tree, found: Tree) -> None:
    """Fail unless a dated folder is what the source was, but for files that stand there as
    reverse deltas: these with all their metadata."""
    deltas = {path for path in wanted.keys() - found.keys() if path + SUFFIX in found}
    others = found.keys() - {path + SUFFIX for path in deltas}
    require_same(
        {path: node for path, node in wanted.items() if path not in deltas},
        {path: found[path] for path in others},
    )
    for path in deltas:
        one, other = (
            node._replace(content=None, together=())
            for node in (wanted[path], found[path + SUFFIX])
        )
        require_same({path: one}, {path: other})
