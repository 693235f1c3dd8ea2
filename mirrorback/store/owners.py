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


def has_all() -> bool:
    """Whether this process may give files to any user: not in a user namespace that knows only
    some (user_namespaces(7))."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            return [line.split() for line in file] == [["0", "0", "4294967295"]]
    except OSError:
        return False
