"""What SQLite raises over the catalog, as errors of ours, each one sentence."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from mirrorback.errors import Damaged, DriveError, Locked, NoSpace

READ_ONLY = "SQLITE_READONLY"
_DAMAGE = ("SQLITE_NOTADB", "SQLITE_TOOBIG", "SQLITE_INTERRUPT")  # the last by `patience`

# What SQLite says where names in the schema, the header, or a text have been damaged.
_OF_DAMAGE = (
    "no such",
    "unsupported file format",
    "Could not decode to UTF-8",
    "user-defined function raised exception",  # `row_check` was given such a text
)


class Unfinished(DriveError):
    """A run was killed in a commit, and this connection may not roll it back; `Catalog.mend`
    does."""


class Unopened(DriveError):
    """SQLite could not open a file, such as its journal: on a drive that has no inode left it
    says no more than that."""


class Exhausted(DriveError):
    """Memory ran out: there is little of it, or what a catalog says of itself would take more
    than is ever needed, which `audit.blamed` finds out."""

    def __init__(self) -> None:
        super().__init__("there is not enough memory: end other programs, and run this again")


class Outdated(DriveError):
    """What is open is a catalog that was, before `rebuild` made another."""

    def __init__(self) -> None:
        super().__init__(
            "the catalog was made anew meanwhile; run it again, or unmount, and mount again"
        )


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what SQLite raises into errors of ours, each one sentence."""
    try:
        yield
    except MemoryError as error:
        raise Exhausted from error
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name == "SQLITE_FULL":
            raise NoSpace("the drive is full: the catalog could not be written") from error
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise Locked("the catalog is held by another process; try again later") from error
        if name.startswith(READ_ONLY):
            raise Unfinished(f"the catalog cannot be used: {error}") from error
        if name.startswith("SQLITE_CANTOPEN"):
            raise Unopened(f"the catalog cannot be used: {error}") from error
        if name.startswith("SQLITE_CORRUPT") or name in _DAMAGE:
            raise damaged() from error
        if name in ("SQLITE_ERROR", "") and any(words in str(error) for words in _OF_DAMAGE):
            raise damaged() from error
        raise DriveError(f"the catalog cannot be used: {error}") from error


def damaged() -> Damaged:
    """That the catalog is damaged, and what can be done."""
    return Damaged(
        "the catalog (.mirrorback/catalog.db) is damaged; all files are still readable as folders,"
        " and `mirrorback rebuild` makes a new catalog from them"
    )
