"""Describing what a view shows, as `trees` describes a folder."""

from __future__ import annotations

import hashlib
from contextlib import closing

from trees import Node, Tree

from mirrorback.engine.view import Node as Shown
from mirrorback.engine.view import View
from mirrorback.model import Kind


def describe_view(view: View, top: bytes) -> Tree:
    """Every entry below a folder of a view by its path below it, whose own is b""."""
    found: dict[bytes, Shown] = {}
    todo = [b""]
    while todo:
        path = todo.pop()
        full = b"/".join(filter(None, [top, path]))
        shown = found[path] = view.look(full)
        if shown.metadata.kind is Kind.DIRECTORY:
            for name, kind, inode in view.names(full):
                child = b"/".join(filter(None, [path, name]))
                node = view.look(full + b"/" + name)
                assert (node.metadata.kind, node.inode) == (kind, inode)
                todo.append(child)
    groups: dict[int, list[bytes]] = {}
    for path, shown in found.items():
        groups.setdefault(shown.inode, []).append(path)
    return {path: _node(view, shown, groups) for path, shown in found.items()}


def _node(view: View, shown: Shown, groups: dict[int, list[bytes]]) -> Node:
    metadata = shown.metadata
    content: str | bytes | None = metadata.target
    if metadata.kind is Kind.FILE:
        with closing(view.open(shown)) as version:
            data = version.pread(0, metadata.size + 1)
        assert len(data) == metadata.size
        content = hashlib.sha256(data).hexdigest()
    return Node(
        format=metadata.kind.format_bits,
        mode=metadata.mode,
        uid=metadata.owner.uid,
        gid=metadata.owner.gid,
        mtime=metadata.mtime,
        rdev=metadata.rdev,
        content=content,
        xattrs=metadata.xattrs,
        together=tuple(sorted(groups[shown.inode])),
    )
