"""What a restore is to do, and what it has done, counted and told as it goes on."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mirrorback.engine.events import Events
from mirrorback.errors import Damaged, Trouble
from mirrorback.plan.restoring import Overwrite
from mirrorback.store import presence


@dataclass(frozen=True)
class RestoreOptions:
    """How and whereto; exactly one of `to` and `in_place` is given."""

    to: str | None = None
    in_place: bool = False
    overwrite: Overwrite = Overwrite.IF_CHANGED
    delete: bool = False
    dry_run: bool = False
    owner: bool = True
    keep: bool = True


@dataclass
class RestoreResult:
    """What came of it.  `actions` are ("create" | "replace" | "delete", path)."""

    snapshot: str
    restored: int = 0
    unchanged: int = 0
    skipped: int = 0
    deleted: int = 0
    kept_aside: int = 0
    bytes_written: int = 0
    errors: int = 0
    not_kept: dict[str, int] = field(default_factory=dict)
    actions: list[tuple[str, bytes]] = field(default_factory=list)


class Report:
    """The result of one restore in the making.  For several threads."""

    def __init__(
        self, snapshot: str, events: Events, require_drive: Callable[[], None], *, dry_run: bool
    ) -> None:
        """`require_drive` raises DriveError where the drive is gone."""
        self.result = RestoreResult(snapshot)
        self.damage: list[bytes] = []
        self._events = events
        self._require_drive = require_drive
        self._dry_run = dry_run
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def telling(self, path: bytes) -> Iterator[None]:
        """Go on with the next entry where one cannot be written or is damaged."""
        try:
            yield
        except Damaged:
            self._require_drive()
            with self._lock:
                self.damage.append(path)
            self._events.error("is damaged on the drive; not restored", path)
        except Trouble as trouble:
            self.error(trouble.reason, path)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            if presence.may_be_gone(error):
                self._require_drive()
            self.error((error.strerror or str(error)).lower(), path)

    def error(self, reason: str, path: bytes) -> None:
        """Tell and count an entry that could not be restored."""
        with self._lock:
            self.result.errors += 1
        self._events.error(reason, path)

    def act(self, action: str, path: bytes) -> None:
        """Note what a dry run would do."""
        if self._dry_run:
            with self._lock:
                self.result.actions.append((action, path))

    def count(self, what: str) -> None:
        """Count one entry under a name of the result's fields."""
        with self._lock:
            setattr(self.result, what, getattr(self.result, what) + 1)
