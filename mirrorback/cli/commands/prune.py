"""`mirrorback prune`: thin by policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from mirrorback.cli import table, words
from mirrorback.cli.command import add
from mirrorback.cli.escape import plain
from mirrorback.cli.events import listener
from mirrorback.cli.keeping import Keep
from mirrorback.cli.options import DryRun, Repo
from mirrorback.cli.session import Session

if TYPE_CHECKING:
    from mirrorback.engine.thinning import Thinned


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "prune", prune, reads=False)


def prune(session: Session, repo: Repo, dry_run: DryRun = False, *, keep: Keep) -> int:
    """Let snapshots go by a policy; rules are ORed.

    The mirror, pinned snapshots and the last complete one before an incomplete one always stay.
    """
    from mirrorback.engine.prune import prune as thin
    from mirrorback.errors import NoSpace

    with listener(session) as events:
        thinned = thin(repo, keep.policy(), dry_run=dry_run, now=session.now, events=events)
    if session.json:
        session.out.array(
            {"name": f.name, "keep": f.keep, "reasons": list(f.reasons), "frees": f.frees}
            for f in thinned.fates
        )
    elif not session.quiet:
        _show(session, thinned, dry_run)
    if thinned.damage is not None:
        raise thinned.damage
    if thinned.shortfall is not None:
        raise NoSpace(thinned.shortfall)
    return 0


def _show(session: Session, thinned: Thinned, dry_run: bool) -> None:
    everything = dry_run or session.verbose > 0
    shown = thinned.fates if everything else thinned.removed
    removed = "remove" if dry_run else "removed"
    if shown:
        table.show(
            session.out,
            ("SNAPSHOT", "", "FREES", "WHY"),
            (
                (
                    fate.name,
                    "keep" if fate.keep else removed,
                    "" if fate.keep else words.size(fate.frees, fate.estimated),
                    ", ".join(map(plain, fate.reasons)),
                )
                for fate in shown
            ),
            right="  >",
        )
    if not dry_run:
        gone = len(thinned.removed)
        unsure = any(fate.estimated for fate in thinned.removed)
        freed = words.size(sum(fate.frees for fate in thinned.removed), unsure)
        stay = len(thinned.fates) - gone
        left = "stays" if stay == 1 else "stay"
        session.out.line(
            f"{words.number(gone, 'snapshot')} removed, {freed} freed; {stay:,} {left}"
        )
