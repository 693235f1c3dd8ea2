"""`mirrorback snapshots`: what there is."""

from __future__ import annotations

import typer

from mirrorback.cli import shapes, table, words
from mirrorback.cli.command import add
from mirrorback.cli.escape import escape, plain
from mirrorback.cli.options import Repo
from mirrorback.cli.session import Session
from mirrorback.model import Snapshot


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "snapshots", snapshots)


def snapshots(session: Session, repo: Repo) -> int:
    """List the snapshots, oldest first; the last is the mirror."""
    with session.history(repo) as history:
        found = history.snapshots()
        if session.json:
            session.out.array(shapes.snapshot(s, history.location(s)) for s in found)
            return 0
        where = history.repository
    table.show(
        session.out,
        ("SNAPSHOT", "TIME", "FILES", "SIZE", ""),
        (
            (
                s.name,
                words.iso(s.time // words.SECOND * words.SECOND, s.offset),
                f"{s.files:,}",
                words.size(s.bytes),
                _marks(s, where),
            )
            for s in found
        ),
        right="  >>",
    )
    return 0


def _marks(snapshot: Snapshot, repository: bytes) -> str:
    """What is special about it; of what a mass change has pinned, what to do about that."""
    marks = ["current"] if snapshot.current else []
    if snapshot.incomplete:
        marks.append("incomplete")
    if snapshot.pinned is not None:
        from mirrorback.engine.pins import holds_thinning, unpinning

        marks.append(f"pinned: {escape(snapshot.pinned)}" if snapshot.pinned else "pinned")
        if holds_thinning(snapshot.pinned):
            command = plain(unpinning(repository, snapshot.name))
            marks.append(f"nothing is thinned until you have looked, and `{command}`")
    return ", ".join(marks)
