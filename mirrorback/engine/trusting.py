"""Whether a restore may go by the catalog: what is missing there is not restored, and with
`--delete` it goes from the target, too."""

from __future__ import annotations

from mirrorback.engine.events import Events
from mirrorback.errors import Damaged
from mirrorback.store import audit
from mirrorback.store.catalog import Catalog
from mirrorback.store.sealing import Seal


def trust(catalog: Catalog, events: Events, *, delete: bool) -> None:
    """Look at the catalog as far as what it may do harm to is worth: at its seal, and where it
    has none, after a run that was killed, at all of it before anything is deleted.  One that is
    damaged is told.  Raises Damaged where something is to be deleted, and the catalog's errors."""
    if delete and audit.is_damaged(catalog):
        raise Damaged(
            "the catalog is damaged, and what it does not name would be deleted: restore without"
            " --delete, or let `mirrorback rebuild` make a new one first"
        )
    if not delete and catalog.seal_or_absent() is Seal.BROKEN:
        events.warning(
            "the catalog is damaged: what is restored may not be all, and not under its own names;"
            " `mirrorback rebuild` makes a new one"
        )
