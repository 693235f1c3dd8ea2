"""`mirrorback versions` and `mirrorback find`: paths through all of history."""

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
from mirrorback.cli.options import Repo
from mirrorback.cli.session import Session
from mirrorback.model import Kind, Version

HEADERS = ("FIRST", "LAST", "MODE", "SIZE", "MODIFIED", "PATH")
RIGHT = "   >"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    add(app, "versions", versions)
    add(app, "find", find)


def versions(
    session: Session,
    repo: Repo,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file or folder.")],
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with the path it was moved from.")
    ] = False,
) -> int:
    """List every version of one file or folder, oldest first."""
    zone = session.zone
    with session.history(repo) as history:
        found = history.versions(os.fsencode(path), follow)
        if session.json:
            session.out.array(shapes.version(version, zone) for version in found)
        else:
            table.show(session.out, HEADERS, _rows(found, zone), right=RIGHT)
    return 0


def find(
    session: Session,
    repo: Repo,
    pattern: Annotated[
        str,
        typer.Argument(metavar="PATTERN", help="A glob for names; for paths if it has a slash."),
    ],
    ignore_case: Annotated[
        bool, typer.Option("-i", "--ignore-case", help="Upper and lower case are the same.")
    ] = False,
) -> int:
    """Look for a name in all of history; a row for every version."""
    zone = session.zone
    with session.history(repo) as history:
        found = history.find(pattern, ignore_case)
        if session.json:
            session.out.array(shapes.match(version, zone) for version in found)
        else:
            table.show(session.out, HEADERS, _rows(found, zone), right=RIGHT)
    return 0


def _rows(found: Iterable[Version], zone: tzinfo) -> Iterator[tuple[str, ...]]:
    for version in found:
        metadata = version.metadata
        path = escape(version.path) or "."
        if version.moved_from is not None:
            path += f" (moved from {escape(version.moved_from)})"
        yield (
            version.first.name,
            "current" if version.last.current else version.last.name,
            stat.filemode(metadata.kind.format_bits | metadata.mode),
            words.size(metadata.size) if metadata.kind is Kind.FILE else "",
            words.minute(metadata.mtime, zone),
            path,
        )
