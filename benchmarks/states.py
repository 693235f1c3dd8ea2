"""What a tree is: a digest for each of its entries, so that two trees can be compared."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

DELTA = ".rdiff.zst"  # added to the name of a file that is kept as a delta
BLOCK = 1 << 20


@dataclass
class State:
    """A tree: by the path of each entry a digest of all that is kept of it."""

    entries: dict[bytes, bytes] = field(default_factory=dict)
    contents: dict[bytes, int] = field(default_factory=dict)  # size in bytes, by digest

    @classmethod
    def of(cls, top: Path) -> State:
        """The state of the tree at `top`, whose own path is b""."""
        state = cls()
        first: dict[tuple[int, int], bytes] = {}  # of an inode's paths
        root = os.fsencode(top)
        for path in sorted(_walk(root)):
            full = os.path.join(root, path) if path else root
            st = os.lstat(full)
            told = [stat.S_IFMT(st.st_mode), stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid]
            told.append(st.st_mtime_ns)
            words = [repr(told).encode(), repr(_attributes(full)).encode()]
            if stat.S_ISREG(st.st_mode):
                digest = _content(full)
                state.contents[digest] = st.st_size
                words += [digest, first.setdefault((st.st_dev, st.st_ino), path)]
            elif stat.S_ISLNK(st.st_mode):
                words.append(os.readlink(full))
            state.entries[path] = hashlib.blake2b(b"\0".join(words), digest_size=16).digest()
        return state

    def differs(self, other: State) -> list[str]:
        """The paths at which another tree is not the same."""
        both = self.entries.keys() | other.entries.keys()
        return sorted(
            repr(path) for path in both if self.entries.get(path) != other.entries.get(path)
        )

    def missing(self, folder: Path) -> list[str]:
        """The paths that are not shown in a snapshot's folder, neither whole nor as a delta."""
        found = set(_walk(os.fsencode(folder)))
        delta = DELTA.encode()
        return sorted(
            repr(path) for path in self.entries if not {path, path + delta} & found
        ) + sorted(
            repr(path)
            for path in found
            if path not in self.entries and path.removesuffix(delta) not in self.entries
        )


def _walk(root: bytes) -> Iterator[bytes]:
    """The paths below `root`, and b"" for itself."""
    yield b""
    for folder, folders, files in os.walk(root, onerror=_raise):
        for name in folders + files:
            yield os.path.relpath(os.path.join(folder, name), root)


def _raise(error: OSError) -> None:
    raise error


def _attributes(path: bytes) -> list[tuple[str, bytes]]:
    with contextlib.suppress(OSError):
        names = sorted(os.listxattr(path, follow_symlinks=False))
        return [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names]
    return []


def _content(path: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.digest()
