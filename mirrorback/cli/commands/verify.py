"""`mirrorback verify`: read everything back and compare digests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import typer

from mirrorback.cli import shapes
from mirrorback.cli.command import add
from mirrorback.cli.escape import escape, plain
from mirrorback.cli.events import listener
from mirrorback.cli.options import Repo
from mirrorback.cli.session import Session, closing
from mirrorback.errors import Damaged
from mirrorback.model import Problem


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "verify", verify)


def verify(session: Session, repo: Repo) -> int:
    """Read everything back, compare digests, list what is damaged."""
    from mirrorback.engine.verify import verify as read_back

    count = 0

    def counted(problems: Iterable[Problem]) -> Iterator[Problem]:
        nonlocal count
        for problem in problems:
            count += 1
            yield problem

    with (
        listener(session) as events,
        closing(read_back(repo, session.now, events)) as found,
    ):
        problems = counted(found)
        if session.json:
            session.out.array(map(shapes.problem, problems))
        else:
            for problem in problems:
                events.result(_line(problem))
    if not (count or session.json or session.quiet):
        session.out.line("all is well")
    return Damaged.exit_code if count else 0


def _line(problem: Problem) -> str:
    """`path: what is wrong, in how many snapshots, where`."""
    names = problem.snapshots
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    text = f"{escape(problem.path) or '.'}: {plain(problem.problem)}"
    if shown:
        text += f" (in {plain(shown)})"
    return f"{text}: {escape(problem.location)}"
