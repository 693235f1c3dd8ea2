"""`mirrorback restore`: bring back what was."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from mirrorback.cli import words
from mirrorback.cli.command import add
from mirrorback.cli.escape import escape, plain, text_of
from mirrorback.cli.events import listener
from mirrorback.cli.options import At, DryRun, Repo
from mirrorback.cli.session import Session
from mirrorback.errors import UsageError

if TYPE_CHECKING:
    from mirrorback.engine.restore import Overwrite, RestoreResult

SOME_FAILED = 1
CHOICES = ("if-changed", "if-newer", "never", "always")


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "restore", restore, reads=False)


def restore(
    session: Session,
    repo: Repo,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH", help="Files or folders; all by default.", show_default=False
        ),
    ] = None,
    at: At = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="DIR", help="PATH comes back as DIR/PATH.")
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Restore to where it came from.")
    ] = False,
    overwrite: Annotated[
        str,
        typer.Option("--overwrite", metavar="|".join(CHOICES), help="When to replace a file."),
    ] = "if-changed",
    delete: Annotated[
        bool, typer.Option("--delete", help="Also remove what the snapshot does not have.")
    ] = False,
    dry_run: DryRun = False,
    no_owner: Annotated[bool, typer.Option("--no-owner", help="Leave ownership alone.")] = False,
    no_keep: Annotated[
        bool,
        typer.Option(
            "--no-keep", help="Do not keep what is replaced or removed, where a snapshot has it."
        ),
    ] = False,
) -> int:
    """Restore files and folders as they were.

    By default all of them, from the mirror.

    What is replaced or removed is kept beside it as NAME.before-restore-DATE.
    """
    if (to is None) is not in_place:
        raise UsageError("give either --to DIR or --in-place: one of the two")
    chosen = _overwrite(overwrite)
    from mirrorback.engine import restore as engine

    options = engine.RestoreOptions(
        to=to,
        in_place=in_place,
        overwrite=chosen,
        delete=delete,
        dry_run=dry_run,
        owner=not no_owner,
        keep=not no_keep,
    )
    with session.history(repo, needs_folders=True) as history, listener(session) as events:
        wanted = [os.fsencode(path) for path in paths or ()]
        result = engine.restore(history, wanted, at, options, events)
    if session.json:
        session.out.json(_shape(result, dry_run))
    elif not session.quiet:
        _show(session, result, dry_run)
    return SOME_FAILED if result.errors else 0


def _overwrite(text: str) -> Overwrite:
    from mirrorback.engine.restore import Overwrite

    try:
        return Overwrite(text)
    except ValueError:
        raise UsageError(f"--overwrite {escape(text)}: give one of {', '.join(CHOICES)}") from None


def _shape(result: RestoreResult, dry_run: bool) -> dict[str, object]:
    shape: dict[str, object] = {
        "snapshot": result.snapshot,
        "restored": result.restored,
        "unchanged": result.unchanged,
        "skipped": result.skipped,
        "deleted": result.deleted,
        "kept_aside": result.kept_aside,
        "bytes_written": result.bytes_written,
        "errors": result.errors,
        "not_kept": result.not_kept,
    }
    if dry_run:
        shape["actions"] = [
            {"action": action, "path": text_of(path)} for action, path in result.actions
        ]
    return shape


def _show(session: Session, result: RestoreResult, dry_run: bool) -> None:
    out = session.out
    if dry_run:
        for action, path in result.actions:
            out.line(f"{action} {escape(path) or '.'}")
    done = "would be restored" if dry_run else "restored"
    parts = [f"{result.restored:,} {done}"]
    parts += [f"{result.unchanged:,} already as they were"] if result.unchanged else []
    parts += [f"{result.skipped:,} skipped"] if result.skipped else []
    parts += [f"{result.deleted:,} deleted"] if result.deleted else []
    parts += [f"{result.kept_aside:,} kept aside"] if result.kept_aside else []
    parts += [f"{result.errors:,} failed"] if result.errors else []
    out.line(f"from {result.snapshot}: {', '.join(parts)}; {words.size(result.bytes_written)}")
    for what, count in sorted(result.not_kept.items()):
        out.line(f"could not be set: {plain(what)} of {count:,}")
