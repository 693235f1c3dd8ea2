"""`mirrorback ls`: what a folder held, as `ls -l` would show it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from datetime import tzinfo
from typing import Annotated

import typer

from mirrorback.cli import shapes, table, words
from mirrorback.cli.command import add
from mirrorback.cli.escape import escape
from mirrorback.cli.options import At, Repo
from mirrorback.cli.session import Session, closing
from mirrorback.model import Entry, Kind, Metadata


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "ls", ls)


def ls(
    session: Session,
    repo: Repo,
    path: Annotated[
        str | None, typer.Argument(metavar="PATH", help="A folder or file.", show_default=False)
    ] = None,
    at: At = None,
    recursive: Annotated[
        bool, typer.Option("-R", "--recursive", help="All that is below, too.")
    ] = False,
) -> int:
    """List a folder as it was.

    By default the source itself, as it is in the mirror.
    """
    zone = session.zone
    wanted = None if path is None else os.fsencode(path)
    with (
        session.history(repo) as history,
        closing(history.listing(wanted, at, recursive)) as entries,
    ):
        if session.json:
            session.out.array(shapes.entry(entry, zone) for entry in entries)
        else:
            rows = _rows(entries, zone, recursive)
            table.columns(session.out, rows, right="   >", widths=(10, 4, 4, 8), gap=" ")
    return 0


def _rows(entries: Iterable[Entry], zone: tzinfo, whole: bool) -> Iterator[tuple[str, ...]]:
    for entry in entries:
        metadata = entry.metadata
        name = entry.path if whole else entry.path.rpartition(b"/")[2]
        shown = escape(name) or "."
        if metadata.target is not None:
            shown += f" -> {escape(metadata.target)}"
        owner = metadata.owner
        yield (
            stat.filemode(metadata.kind.format_bits | metadata.mode),
            escape(owner.user or str(owner.uid)),
            escape(owner.group or str(owner.gid)),
            _size(metadata),
            words.minute(metadata.mtime, zone),
            shown,
        )


def _size(metadata: Metadata) -> str:
    """Bytes; of a device its numbers, of a symlink the length of its target."""
    if metadata.kind in (Kind.CHAR, Kind.BLOCK):
        return f"{os.major(metadata.rdev)}, {os.minor(metadata.rdev)}"
    return str(len(metadata.target) if metadata.target is not None else metadata.size)
