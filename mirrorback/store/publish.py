"""The order of durable steps, and how a run that was cut short is completed or forgotten.

A new snapshot comes to exist in this order, and in no other:

1. sync      all bytes, names and links of `incoming/`, and `mirror.toml.new`
2. commit    the catalog's transaction: from here on the snapshot exists
3. exchange  `current` and `incoming`, in one rename
4. rename    what was the mirror, now `incoming`, to its dated name
5. give      reverse deltas to the dated folders, in the place of large files  (`supersede`)
6. sync      if there are any: only then are these files the mirror's alone
7. patch     the mirror's large files with their changes
8. sync      the renames, the folders' times and `mirror.toml`, what was patched
9. note      in the catalog that nothing is left to do

Cut before 2, the snapshot never was; what was copied is kept for the next run
(`trash/incoming-*`).  Cut after 2, `complete` repeats 3 to 9: which of 3 and 4 were
done is seen from the inode numbers of the two folders, which the commit holds; 5 and
7 can be done again, from what lies in `redo/` until 9.

A snapshot is removed likewise: sync what is to take the place of deltas that depend
on it, commit that it is going, give these, sync, move its folder to `trash/`, empty
that, commit that it is gone.  That it is going is committed while nobody reads it
(`in_use`).  What in it was not ours is told of before the last commit: cut in between, it
is told twice, not never.

What is damaged is mended in this order (`mend_objects`): write the right files to `redo/`, each
with the list of the inodes that it is to take the place of; give each of these a name in
`damaged/`; sync; commit that the files are to be given; give them, in the mirror too, and
make the folders that are missing (dressed in `trash/`, then renamed); sync; note that it is
done.  Cut before the commit, nothing has changed; after it, `finish_mending` goes on.  That
an object is sound again is noted last, by who has read it back.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mirrorback.errors import Damaged
from mirrorback.store import (
    clearing,
    durable,
    encoding,
    in_use,
    mend,
    node,
    placed,
    probe,
    record,
    remove,
    schema,
    sealing,
    settings,
    spool,
    supersede,
    system,
    tree,
)
from mirrorback.store.catalog import ABOVE_ROOT, DELETING, PENDING, ROOT_DIR, Catalog
from mirrorback.store.record import NewSnapshot, Replaced
from mirrorback.store.replaced import discard as discard_new_catalog
from mirrorback.store.repository import (
    CURRENT,
    INCOMING,
    INNER,
    MIRROR,
    README,
    SALVAGE,
    SPOOL,
    TRASH,
    Repository,
    former,
    give_up_reserve,
)

if TYPE_CHECKING:
    from mirrorback.store.clearing_helper import Helpers

Progress = Callable[[int], None]
Tell = Callable[[str, placed.Sparing], None]  # a snapshot's name, and what was spared of its folder
NAME_LENGTH = len("2026-11-22-020000")


def publish(repo: Repository, catalog: Catalog, spooled: spool.Spool, new: NewSnapshot) -> None:
    """Make what stands in `incoming/` the mirror, and the mirror a dated folder.
    Raises OSError and the catalog's errors."""
    text = (
        f"snapshot = {settings.quoted(new.name)}\ntime = {new.time}\noffset = {new.offset}\n"
        f"root = {new.root}\n"
    )
    # Not synced by itself: a journalling drive would sync all of `incoming` with it.
    durable.write_new(repo.inner, MIRROR, settings.seal(text))
    mirror = repo.root_number(repo.fd, CURRENT)
    with durable.syncing(repo.fd) as synced:
        # The transaction is written meanwhile; its commit waits for the sync.
        record.snapshot(catalog, spooled, new, mirror, before_commit=synced)
    complete(repo, catalog)
    supersede.clear_redo(repo, catalog)
    supersede.clear_signatures(repo, catalog)


def complete(repo: Repository, catalog: Catalog) -> None:
    """Do what is left to do after a commit; nothing where nothing is."""
    for number, _name, root in catalog.in_state(PENDING):
        older = catalog.db.execute(
            "SELECT id, name, root FROM snapshot WHERE id < ? AND state != ?"
            " ORDER BY id DESC LIMIT 1",
            (number, DELETING),
        ).fetchone()
        _exchange(repo, root, older)
        if older is not None:
            name = _name_former_mirror(repo, catalog, older)
            _restore_time(repo, catalog, older[0], os.fsencode(name))
        _restore_time(repo, catalog, number, CURRENT)
        with contextlib.suppress(FileNotFoundError):
            os.rename(MIRROR + b".new", MIRROR, src_dir_fd=repo.inner, dst_dir_fd=repo.inner)
        _supersede(repo, catalog)
        system.sync_filesystem(repo.fd)
        record.published(catalog, number)


