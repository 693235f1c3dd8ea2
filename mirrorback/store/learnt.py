"""What is learnt of objects after a catalog was made anew: their digests, and what the drive
could not tell of the source.

The folders do not say what inode a version was in the source, nor, without reading all, what
its digest is.  Such an object is *unseen* until a backup has met it in the source.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from mirrorback.model import Digest, Metadata
from mirrorback.store import encoding, live, schema
from mirrorback.store.catalog import Catalog
from mirrorback.store.spool import Spool

UNSEEN_INO = 0
UNSEEN_CTIME = -2
UNSEEN = (UNSEEN_INO, UNSEEN_CTIME, 1)  # the source's ino, ctime and nlink where nobody knows them


def columns(spool: Spool, metadata: Metadata) -> tuple[object, ...]:
    """What may be learnt of metadata, in the order of `spooled`."""
    return (
        metadata.mode,
        spool.owner(metadata.owner),
        encoding.pack_time(metadata.mtime),
        spool.attributes(metadata.xattrs),
        metadata.flags,
    )


def spooled(spool: Spool, number: int) -> tuple[object, ...] | None:
    """What has been learnt of an object's metadata, if anything has."""
    rows = spool.fetch(
        "SELECT mode, owner, mtime, attributes, flags FROM spool.learnt WHERE object = ? AND met",
        (number,),
    )
    return rows[0] if rows else None


def spool_learnt(
    spool: Spool, number: int, metadata: Metadata, digest: Digest | None, *, met: bool = False
) -> None:
    """Have an object's row say this from now on, with the backup's other results; `met` says
    that the metadata are the source's."""
    spool.add(
        "learnt",
        number,
        *columns(spool, metadata),
        metadata.btime,
        digest.value if digest else None,
        int(digest.sparse) if digest else 0,
        int(met),
    )


def object_row(catalog: Catalog, spool: Spool, number: int) -> tuple[Metadata, Digest | None]:
    """What is kept of one object, with the digest that this backup has learnt."""
    metadata, digest = live.object_row(catalog, number)
    if digest is None:
        rows = spool.fetch("SELECT digest, sparse FROM spool.learnt WHERE object = ?", (number,))
        if rows:
            digest = live.digest_of(*rows[0])
    return metadata, digest


def take_digests(db: sqlite3.Connection, digests: Mapping[int, bytes]) -> None:
    """Note, inside of a transaction, the digests of whole files of which none was known, in the
    form that each is to have."""
    check = schema.check_after(schema.OBJECT, digest="?1")
    db.executemany(
        f"UPDATE object SET digest = ?1, digest_of_row = {check}"
        f" WHERE id = ?2 AND digest IS NULL AND kind = 1 AND drive = {schema.WHOLE}",
        ((digest, number) for number, digest in digests.items()),
    )
