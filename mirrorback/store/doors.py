"""Who may enter a repository: it holds what files were before they became private."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import NamedTuple

from mirrorback.model import Owner
from mirrorback.store import owners, xattrs
from mirrorback.store.repository import Repository

OTHERS = 0o077
GROUP = 0o070


class Door(NamedTuple):
    """What the folder of a repository says of who may enter."""

    mode: int  # its permissions
    loose: bool  # they give others more than is meant
    listed: bool  # an access control list gives some users or groups more than its owner's
    owner: Owner
    foreign: bool  # that is neither root nor who runs the program


def look(repo: Repository, meant: int | None = None) -> Door:
    """The door of an open repository, which is `meant` to have these permissions, by default
    those that it was made with.  Raises OSError."""
    st = os.fstat(repo.fd)
    mode = stat.S_IMODE(st.st_mode)
    wanted = repo.settings.mode if meant is None else meant
    return Door(
        mode=mode,
        loose=bool(mode & OTHERS & ~wanted),
        # What a list gives is masked by the permissions of the group (acl(5)).
        listed=bool(mode & GROUP) and xattrs.has_list(repo.fd),
        owner=owners.named(st.st_uid, st.st_gid),
        foreign=st.st_uid not in (0, os.geteuid()),
    )


def shut_inner(repo: Repository) -> bool:
    """See to it that `.mirrorback` is its owner's alone, whatever someone has done to the whole
    drive; False where the drive does not hold permissions, or the folder is another's."""
    with contextlib.suppress(OSError):
        if os.fstat(repo.inner).st_mode & OTHERS:
            os.fchmod(repo.inner, 0o700)
        return not os.fstat(repo.inner).st_mode & OTHERS
    return False


def holds_owners(repo: Repository) -> bool:
    """Whether a file that is made there belongs to who makes it; False where that cannot be
    told without a name for it (O_TMPFILE of open(2))."""
    flags = os.O_RDWR | os.O_CLOEXEC | getattr(os, "O_TMPFILE", os.O_CREAT | os.O_EXCL)
    try:
        fd = os.open(b".", flags, 0o600, dir_fd=repo.inner)
    except OSError:
        return False
    try:
        return os.fstat(fd).st_uid == os.geteuid()
    finally:
        os.close(fd)
