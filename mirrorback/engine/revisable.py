"""Large files that have changed: which of them are stored as what differs."""

from __future__ import annotations

from collections.abc import Callable, Set

from mirrorback.errors import UsageError
from mirrorback.model import Digest, Kind
from mirrorback.plan import large
from mirrorback.plan.large import Form
from mirrorback.store import past, schema
from mirrorback.store.catalog import Catalog
from mirrorback.store.difference import Action, Difference
from mirrorback.store.spool import Spool


class LargeFiles:
    """The settings on large files of one repository.  `has_reflinks` asks the drive, once and
    only where it matters."""

    def __init__(self, setting: str, min_size: int, has_reflinks: Callable[[], bool]) -> None:
        self._setting = setting
        self._has_reflinks = has_reflinks
        self._form: Form | None = Form.WHOLE if setting == "whole" else None
        self.min_size = min_size

    @property
    def signed(self) -> bool:
        """Whether large files are to have signatures, for their next change."""
        return self._setting != "whole"

    def require(self) -> None:
        """Raises UsageError where the drive cannot do what was asked for."""
        if large.form(self._setting, reflinks=self._has_reflinks()) is None:
            raise UsageError("the drive has no reflinks: use --large-files auto or delta")

    @property
    def form(self) -> Form:
        """The form of changed large files; on a drive that cannot do what another could, as
        with `auto`."""
        if self._form is None:
            reflinks = self._has_reflinks()
            found = large.form(self._setting, reflinks=reflinks)
            self._form = found or large.form("auto", reflinks=reflinks)
        assert self._form is not None
        return self._form

    def is_large(self, difference: Difference) -> bool:
        """Whether a file is to be treated as one."""
        if not self.signed or difference.kind != Kind.FILE:
            return False
        return self.min_size <= difference.size <= large.MOST


def choose(
    catalog: Catalog,
    spool: Spool,
    files: LargeFiles,
    digest: Callable[[int], Digest | None],
    suspects: Set[int] = frozenset(),
) -> None:
    """Give those differences of a resolved spool that can be stored so the action REVISE.
    `digest` finds that of an object, if it has to by reading it.  None of `suspects`, objects
    that are damaged, is revised."""
    if not files.signed:
        return
    where = (
        f"kind = 1 AND action IN ({Action.COPY}, {Action.CLONE}) AND nlink = 1 AND leader IS NULL"
        " AND size BETWEEN ? AND ? AND (entry IS NOT NULL OR moved IS NOT NULL)"
    )
    found = list(spool.changes(where, (files.min_size, large.MOST)))
    chosen = []
    for difference in found:
        if difference.action == Action.CLONE and files.form is Form.REFLINK:
            continue  # a clone shares all of it
        before = _object_before(spool, difference)
        if before is None or before in suspects or not _can_go_on(catalog, before, files):
            continue
        if digest(before) is not None:
            chosen.append(difference._replace(action=Action.REVISE, use=before))
    if chosen:
        spool.replace(chosen)


def _object_before(spool: Spool, difference: Difference) -> int | None:
    """The object of the mirror that a file is a new version of."""
    if difference.moved is not None:
        rows = spool.fetch(
            "SELECT object FROM spool.gone WHERE entry = ? AND kind = 1", (difference.moved,)
        )
        return rows[0][0] if rows else None
    if difference.old_kind != Kind.FILE:
        return None
    elsewhere = "SELECT 1 FROM spool.gone WHERE entry = ? AND moved_to IS NOT NULL"
    return None if spool.fetch(elsewhere, (difference.entry,)) else difference.object


def _can_go_on(catalog: Catalog, number: int, files: LargeFiles) -> bool:
    """Whether an object is large and in one piece, shown once in the mirror, and may become
    what the form asks for."""
    with catalog.lock:
        size, drive = catalog.db.execute(
            "SELECT size, drive FROM object WHERE id = ?", (number,)
        ).fetchone()
        shown = past.showing(catalog, number)
    if not files.min_size <= size <= large.MOST or drive != schema.WHOLE:
        return False
    if sum(row.last is None for row in shown) != 1:
        return False
    return files.form is Form.REFLINK or _can_be_delta(catalog, number, shown)


def _can_be_delta(catalog: Catalog, number: int, shown: list[past.PastRow]) -> bool:
    with catalog.lock:
        if past.longest_chain(catalog, number) >= large.LONGEST_CHAIN:
            return False
        for row in shown:
            name = large.delta_name(row.name)
            if name is None or past.overlaps(catalog, row, name):
                return False
    return True
