"""The directories of a new snapshot: making them, and what metadata each shall have."""

from __future__ import annotations

import os
from dataclasses import dataclass

from mirrorback.engine.bench import Bench
from mirrorback.engine.recording import Recorder
from mirrorback.errors import Trouble
from mirrorback.model import Kind, Metadata
from mirrorback.store import live, reading, tree
from mirrorback.store.catalog import Catalog
from mirrorback.store.difference import Difference
from mirrorback.store.node import Dress
from mirrorback.store.spool import Spool


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory to fill: made already, still without its own metadata."""

    path: bytes
    id: int
    known: bool  # the mirror has a directory here
    dress: Dress


class Folders:
    """Makes directories in `incoming/`, and spools what is new of them."""

    def __init__(self, catalog: Catalog, spool: Spool, recorder: Recorder) -> None:
        self._catalog = catalog
        self._spool = spool
        self._recorder = recorder

    def known(self, folder: Folder, names: list[bytes]) -> list[Folder]:
        """Directories in a folder that were there before and have not changed; they are
        still to be made."""
        if not names:
            return []
        known = live.dresses(self._catalog, folder.id)
        return [
            Folder(tree.join(folder.path, name), known[name][0], True, known[name][1])
            for name in names
        ]

    def make(
        self, folder: Folder, bench: Bench, into: int, differences: list[Difference]
    ) -> list[Folder]:
        """Make the directories in a folder that are new or have changed.  Raises OSError."""
        known = live.children(self._catalog, folder.id)
        made = []
        for difference in differences:
            name = difference.name
            os.mkdir(name, 0o700, dir_fd=into)
            number = known[name][0] if name in known else self._spool.directory_id(folder.id, name)
            dress = Dress.of(self.changed(bench, folder.path, difference))
            was_there = difference.old_kind == Kind.DIRECTORY
            made.append(Folder(tree.join(folder.path, name), number, was_there, dress))
        return made

    def changed(self, bench: Bench, parent: bytes, difference: Difference) -> Metadata:
        """Spool a directory's own change; the metadata it shall have.  `parent` is the path
        of the directory that holds it."""
        metadata = difference.metadata
        if not difference.inspected:
            metadata = _inspect(bench, parent, difference)
        if difference.same_metadata:
            assert difference.object is not None
            self._recorder.refresh(difference.object, difference)
            return metadata
        goes_on = difference.entry is not None and difference.old_kind == Kind.DIRECTORY
        if goes_on and difference.same_metadata is None:
            # It could not be read: what was known of it stays.
            assert difference.entry is not None and difference.object is not None
            self._spool.add("stale", difference.entry, 1)
            return live.object_row(self._catalog, difference.object)[0]
        number = self._spool.new_id("object")
        source = (difference.ino, difference.ctime, difference.nlink)
        self._spool.object(number, metadata, None, source)
        self._recorder.record(difference, number)
        return metadata


def _inspect(bench: Bench, parent: bytes, difference: Difference) -> Metadata:
    """Attributes of a new directory, as it is now; times as the survey saw them."""
    try:
        with reading.troubles:
            fd = bench.source.open(parent)
        seen = reading.look(fd, difference.name, Kind.DIRECTORY.format_bits)
    except Trouble:
        return difference.metadata
    return difference.seen(seen.metadata).metadata