def _supersede(repo: Repository, catalog: Catalog) -> None:
    """Let deltas take the place of large files, and these their changes."""
    waiting = [what for what in supersede.pending(catalog) if what.removal is None]
    _give(repo, catalog, waiting)
    for what in waiting:
        with contextlib.suppress(FileNotFoundError):  # someone has taken it out of the mirror
            supersede.patch(repo, catalog, what)


def _give(repo: Repository, catalog: Catalog, waiting: Sequence[supersede.Replacing]) -> None:
    for what in waiting:
        supersede.give(repo, catalog, what)
    if waiting:
        system.sync_filesystem(repo.fd)


def _exchange(repo: Repository, root: int, older: tuple[int, str, int] | None) -> None:
    current = repo.root_number(repo.fd, CURRENT)
    if current == root:
        return
    if repo.root_number(repo.inner, INCOMING) != root:
        raise Damaged(
            "the newest snapshot was recorded but its folder is neither `current` nor"
            " `.mirrorback/incoming`; `mirrorback rebuild` makes the catalog anew from the folders"
        )
    if current is None:
        system.rename_new(repo.inner, INCOMING, repo.fd, CURRENT)
    elif not system.exchange(repo.fd, CURRENT, repo.inner, INCOMING):
        # The drive cannot exchange: for a moment there is no mirror.
        os.rename(CURRENT, _waiting(older), src_dir_fd=repo.fd, dst_dir_fd=repo.inner)
        system.rename_new(repo.inner, INCOMING, repo.fd, CURRENT)


def _waiting(older: tuple[int, str, int] | None) -> bytes:
    return former(older[2] if older else 0)


def _name_former_mirror(repo: Repository, catalog: Catalog, older: tuple[int, str, int]) -> str:
    """Give what was the mirror its dated name, if it has none yet; the name."""
    number, name, root = older
    for held in (INCOMING, _waiting(older)):
        if repo.root_number(repo.inner, held) == root:
            break
    else:
        return name
    others = {row[0] for row in catalog.db.execute("SELECT name FROM snapshot")} - {name}
    base = name[:NAME_LENGTH]
    names = [name, *(base if n == 1 else f"{base}-{n}" for n in range(1, 1000))]
    for free in names:
        if free in others or repo.root_number(repo.fd, os.fsencode(free)) is not None:
            continue  # someone made a folder of this name
        if free != name:
            with catalog.transaction() as db:
                db.execute("UPDATE snapshot SET name = ? WHERE id = ?", (free, number))
        system.rename_new(repo.inner, held, repo.fd, os.fsencode(free))
        return free
    raise Damaged(f"there are folders of the name {name} already; move them away")


def _restore_time(repo: Repository, catalog: Catalog, snapshot: int, name: bytes) -> None:
    """Exchanging folders changes their mtime on some file systems."""
    row = catalog.db.execute(
        "SELECT o.mtime FROM entry e JOIN object o ON o.id = e.object WHERE e.dir = ?"
        " AND e.first <= ? AND (e.last IS NULL OR e.last >= ?)",
        (ABOVE_ROOT, snapshot, snapshot),
    ).fetchone()
    if row is not None:
        with contextlib.suppress(FileNotFoundError):
            node.set_times(name, encoding.unpack_time(row[0]), repo.fd)


def recover(
    repo: Repository, catalog: Catalog, tell: Tell, progress: Progress = lambda count: None
) -> None:
    """Bring a repository whose last run was cut short back into order; of the folders of
    snapshots that go so, `tell` is called.  Called with the lock held, before anything else.
    Takes time in proportion to what was in flight."""
    spool.discard(repo.inner_path(SPOOL))
    complete(repo, catalog)
    finish_mending(repo, catalog)
    for number, name, _root in catalog.in_state(DELETING):
        finish_removal(repo, catalog, number, name, tell, progress, again=True)
    # First: where there is no `incoming`, what lies in `redo` has been committed.
    supersede.clear_redo(repo, catalog)
    if repo.root_number(repo.inner, INCOMING) is not None:
        forget(repo)
        supersede.clear_signatures(repo, catalog)
    empty_trash(repo, salvage=False, progress=progress)
    probe.clean(repo.inner)
    for folder, unfinished in (
        (repo.inner, MIRROR),
        (repo.inner, b"repository.toml"),
        (repo.inner, sealing.NAME),
        (repo.fd, README),
    ):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished + b".new", dir_fd=folder)
    discard_new_catalog(repo.inner)


def waits_for_room(repo: Repository, catalog: Catalog) -> bool:
    """Whether a publication has come so far that only large files of the mirror wait for their
    changes: then the snapshots that are not the mirror are complete."""
    return any(
        repo.root_number(repo.fd, CURRENT) == root
        and repo.root_number(repo.inner, INCOMING) is None
        and bool(supersede.pending(catalog))
        for _number, _name, root in catalog.in_state(PENDING)
    )


def forget(repo: Repository) -> None:
    """Remove the snapshot that was being built.  Raises OSError."""
    trash = repo.open_inner(TRASH)
    try:
        os.rename(INCOMING, _next_salvage(repo), src_dir_fd=repo.inner, dst_dir_fd=trash)
    finally:
        os.close(trash)


