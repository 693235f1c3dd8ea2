"""A snapshot of the source, for as long as it is backed up; and the end of one that was left."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator

from mirrorback.engine.events import Events
from mirrorback.engine.source import Freeze, Source
from mirrorback.errors import MirrorbackError, Refused, SourceError
from mirrorback.store import frozen, settings, subvolume, tree
from mirrorback.store.frozen import Left, Origin
from mirrorback.store.repository import Repository, give_up_reserve, make_reserve

MOST_NAMED = 3


@contextlib.contextmanager
def frozen_if(
    wanted: bool, repo: Repository, source: bytes, events: Events, *, dry_run: bool
) -> Iterator[Freeze | None]:
    """A read-only snapshot of what holds the folder `source`, to be read in its place, and
    removed at the end; none where that is not wanted, and in a dry run one by its rules alone.
    Else the caller holds the repository's lock.  Raises Refused, SourceError, and OSError of
    the drive."""
    if not wanted:
        yield None
    elif dry_run:
        yield _dry(os.path.realpath(source))
    else:
        with _frozen(repo, os.path.realpath(source), events) as freeze:
            yield freeze


@contextlib.contextmanager
def _frozen(repo: Repository, real: bytes, events: Events) -> Iterator[Freeze]:
    with _origin(real) as origin:
        frozen.require_removable(origin)
        folder = frozen.open_folder(origin, make=True)
        try:
            earlier = frozen.recorded(repo.inner)
            _remove_stray(origin, folder, earlier, events)
            left = Left(frozen.new_name(), origin.uuid, None)
            _record(repo, [*earlier, left])
            try:
                with _made(repo, origin, folder, left, earlier) as found:
                    yield found
            finally:
                _remove(repo, origin, folder, events, only=left.name)
                make_reserve(repo.inner)
        finally:
            os.close(folder)


def _dry(real: bytes) -> Freeze:
    """The rules of a snapshot for a source that is read as it is."""
    with _origin(real) as origin:
        frozen.require_removable(origin)
        return Freeze(-1, os.fstat(origin.fd).st_dev, 0, 0)


def remove_left(repo: Repository, source: bytes, events: Events) -> None:
    """Remove what earlier runs of this repository were cut before they could; what cannot be
    found or removed now stays on record, and a warning says so.  The caller holds the lock.
    Raises OSError of the drive."""
    if not frozen.recorded(repo.inner):
        return
    try:
        with _origin(os.path.realpath(source)) as origin:
            try:
                folder = frozen.open_folder(origin, make=False)
            except FileNotFoundError:
                folder = -1
            try:
                _remove(repo, origin, folder, events)
            finally:
                if folder >= 0:
                    os.close(folder)
    except MirrorbackError as error:
        events.warning(f"a snapshot of the source was left by an earlier run: {error}")


def _remove_stray(origin: Origin, folder: int, known: list[Left], events: Events) -> None:
    """Remove what was left by a run to a drive that has not come back."""
    try:
        gone = frozen.remove_stray(origin, folder, [left.name for left in known])
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        events.warning(f"a snapshot of the source that an earlier run left stays: {reason}")
        return
    if gone:
        events.warning(
            "snapshots of the source that earlier runs to other drives have left:"
            f" {len(gone):,}, now removed"
        )


def require_whole(source: Source, repository: bytes, *, meant: bool) -> None:
    """Raise Refused where a source has parts that its snapshot does not hold, besides the
    repository, unless that is `meant`."""
    apart = {path for path in source.apart if os.path.join(source.path, path) != repository}
    if not apart or meant:
        return
    named = ", ".join(settings.escape(path) for path in sorted(apart)[:MOST_NAMED])
    more = f" and {len(apart) - MOST_NAMED:,} more" if len(apart) > MOST_NAMED else ""
    raise Refused(
        f"a snapshot of the source does not hold what is another subvolume or file system: {named}"
        f"{more}; leave them out by --exclude, or all such by --one-file-system"
    )


def _record(repo: Repository, left: list[Left]) -> None:
    """Put on record; a full drive, on which the backup will make room, is spared its reserve."""
    try:
        frozen.record(repo.inner, left)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        give_up_reserve(repo.inner)
        frozen.record(repo.inner, left)


@contextlib.contextmanager
def _origin(real: bytes) -> Iterator[Origin]:
    origin = frozen.origin_of(real)
    try:
        yield origin
    finally:
        origin.close()


@contextlib.contextmanager
def _made(
    repo: Repository, origin: Origin, folder: int, left: Left, earlier: list[Left]
) -> Iterator[Freeze]:
    """Make a snapshot that is on record, and open the source in it."""
    since = time.time_ns()
    root = frozen.snapshot(origin, folder, left.name)
    until = time.time_ns()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, root)
        try:
            uuid = subvolume.info(root).uuid
            cursor = stack.enter_context(contextlib.closing(tree.Cursor(root)))
            fd = cursor.open(origin.below)
        except OSError as error:
            raise SourceError(f"the source is not in its snapshot: {error.strerror}") from error
        _record(repo, [*earlier, Left(left.name, left.origin, uuid)])
        yield Freeze(fd, os.fstat(origin.fd).st_dev, since, until)


def _remove(
    repo: Repository, origin: Origin, folder: int, events: Events, *, only: bytes | None = None
) -> None:
    """Remove what is on record of a subvolume, or only the snapshot of one name; `folder` is
    -1 where there is none."""
    stay = []
    for left in frozen.recorded(repo.inner):
        if only is not None and left.name != only:
            stay.append(left)
            continue
        try:
            if folder < 0:
                done = left.origin == origin.uuid
            else:
                done = frozen.remove(origin, folder, left)
            reason = "it is another subvolume's"
        except OSError as error:
            done, reason = False, (error.strerror or str(error)).lower()
        if not done:
            stay.append(left)
            events.warning(f"a snapshot of the source stays ({left.name.decode()}): {reason}")
    _record(repo, stay)
