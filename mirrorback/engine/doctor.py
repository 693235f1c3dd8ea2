"""Doctor: is this drive fit to hold backups, and is all well with the repository."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime

from mirrorback.engine import doors
from mirrorback.errors import Damaged, MirrorbackError
from mirrorback.model import Finding, Level
from mirrorback.store import lock, probe, settings
from mirrorback.store.audit import blamed
from mirrorback.store.catalog import DELETING, PENDING, Catalog, translated
from mirrorback.store.probe import Drive
from mirrorback.store.repository import CATALOG, INCOMING, Repository, drive_errors
from mirrorback.store.sealing import Seal

LITTLE = 0.05  # of the drive, below which free space is little


def examine(repository: str, now: datetime) -> list[Finding]:
    """Look at a repository and the drive it lies on; nothing is changed but for a
    private folder that is made and removed.  Raises NoRepository, DriveError."""
    path = os.path.abspath(os.fsencode(repository))
    with drive_errors():
        repo = Repository.open(path)
        try:
            found = list(_of_repository(repo))
            try:
                found += of_drive(probe.probe(repo.inner_path(b"")))
            except OSError as error:
                found.append(
                    Finding(
                        "drive",
                        Level.BAD,
                        f"cannot be written: {error.strerror}",
                        "no backup can be made; history can still be read and restored",
                    )
                )
            return found
        finally:
            repo.close()


def of_drive(drive: Drive) -> list[Finding]:
    """What follows from what a drive can hold."""
    return [*_links(drive), *_metadata(drive), *_names(drive), *_room(drive), *_mount(drive)]


def _links(drive: Drive) -> Iterator[Finding]:
    if drive.hard_links:
        yield Finding("hard links", Level.GOOD, "yes", "what does not change takes no space")
    else:
        yield Finding(
            "hard links", Level.BAD, "no", "no repository can be kept on this drive; format it anew"
        )
    if drive.reflinks:
        yield Finding("reflinks", Level.GOOD, "yes", "versions of a file share what is the same")
    else:
        yield Finding(
            "reflinks", Level.NOTE, "no", "older versions of large files are kept as reverse deltas"
        )
    if not drive.exchange:
        yield Finding(
            "exchange of folders",
            Level.NOTE,
            "no",
            "while a backup is published there is no `current` for a moment",
        )


def _metadata(drive: Drive) -> Iterator[Finding]:
    kept = "kept in the catalog; `mirrorback restore` brings them back, a plain copy does not"
    for subject, held in (
        ("ownership", drive.owners),
        ("permissions", drive.modes),
        ("extended attributes", drive.xattrs),
        ("access control lists", drive.acls),
    ):
        if held:
            yield Finding(subject, Level.GOOD, "yes", "as in the source")
        else:
            yield Finding(subject, Level.WARNING, "no", kept)
    missing = [
        word
        for word, held in (
            ("symlinks", drive.symlinks),
            ("symlinks of 4095 bytes", drive.long_symlinks),
            ("fifos", drive.fifos),
            ("devices", drive.devices),
        )
        if not held
    ]
    if missing:
        yield Finding("kinds of file", Level.WARNING, "not: " + ", ".join(missing), kept)
    else:
        yield Finding("kinds of file", Level.GOOD, "all", "as in the source")
    if not drive.holes:
        yield Finding("holes", Level.NOTE, "no", "sparse files take their full size")
    if drive.time_grain > 1 or not drive.all_times:
        words = f"kept to {drive.time_grain:,} ns"
        if not drive.all_times:
            words += ", not all years"
        yield Finding("times", Level.NOTE, words, "exact times are in the catalog and in a restore")
    else:
        yield Finding("times", Level.GOOD, "exact", "as in the source")


def _names(drive: Drive) -> Iterator[Finding]:
    if drive.name_max < 255:
        yield Finding(
            "names", Level.WARNING, f"up to {drive.name_max}", "longer names cannot be backed up"
        )
    elif not drive.any_bytes or not drive.case_sensitive:
        what = "UTF-8 only" if not drive.any_bytes else "upper and lower case are the same"
        yield Finding("names", Level.WARNING, what, "other names cannot be backed up")
    else:
        yield Finding("names", Level.GOOD, "any bytes, up to 255", "as in the source")


def _room(drive: Drive) -> Iterator[Finding]:
    share = drive.free / drive.total if drive.total else 1.0
    level = Level.WARNING if share < LITTLE else Level.GOOD
    follows = "delete old snapshots soon" if share < LITTLE else "enough"
    yield Finding(
        "free space", level, f"{drive.free / 2**30:,.1f} GiB of {drive.total / 2**30:,.1f}", follows
    )
    if drive.free_inodes is not None and drive.total_inodes:
        few = drive.free_inodes / drive.total_inodes < LITTLE
        yield Finding(
            "free inodes",
            Level.WARNING if few else Level.GOOD,
            f"{drive.free_inodes:,} of {drive.total_inodes:,}",
            "each snapshot needs one for every folder" if few else "enough",
        )


def _mount(drive: Drive) -> Iterator[Finding]:
    if not drive.fstype:
        return
    options = drive.options
    yield Finding(
        "file system",
        Level.GOOD,
        drive.fstype + (", rotating disk" if drive.rotational else ""),
        "one file is copied at a time" if drive.rotational else "files are copied in parallel",
    )
    missing = sorted({"nosuid", "nodev"} - options)
    if "ro" in options:
        yield Finding("mount", Level.BAD, "read only", "no backup can be made")
    elif missing:
        yield Finding(
            "mount",
            Level.NOTE,
            "without " + " and ".join(missing),
            "setuid programs and devices in the backup work as in the source;"
            " mount the drive with nosuid,nodev",
        )
    else:
        yield Finding("mount", Level.GOOD, "nosuid, nodev", "programs in the backup gain nothing")


def _of_repository(repo: Repository) -> Iterator[Finding]:
    held = lock.held(repo.inner)
    yield from doors.findings(repo)
    try:
        catalog = Catalog.open(repo.inner_path(CATALOG))
    except MirrorbackError as error:
        yield Finding("catalog", Level.BAD, "cannot be read", str(error))
        return
    try:
        with translated(), blamed(catalog):
            yield from _of_catalog(repo, catalog, held)
    except MirrorbackError as error:
        yield Finding("catalog", Level.BAD, "damaged", str(error))
    finally:
        catalog.close()


def _seal(catalog: Catalog) -> tuple[bool, str | None]:
    """Whether the catalog is not what was last written, and what there is to say of its seal."""
    try:
        found = catalog.seal()
    except Damaged:
        return False, "damaged"
    return found is Seal.BROKEN, "none for its present state" if found is Seal.ABSENT else None


def _of_catalog(repo: Repository, catalog: Catalog, held: bool) -> Iterator[Finding]:
    answer = catalog.db.execute("PRAGMA quick_check").fetchone()[0]
    broken, note = _seal(catalog)
    if answer == "ok" and not broken:
        yield Finding("catalog", Level.GOOD, "sound", "history can be searched")
    else:
        yield Finding(
            "catalog", Level.BAD, "damaged", "the folders are unharmed; run `mirrorback rebuild`"
        )
    if note is not None and not held:
        yield Finding(
            "seal of the catalog",
            Level.NOTE,
            note,
            "the next run that writes makes it anew; `mirrorback verify` checks row by row",
        )
    if held:
        yield Finding("lock", Level.NOTE, "held", "a run is at work now")
        return
    unfinished = catalog.in_state(PENDING) or catalog.in_state(DELETING)
    if unfinished or repo.root_number(repo.inner, INCOMING) is not None or repo.salvage():
        yield Finding(
            "last run", Level.NOTE, "was cut short", "the next backup completes it by itself"
        )
    for snapshot in catalog.snapshots():
        where, name = repo.place(catalog, snapshot)
        if repo.root_number(where, name) is None:
            yield Finding(
                f"snapshot {snapshot.name}",
                Level.BAD,
                f"its folder {settings.escape(name)} is gone",
                "the next backup makes a new one from the source"
                if snapshot.current
                else "what only it held is lost; `mirrorback delete` forgets it",
            )
