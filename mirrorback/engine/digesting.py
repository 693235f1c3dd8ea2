"""Digests of the files that a rebuilt catalog knows by their inodes only."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor

from mirrorback.engine.events import Events, Phase
from mirrorback.model import Digest
from mirrorback.store import content, schema, tree
from mirrorback.store.anew import NewCatalog
from mirrorback.store.gathering import ShownFiles

AT_ONCE = 64  # files that are open
_WANTED = f"kind = 1 AND digest IS NULL AND drive = {schema.WHOLE}"


def take_all(new: NewCatalog, files: ShownFiles, events: Events, *, threads: int) -> int:
    """Read every file of a finished catalog whose digest is not known, and record that; how
    many could not be read, which are told."""
    count, size = new.db.execute(
        f"SELECT count(*), {schema.added('size')} FROM object WHERE {_WANTED}"
    ).fetchone()
    events.phase(Phase.VERIFY, count, size)
    failed = last = 0
    with ThreadPoolExecutor(threads) as crew:
        while True:
            rows = new.db.execute(
                f"SELECT id, sparse FROM object WHERE id > ? AND {_WANTED} ORDER BY id LIMIT ?",
                (last, AT_ONCE),
            ).fetchall()
            if not rows:
                return failed
            last = rows[-1][0]
            opened = []
            for number, sparse in rows:
                snapshot, directory, name = new.db.execute(
                    "SELECT first, dir, name FROM entry WHERE object = ? ORDER BY id LIMIT 1",
                    (number,),
                ).fetchone()
                try:
                    opened.append((number, files.open(snapshot, directory, name), bool(sparse)))
                except OSError as error:
                    events.error(_reason(error), tree.join(files.path(directory), name))
                    failed += 1
            found = list(crew.map(lambda one: _read(one[1], one[2], events), opened))
            new.db.execute("BEGIN")
            for (number, _fd, _sparse), digest in zip(opened, found, strict=True):
                if isinstance(digest, Digest):
                    new.learn(number, digest)
                else:
                    directory, name = new.db.execute(
                        "SELECT dir, name FROM entry WHERE object = ? ORDER BY id LIMIT 1",
                        (number,),
                    ).fetchone()
                    events.error(_reason(digest), tree.join(files.path(directory), name))
                    failed += 1
            new.db.execute("COMMIT")


def _read(fd: int, sparse: bool, events: Events) -> Digest | OSError:
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, fd)
        try:
            digest = content.digest_of(
                fd, os.fstat(fd), sparse, lambda count: events.advance(0, count)
            )
        except OSError as error:
            return error
    events.advance(1)
    return digest


def _reason(error: OSError) -> str:
    return f"cannot be read: {(error.strerror or str(error)).lower()}"
