"""`mirrorback repair`: mend what verify found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mirrorback.cli import shapes, words
from mirrorback.cli.command import add
from mirrorback.cli.escape import escape, plain
from mirrorback.cli.events import listener
from mirrorback.cli.options import DryRun, Repo
from mirrorback.cli.output import complain
from mirrorback.cli.session import Session
from mirrorback.errors import Damaged, NoSpace
from mirrorback.model import Repair

if TYPE_CHECKING:
    from mirrorback.engine.mending import RepairResult

ORIGINS = {
    "source": "from the source",
    "history": "from a copy in history",
    "delta": "through reverse deltas",
    "links": "by another link to it that is sound",
    "itself": "with its own bytes",
    "catalog": "from the catalog",
    "name": "by giving it its name back",
    "anew": "by removing it: it is made anew when it is needed",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "repair", repair, reads=False)


def repair(
    session: Session,
    repo: Repo,
    dry_run: DryRun = False,
    source: Annotated[
        str | None,
        typer.Option("--source", metavar="DIR", help="Where the source is now, if elsewhere."),
    ] = None,
) -> int:
    """Mend what verify found, from the source or from copies; keep what was there."""
    from mirrorback.engine.repair import repair as mend

    with listener(session) as events:
        result = mend(repo, dry_run=dry_run, source=source, now=session.now, events=events)
    if session.json:
        session.out.array([*map(shapes.repair, result.repairs), *map(_absent, result.absent)])
    else:
        _show(session, result, dry_run)
    if result.lacking:
        complain(
            f"the drive has no room for {words.size(result.lacking)} of right content:"
            " delete snapshots (`mirrorback delete`) or free space, then run again"
        )
        return NoSpace.exit_code
    return Damaged.exit_code if result.left else 0


def _absent(found: tuple[str, bytes]) -> shapes.Shape:
    name, location = found
    problem = "the whole folder of the snapshot is missing"
    return shapes.repair(Repair(b"", (name,), problem, location, False, None, None))


def _show(session: Session, result: RepairResult, dry_run: bool) -> None:
    for one in result.repairs:
        if not one.repaired or not session.quiet:
            session.out.line(_line(one, dry_run))
    for name, location in result.absent:
        session.out.line(
            f"{plain(name)}: the whole folder is missing: bring it back to {escape(location)}"
        )
    if session.quiet:
        return
    if not result.repairs and not result.absent:
        session.out.line("nothing is marked as damaged; `mirrorback verify` looks")
        return
    mended = sum(one.repaired for one in result.repairs)
    verb = "would be mended" if dry_run else "mended"
    left = f", {result.left:,} left as it is" if result.left else ""
    session.out.line(f"{mended:,} {verb}{left}")


def _line(one: Repair, dry_run: bool) -> str:
    """`path: what was wrong, in which snapshots: what became of it`."""
    names = one.snapshots
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    text = f"{escape(one.path) or '.'}: {plain(one.problem)}"
    if shown:
        text += f" (in {plain(shown)})"
    if not one.repaired and one.origin is not None:
        return f"{text}: not mended, since there is no room for what it was: {escape(one.location)}"
    if not one.repaired:
        return f"{text}: not mended, what it was is found nowhere: {escape(one.location)}"
    if one.origin is None:
        return f"{text}: is as it should be again"
    text += f": {'would be mended' if dry_run else 'mended'} {ORIGINS[one.origin]}"
    if one.set_apart is not None:
        text += f"; what stood there is kept as {escape(one.set_apart)}"
    return text