def _next_salvage(repo: Repository) -> bytes:
    newest = repo.salvage()[:1]
    number = int(newest[0][len(SALVAGE) :]) if newest else 0
    return SALVAGE + b"%06d" % (number + 1)


def remove_snapshot(
    repo: Repository,
    catalog: Catalog,
    number: int,
    name: str,
    replaced: Sequence[Replaced],
    tell: Tell,
    progress: Progress,
    helpers: Helpers | None = None,
) -> None:
    """Remove one dated folder and its snapshot; the space is free when it returns.  What it
    takes away from others lies in `redo/`, to take the place of `replaced`.  `helpers` work in
    the trash.  `tell` is told what in the folder was not ours.  Raises InUse where it is being
    read: it stays."""
    if replaced:
        system.sync_filesystem(repo.fd)
    try:
        with in_use.alone(repo, name):
            record.deleting(catalog, number, replaced)
    except in_use.InUse:
        supersede.clear_redo(repo, catalog)
        raise
    finish_removal(repo, catalog, number, name, tell, progress, helpers)
    if replaced:
        supersede.clear_redo(repo, catalog)


def finish_removal(
    repo: Repository,
    catalog: Catalog,
    number: int,
    name: str,
    tell: Tell,
    progress: Progress,
    helpers: Helpers | None = None,
    *,
    again: bool = False,
) -> None:
    """The rest of a removal that has been committed, `again` after an attempt that was cut.
    `tell` is told what in the folder was not ours.  Raises Refused where something has been
    mounted there since."""
    replaced = [what for what in supersede.pending(catalog) if what.removal == number]
    _give(repo, catalog, replaced)
    sparing = placed.Sparing(repo, catalog, number, name, again=again)
    folder = os.fsencode(name)
    trash = repo.open_inner(TRASH)
    try:

        def empty() -> None:
            placed.require_unmounted(repo, tree.join(tree.join(INNER, TRASH), folder))
            crew = None if helpers is None else helpers.on(folder)
            with catalog.held():
                clearing.clear(trash, folder, catalog, number, crew=crew, progress=progress)
                remove.remove_tree(trash, folder, progress=progress, sparing=(sparing, ROOT_DIR))

        empty()  # an earlier attempt may have come so far, and someone made such a folder since
        if placed.at(repo, catalog, number, name) is placed.Place.OURS:
            placed.require_unmounted(repo, folder)
            os.rename(folder, folder, src_dir_fd=repo.fd, dst_dir_fd=trash)
            os.fsync(repo.fd)
            empty()
    finally:
        os.close(trash)
    if sparing.count:
        system.sync_filesystem(repo.fd)
    tell(name, sparing)
    record.deleted(catalog, number)


def mend_objects(repo: Repository, catalog: Catalog, mends: Mapping[int, Replaced | None]) -> None:
    """Let objects have the files that lie ready for them in `redo/`: all their names that show
    something damaged, or nothing.  With those that are held otherwise than before, how.
    Raises OSError, Damaged, and the catalog's errors."""
    system.sync_filesystem(repo.fd)
    record.mending(catalog, mends)
    finish_mending(repo, catalog)
    supersede.clear_redo(repo, catalog)


def finish_mending(repo: Repository, catalog: Catalog) -> None:
    """The rest of mends that have been committed; nothing where there is none."""
    waiting = [what for what in supersede.pending(catalog) if what.removal == schema.MENDING]
    if waiting:
        try:
            split = [what.object for what in waiting if mend.give(repo, catalog, what)]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # It takes no more than a few names: that is what the reserve is for.
            give_up_reserve(repo.inner)
            split = [what.object for what in waiting if mend.give(repo, catalog, what)]
        system.sync_filesystem(repo.fd)
        record.mended(catalog, [what.object for what in waiting], split)


def empty_trash(
    repo: Repository, *, salvage: bool, progress: Progress = lambda count: None
) -> None:
    """Remove what lies in the trash, with or without what could still be used."""
    trash = repo.open_inner(TRASH)
    try:
        for name in map(os.fsencode, os.listdir(trash)):
            if salvage or not name.startswith(SALVAGE):
                remove.remove_tree(trash, name, progress=progress)
    finally:
        os.close(trash)


def salvage_size(repo: Repository) -> int:
    """Bytes that what interrupted runs have copied takes on the drive."""
    total = 0
    for name in repo.salvage():
        top = repo.open_salvaged(name)
        cursor = tree.Cursor(top)
        try:
            for _path, fd in tree.walk(cursor):
                with os.scandir(fd) as entries:
                    for entry in entries:
                        st = entry.stat(follow_symlinks=False)
                        if st.st_nlink == 1:
                            total += st.st_blocks * 512
        finally:
            cursor.close()
            os.close(top)
    return total
