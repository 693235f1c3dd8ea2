"""`mirrorback verify`: read everything back and compare digests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from mirrorback.cli import clock, shapes, words
from mirrorback.cli.command import add
from mirrorback.cli.escape import escape, plain
from mirrorback.cli.events import Shown, listener
from mirrorback.cli.options import Repo
from mirrorback.cli.session import Session, closing
from mirrorback.errors import Damaged
from mirrorback.model import Problem

if TYPE_CHECKING:
    from mirrorback.engine.verify import Outcome


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "verify", verify)


def verify(
    session: Session,
    repo: Repo,
    subset: Annotated[
        str | None,
        typer.Option(
            "--subset", metavar="N%|n/m", help="Read that much by chance, or the n-th of m parts."
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget", metavar="TIME", help="Read so long (30m), the longest unverified first."
        ),
    ] = None,
) -> int:
    """Read everything back, compare digests, list what is damaged.

    Also lists what is missing, was edited or put there by hand, or is no longer the same file
    (a hard link) as in the other snapshots.

    Exit code 4: there is something.
    """
    from mirrorback.engine import verify as engine

    part = engine.parse_part(subset, budget)
    outcome = engine.Outcome()
    count = 0

    def counted(problems: Iterable[Problem]) -> Iterator[Problem]:
        nonlocal count
        for problem in problems:
            count += 1
            yield problem

    with (
        listener(session) as events,
        closing(
            engine.verify(repo, session.now, events, part, clock=clock.ticks, outcome=outcome)
        ) as found,
    ):
        problems = counted(found)
        if session.json:
            session.out.array(map(shapes.problem, problems))
        else:
            for problem in problems:
                events.result(_line(problem))
        _note(events, outcome, remembering=budget is not None or count > 0)
    if not (session.json or session.quiet):
        _tell(session, outcome, count)
    return Damaged.exit_code if count else 0


def _note(events: Shown, outcome: Outcome, *, remembering: bool) -> None:
    """What is no damage, but should be known."""
    if outcome.droppings:
        events.warning(
            f"{words.number(outcome.droppings, 'name')} that desktops leave behind stand in the"
            " folders; they do no harm",
            outcome.example,
        )
    if remembering and not outcome.remembered:
        events.warning(
            "what was read could not be remembered: the drive is read-only, the catalog is"
            " damaged, or another run holds the repository"
        )


def _tell(session: Session, outcome: Outcome, count: int) -> None:
    if outcome.files < outcome.total:
        session.out.line(f"read {outcome.files:,} of {words.number(outcome.total, 'file')}")
    if count:
        session.out.line(f"{words.number(count, 'problem')} found")
    else:
        session.out.line("all is well" if outcome.files >= outcome.total else "no problem found")


def _line(problem: Problem) -> str:
    """`path: what is wrong, in how many snapshots, where`."""
    names = problem.snapshots
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    text = f"{escape(problem.path) or '.'}: {plain(problem.problem)}"
    if shown:
        text += f" (in {plain(shown)})"
    return f"{text}: {escape(problem.location)}"
