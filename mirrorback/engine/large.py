"""Making large files in the new snapshot: whole with a signature, or as a revision."""

from __future__ import annotations

import contextlib
import os

from mirrorback.engine.recording import Placed, Recorder
from mirrorback.engine.revisable import LargeFiles
from mirrorback.engine.revision import Impossible, Kit, Revision, Spot, opened_before
from mirrorback.errors import DeltaTooLarge, Trouble
from mirrorback.plan.large import Form
from mirrorback.store import reading, tree
from mirrorback.store.copier import NEW_FILE, Work
from mirrorback.store.difference import Difference
from mirrorback.store.durable import scratch
from mirrorback.store.revise import Altered, TooMuch


class Large:
    """Makes large files.  For several threads."""

    def __init__(self, kit: Kit, recorder: Recorder, files: LargeFiles) -> None:
        self._kit = kit
        self._recorder = recorder
        self._files = files

    def wants(self, difference: Difference) -> bool:
        """Whether a file that is copied whole is to be copied here."""
        return self._files.is_large(difference)

    def copy(self, spot: Spot, lead: int | None = None) -> Placed:
        """Make a file that is wholly new; `lead` as for `Recorder.new`.  Raises Trouble,
        OSError."""
        if spot.bench.salvaging:
            work = Work(spot.folder, copies=[spot.difference.name])
            copied = spot.bench.filler.fill([work], self._kit.tally.copied)[0].copied[0]
            if isinstance(copied, Trouble):
                raise copied
            return self._recorder.take(spot.folder, spot.difference, copied, lead=lead)
        number = self._kit.spool.new_id("object")
        seen = self._copy(spot, number)
        return self._recorder.seen(spot.folder, spot.difference, seen, lead=lead, number=number)

    def revise(self, spot: Spot, origin: tuple[int, bytes]) -> Placed:
        """Make a new version of the object `use` of a difference, which stands in the mirror at
        `origin`, an open directory and a name.  Raises Trouble, OSError."""
        number = self._kit.spool.new_id("object")
        before = opened_before(self._kit, spot.difference, origin)
        if before is None:
            self._warn(spot)
            return self.copy(spot)
        try:
            revision = Revision(self._kit, spot, before, number)
            try:
                if self._files.form is Form.REFLINK:
                    seen = revision.clone()
                else:
                    seen = revision.change(origin)
            except (TooMuch, Impossible, DeltaTooLarge):
                seen = self._otherwise(revision, spot, number)
            except Altered:
                self._warn(spot)
                seen = self._copy(spot, number)
        finally:
            os.close(before.fd)
        return self._recorder.seen(spot.folder, spot.difference, seen, number=number)

    def _otherwise(self, revision: Revision, spot: Spot, number: int) -> reading.Seen:
        """A new file, with a look for what has moved within it."""
        if self._files.form is Form.REFLINK:
            with contextlib.suppress(Impossible):
                return revision.share()
        revision.require_room()
        seen = self._copy(spot, number)
        if self._files.form is Form.DELTA:
            revision.undo_by_content(seen)
        return seen

    def _copy(self, spot: Spot, number: int) -> reading.Seen:
        """Copy a file of the source, and sign it."""
        name = spot.difference.name
        with reading.troubles:
            origin = spot.bench.source.open(spot.folder)
        with scratch(self._kit.signatures, b"%d" % number) as sign:
            fd = os.open(name, NEW_FILE, 0o600, dir_fd=spot.into)
            try:
                seen = reading.copy_file(origin, name, fd, self._kit.tally.copied, sign=sign)
                self._kit.dress(fd, seen.metadata)
            finally:
                os.close(fd)
        return seen

    def _warn(self, spot: Spot) -> None:
        path = tree.join(spot.folder, spot.difference.name)
        self._kit.tally.warn(
            "was altered on the drive, where it stays so; taken from the source anew", path
        )
