"""The account of one run: its log, on the drive and on this machine, and its page in the diary.

Nothing of it stops a run: where it cannot be written, the run goes on without.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from mirrorback import __version__
from mirrorback.engine.events import Events
from mirrorback.engine.history import History
from mirrorback.engine.night import diary
from mirrorback.engine.night.diary import Page
from mirrorback.engine.night.outcome import Outcome, counted
from mirrorback.errors import MirrorbackError
from mirrorback.plan import guards
from mirrorback.store import logbook
from mirrorback.store.logbook import Log
from mirrorback.store.repository import Repository

LOGS = "log"  # the folder in the diary's that holds one for each backup
LOCAL_LIMIT = 256 << 10  # bytes of a log on this machine
TAIL = 40  # lines that are kept in memory

Clock = Callable[[], datetime]


class Account(Events):
    """Writes down what a run tells, and passes it on to a listener.

    `where` is the folder of the diary; None where there is none.  Pages are of backups of that
    name, `repository_id` the one that is configured, if any.
    """

    def __init__(
        self, name: str, repository_id: str | None, where: str | None, clock: Clock, events: Events
    ) -> None:
        self._name = name
        self._id = repository_id
        self._where = where
        self._clock = clock
        self._events = events
        self._repo: Repository | None = None
        self._logs: list[Log] = []
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.wants_changes = events.wants_changes
        self.phase = events.phase  # type: ignore[method-assign]
        self.advance = events.advance  # type: ignore[method-assign]
        self.change = events.change  # type: ignore[method-assign]

    @property
    def page(self) -> Page:
        """What was known before."""
        page = Page(self._name) if self._where is None else diary.read(self._where, self._name)
        return page.of(self._id)

    def begin(self, source: str, repo: Repository | None) -> None:
        """Begin a log here, and on the drive, which is there unless `repo` is None; it is to
        stay open until the end."""
        now = self._clock()
        self._repo = repo
        if repo is not None:
            self._id = repo.settings.id
            with contextlib.suppress(OSError):
                folder = repo.open_inner(logbook.LOG)
                try:
                    self._logs.append(Log.begin(folder, now))
                finally:
                    os.close(folder)
        if self._where is not None:
            with contextlib.suppress(OSError), diary.opened(self._where, LOGS, self._name) as here:
                self._logs.append(Log.begin(here, now, LOCAL_LIMIT))
        for log in self._logs:
            for text in self.tail:  # what was told before
                log.line(now, text)
        to = "" if repo is None else f" to {os.fsdecode(repo.path)}"
        self._line(f"mirrorback {__version__} backs up {source}{to}")

    # --- what is told on the way -------------------------------------------------------

    def warning(self, message: str, path: bytes | None = None) -> None:
        """Pass on and write down."""
        self.note(f"warning: {about(message, path)}")
        self._events.warning(message, path)

    def error(self, message: str, path: bytes | None = None) -> None:
        """Pass on and write down."""
        self.note(about(message, path))
        self._events.error(message, path)

    def note(self, text: str) -> None:
        """Write lines."""
        for line in text.splitlines():
            self._line(line)

    def _line(self, text: str, *, last: bool = False) -> None:
        shown = "".join(char if char.isprintable() else "?" for char in text)
        self.tail.append(shown)
        for log in self._logs:
            log.line(self._clock(), shown, last=last)

    # --- its end -----------------------------------------------------------------------

    def end(self, outcome: Outcome) -> None:
        """Write down what came of it, forget old logs, and write the page."""
        if outcome.summary is not None:
            self.note("\n".join(counted(outcome.summary)))
        self._line(f"{outcome.result}: {outcome.message}", last=True)
        for log in self._logs:
            log.end()
        today = self._clock().date()
        with contextlib.suppress(OSError):
            if self._repo is not None:
                folder = self._repo.open_inner(logbook.LOG)
                try:
                    logbook.forget_old(folder, today)
                finally:
                    os.close(folder)
        if self._where is None:
            return
        with contextlib.suppress(OSError), diary.opened(self._where, LOGS, self._name) as here:
            logbook.forget_old(here, today)
        self.update(lambda page: self._after(page, outcome))

    def update(self, change: Callable[[Page], Page]) -> None:
        """Write something else into the page."""
        if self._where is None:
            return
        try:
            diary.update(self._where, self._name, lambda page: change(page.of(self._id)))
        except OSError as error:
            self._events.warning(
                f"what came of it cannot be remembered in {self._where}: {error.strerror or error};"
                " `mirrorback status` knows of it only while the drive is there"
            )
            self._where = None  # told once

    def _after(self, page: Page, outcome: Outcome) -> Page:
        now = self._clock().isoformat()
        page = replace(page, last_result=outcome.result, message=outcome.message)
        if not outcome.interrupted:  # else it is due still
            page = replace(page, last_run=now)
        summary = outcome.summary
        if summary is None:
            return page
        if summary.unchanged:
            page = replace(page, last_check=now)
        else:
            page = replace(page, last_success=now)
        return replace(page, pinned=self._pinned(page.pinned))

    def _pinned(self, before: tuple[str, ...]) -> tuple[str, ...]:
        """The snapshots that a mass change has pinned."""
        if self._repo is None:
            return before
        path = os.fsdecode(self._repo.path)
        with contextlib.suppress(MirrorbackError), History.open(path, self._clock()) as history:
            if history.repo.settings.id != self._id:
                return before  # another drive has come
            return tuple(s.name for s in history.snapshots() if guards.holds_thinning(s.pinned))
        return before


def about(message: str, path: bytes | None) -> str:
    """A message about a path, which need not be text, as one about something."""
    return message if path is None else f"{path.decode('utf-8', 'backslashreplace')}: {message}"
