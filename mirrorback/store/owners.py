"""Names of users and groups on this host."""

from __future__ import annotations

import functools
import grp
import pwd

from mirrorback.model import Owner


@functools.lru_cache(maxsize=4096)
def named(uid: int, gid: int) -> Owner:
    """The owner with the names it has here, None where it has none."""
    return Owner(uid, gid, _user(uid), _group(gid))


def _user(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError, OSError):
        return None


def _group(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError, OSError):
        return None
