"""`mirrorback pin` and `unpin`: what is to stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mirrorback.cli.command import add
from mirrorback.cli.escape import escape
from mirrorback.cli.events import listener
from mirrorback.cli.options import Repo
from mirrorback.cli.session import Session

if TYPE_CHECKING:
    from mirrorback.engine.pins import Pins

Snapshots = Annotated[
    list[str],
    typer.Argument(
        metavar="SNAPSHOT", help="Names, as `snapshots` lists them; `latest` is the mirror."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    add(app, "pin", pin, reads=False)
    add(app, "unpin", unpin, reads=False)


def pin(
    session: Session,
    repo: Repo,
    snapshots: Snapshots,
    reason: Annotated[
        str | None,
        typer.Option("--reason", metavar="TEXT", help="Why; shown by `snapshots`."),
    ] = None,
) -> int:
    """Keep snapshots: neither `delete` nor `prune` takes them."""
    from mirrorback.engine import pins

    with listener(session) as events:
        done = pins.pin(repo, list(snapshots), reason, now=session.now, events=events)
    _show(session, done)
    return 0


def unpin(session: Session, repo: Repo, snapshots: Snapshots) -> int:
    """Let snapshots go again that were pinned, by hand or by a mass change.

    A mass change is acknowledged so: thinning goes on.
    """
    from mirrorback.engine import pins

    with listener(session) as events:
        done = pins.unpin(repo, list(snapshots), now=session.now, events=events)
    _show(session, done)
    if not session.json and not session.quiet:
        _show_thinning(session, done)
    return 0


def _show(session: Session, done: Pins) -> None:
    if session.json:
        session.out.array({"name": p.after.name, "pinned": p.after.pinned} for p in done.pinned)
    elif not session.quiet:
        for one in done.pinned:
            name, reason = one.after.name, one.after.pinned
            if reason is None:
                session.out.line(f"unpinned {name}" if one.changed else f"{name} was not pinned")
            else:
                word = "pinned" if one.changed and not one.acknowledges else "still pinned"
                session.out.line(f"{word} {name}: {escape(reason)}")


def _show_thinning(session: Session, done: Pins) -> None:
    if not any(one.acknowledges for one in done.pinned):
        return
    if done.holding:
        left = ", ".join(snapshot.name for snapshot in done.holding)
        session.out.line(f"thinning still waits for the mass change that pinned {left}")
    else:
        session.out.line("the mass change is acknowledged: thinning goes on")
