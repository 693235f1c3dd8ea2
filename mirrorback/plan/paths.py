"""What a path that a person typed can mean in history."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from mirrorback.errors import UsageError

CURRENT = b"current"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A path in history, and the snapshot that was named with it, if one was
    ("latest" for the mirror)."""

    path: bytes
    snapshot: str | None = None


def normalise(path: bytes) -> bytes:
    """A relative path without `.`, `..`, doubled or trailing slashes; b"" is the
    root.  Raises UsageError where it leads out of the root or cannot be a path."""
    if b"\0" in path:
        raise UsageError("a path cannot hold a NUL byte")
    names: list[bytes] = []
    for name in path.split(b"/"):
        if name in (b"", b"."):
            continue
        if name == b"..":
            if not names:
                raise UsageError("the path leads out of the source")
            names.pop()
        else:
            names.append(name)
    return b"/".join(names)


def interpret(
    path: bytes, *, source: bytes, repository: bytes, names: Container[str], cwd: bytes
) -> list[Candidate]:
    """The readings of what was typed, likeliest first; the caller takes the first
    that was ever in history.

    A relative path is relative to the source; or it begins with `current` or the
    name of a snapshot (one of `names`), as completed in the drive's folders; or
    it is relative to `cwd`, where that is in the repository's folders or in the
    source.  An absolute path lies in one of those two.  `source`, `repository`
    and `cwd` are absolute.  Raises UsageError.
    """
    if not path:
        raise UsageError("the path is empty: use . for the whole source")
    if path.startswith(b"/"):
        found = _absolute(normalise(path), source, repository, names)
        if not found:
            raise UsageError("the path is neither in the source nor in the repository's folders")
        return found
    found = []
    escapes: UsageError | None = None
    try:
        plain = normalise(path)
    except UsageError as error:
        escapes = error
    else:
        found.append(Candidate(plain))
        in_folder = _in_folder(plain, names)
        if in_folder is not None:
            found.append(in_folder)
    joined = _from_cwd(cwd, path)
    if joined is not None:
        found += [c for c in _absolute(joined, source, repository, names) if c not in found]
    if not found:
        assert escapes is not None
        raise escapes
    return found


def require_agreement(named: str, wanted: str) -> None:
    """Raise UsageError where a path names another snapshot than --at does."""
    if named != wanted:
        raise UsageError(f"the path is in snapshot {named}, --at says {wanted}: leave one out")


def _from_cwd(cwd: bytes, path: bytes) -> bytes | None:
    try:
        return normalise(cwd + b"/" + path)
    except UsageError:
        return None


def _absolute(
    path: bytes, source: bytes, repository: bytes, names: Container[str]
) -> list[Candidate]:
    """Readings of an absolute path, given without its leading slash."""
    found = []
    below = _below(path, repository)
    if below is not None:
        in_folder = _in_folder(below, names)
        if in_folder is not None:
            found.append(in_folder)
    below = _below(path, source)
    if below is not None:
        found.append(Candidate(below))
    return found


def _below(path: bytes, top: bytes) -> bytes | None:
    """The rest of `path` (without leading slash) below `top`, None where it is elsewhere."""
    top = normalise(top)
    if not top or path == top:
        return path if not top else b""
    return path[len(top) + 1 :] if path.startswith(top + b"/") else None


def _in_folder(path: bytes, names: Container[str]) -> Candidate | None:
    """The reading of a path that begins with a snapshot's folder."""
    first, _, rest = path.partition(b"/")
    if first == CURRENT:
        return Candidate(rest, "latest")
    name = first.decode("ascii", "replace")
    return Candidate(rest, name) if name in names else None
