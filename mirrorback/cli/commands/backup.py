"""`mirrorback backup`: make the mirror current, keep what was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mirrorback.cli import clock, shapes, values, words
from mirrorback.cli.command import add
from mirrorback.cli.escape import plain
from mirrorback.cli.events import listener
from mirrorback.cli.keeping import Keep
from mirrorback.cli.options import DeltaMinSize, DryRun, Force, LargeFiles, Mode
from mirrorback.cli.session import Session

if TYPE_CHECKING:
    from mirrorback.engine.backup import BackupResult
    from mirrorback.engine.backup_options import BackupOptions
    from mirrorback.engine.events import Events
    from mirrorback.model import Summary

SOME_UNREADABLE = 3
MOST_NAMED = 3  # removed snapshots, in a line


def register(app: typer.Typer) -> None:
    """Add the command."""
    add(app, "backup", backup, stream=True, reads=False)


def backup(
    session: Session,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="The folder to back up; alone: the name of a configured backup."
        ),
    ],
    repo: Annotated[
        str | None, typer.Argument(metavar="REPO", help="The repository.", show_default=False)
    ] = None,
    init: Annotated[
        bool, typer.Option("--init", help="Make the repository first where there is none.")
    ] = False,
    force: Force = False,
    mode: Mode = None,
    dry_run: DryRun = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN", help="As in .gitignore, from the source."),
    ] = None,
    exclude_from: Annotated[
        list[str] | None,
        typer.Option("--exclude-from", metavar="FILE", help="Patterns from a file."),
    ] = None,
    exclude_caches: Annotated[
        bool, typer.Option("--exclude-caches", help="Folders with a valid CACHEDIR.TAG.")
    ] = False,
    exclude_if_present: Annotated[
        list[str] | None,
        typer.Option("--exclude-if-present", metavar="NAME", help="Folders that hold NAME."),
    ] = None,
    exclude_larger_than: Annotated[
        str | None,
        typer.Option("--exclude-larger-than", metavar="SIZE", help="Files larger than SIZE."),
    ] = None,
    one_file_system: Annotated[
        bool, typer.Option("-x", "--one-file-system", help="Enter no mount below the source.")
    ] = False,
    source_snapshot: Annotated[
        str | None,
        typer.Option(
            "--source-snapshot",
            metavar="btrfs",
            help="Back up a read-only snapshot of the source, and remove it.",
        ),
    ] = None,
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Read every file; trust no time stamp.")
    ] = False,
    always: Annotated[
        bool, typer.Option("--always", help="A snapshot even if nothing changed.")
    ] = False,
    allow_empty_source: Annotated[
        bool, typer.Option("--allow-empty-source", help="An empty source is meant to be empty.")
    ] = False,
    delta_min_size: DeltaMinSize = None,
    large_files: LargeFiles = None,
    *,
    keep: Keep,
) -> int:
    """Make the mirror equal to the source, and keep what it was.

    What it was becomes a dated folder beside the mirror.  A configured backup is made by its
    name alone, with the options that are configured.

    Exit code 3: done, but some of the source could not be read.
    """
    from mirrorback.engine.backup_options import BackupOptions

    options = BackupOptions(
        init=init,
        dry_run=dry_run,
        checksum=checksum,
        always=always,
        allow_empty_source=allow_empty_source,
        one_file_system=one_file_system,
        exclude=tuple(exclude or ()),
        exclude_from=tuple(exclude_from or ()),
        exclude_caches=exclude_caches,
        exclude_if_present=tuple(exclude_if_present or ()),
        exclude_larger_than=values.size(exclude_larger_than),
        delta_min_size=values.size(delta_min_size),
        large_files=values.large_files(large_files),
        force=force,
        mode=values.mode(mode),
        source_snapshot=values.source_snapshot(source_snapshot),
        policy=keep.policy(),
    )
    with listener(session, stream=True) as events:
        result = _made(session, source, repo, options, events)
        # A dry run's changes are the result; those of a real run were told on the way.
        if dry_run and (session.json or not session.quiet):
            for change in result.changes:
                events.change(change)
    if session.json:
        session.out.json(shapes.summary(result.summary))
    elif not session.quiet:
        _show(session, result.summary, dry_run)
    return SOME_UNREADABLE if result.summary.errors else 0


def _made(
    session: Session, source: str, repo: str | None, options: BackupOptions, events: Events
) -> BackupResult:
    """Make the backup of a folder, or the one that is configured as `source`."""
    if repo is not None:
        from mirrorback.engine.backup import backup

        return backup(source, session.repository(repo), options, session.now, events)
    from mirrorback.engine.night import by_hand, configuration, diary

    found = configuration.in_use(session.config, session.now)
    return by_hand.back_up(found, source, options, diary.known_folder(), clock.now, events)


def _show(session: Session, summary: Summary, dry_run: bool) -> None:
    out = session.out
    folders = words.number(summary.dirs, "folder")
    if summary.unchanged:
        files = words.number(summary.files_unmodified, "file")
        where = f" since {summary.snapshot}" if summary.snapshot else ""
        out.line(f"nothing changed{where}: {files} in {folders}")
    else:
        counts = [
            (summary.files_new, "new"),
            (summary.files_changed, "changed"),
            (summary.files_metadata, "with other metadata"),
            (summary.files_moved, "moved"),
            (summary.files_removed, "removed"),
            (summary.files_unmodified, "unmodified"),
        ]
        told = ", ".join(f"{count:,} {what}" for count, what in counts if count) or "no files"
        name = "dry run" if dry_run else summary.snapshot
        out.line(f"{name}: {told}; {folders}")
    copied = words.size(summary.bytes_copied)
    if dry_run:
        out.line(f"{copied} would be copied; nothing was written")
    else:
        written = words.size(summary.bytes_written)
        out.line(f"{copied} copied, {written} written in {words.seconds(summary.duration_s)}")
    if summary.files_stale:
        stale = words.number(summary.files_stale, "file")
        out.line(f"{stale} could not be read and stay as they were before")
    if summary.errors:
        out.line(f"{words.number(summary.errors, 'error')}: the snapshot is incomplete")
    if summary.snapshots_removed:
        _show_removed(session, summary, dry_run)
    for what, count in sorted(summary.not_kept.items()):
        out.line(f"not kept on the drive: {plain(what)} of {count:,}")


def _show_removed(session: Session, summary: Summary, dry_run: bool) -> None:
    names = summary.snapshots_removed
    told = ", ".join(names) if len(names) <= MOST_NAMED or session.verbose else ""
    freed = words.size(summary.bytes_freed)
    removed, would = ("would be removed", "would be ") if dry_run else ("removed", "")
    session.out.line(
        f"{words.number(len(names), 'snapshot')} {removed} by the policy, {freed} {would}freed"
        + (f": {told}" if told else "")
    )
