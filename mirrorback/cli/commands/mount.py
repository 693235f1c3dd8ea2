"""`mirrorback mount`: all snapshots as folders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from mirrorback.cli import shapes
from mirrorback.cli.command import add
from mirrorback.cli.ending import told
from mirrorback.cli.escape import escape
from mirrorback.cli.options import Repo
from mirrorback.cli.output import complain
from mirrorback.cli.session import Session


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "mount", mount, stream=True, reads=False)


def mount(
    session: Session,
    repo: Repo,
    point: Annotated[
        str, typer.Argument(metavar="DIR", help="An empty folder.", show_default=False)
    ],
    foreground: Annotated[
        bool, typer.Option("-f", "--foreground", help="Stay until it is unmounted, or Ctrl-C.")
    ] = False,
    allow_other: Annotated[
        bool, typer.Option("--allow-other", help="Other users may enter, as far as modes allow.")
    ] = False,
) -> int:
    """Show all snapshots as folders, read-only.

    Returns when the folder can be used, and serves it in the background until it is
    unmounted.
    """
    from mirrorback.engine import mount as engine

    now = session.now
    repository, where = engine.prepare(repo, point, now)

    def say() -> None:
        if session.json:
            session.out.json(shapes.ready(where))
        elif not session.quiet:
            session.out.line(f"{escape(where)} is ready; `{engine.unmounting(where)}` ends it")
        session.out.flush()

    def serve(ready: Callable[[], None], tell: Callable[[str], None]) -> None:
        engine.serve(repository, where, now, allow_other=allow_other, ready=ready, tell=tell)

    if foreground:
        serve(say, complain)
    else:
        from mirrorback.engine.background import in_background

        in_background(lambda ready: serve(ready, _log), told)
        say()
    return 0


def _log(message: str) -> None:
    """Nobody sees standard error any more."""
    import syslog

    syslog.openlog("mirrorback")
    syslog.syslog(syslog.LOG_ERR, message)
