"""The run: configured backups as at night, one after another, whatever becomes of each."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from mirrorback.engine.events import Events
from mirrorback.engine.night import diary, notifying
from mirrorback.engine.night.account import Account
from mirrorback.engine.night.awake import awake
from mirrorback.engine.night.configuration import Configured, opened
from mirrorback.engine.night.diary import Page
from mirrorback.engine.night.nightly import Night
from mirrorback.engine.night.outcome import NOT_DUE, Outcome, failed, skipped
from mirrorback.errors import Interrupted, Locked, NoRepository
from mirrorback.plan.durations import parse_duration as parse_duration
from mirrorback.plan.overdue import is_to_come
from mirrorback.store import lock, turn
from mirrorback.store.repository import Repository, drive_errors

BREATH_S = 1.0  # between two looks at a lock
# What the system says where a drive, or a server, is not there; all else is trouble.
AWAY = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOENT", "ENOTDIR", "ENODEV", "ENXIO", "ENOMEDIUM", "ENOTCONN", "ESTALE"),
        *("ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
    )
    if hasattr(errno, name)
)

Clock = Callable[[], datetime]


class _Skipped(Exception):
    """This backup is not to be made now; why, in words."""


class Run:
    """Runs configured backups.

    The clock is passed in, the diary lies in the folder `where`, if there is one.  `if_present`:
    what has no drive is skipped; `if_due`: so is what has run since its schedule last came, or
    what another run is busy with.  `wait` is how long others on the same drive, or in the same
    repository, are waited for; then one on the drive is no hindrance, one in the repository is.
    """

    def __init__(
        self,
        clock: Clock,
        where: str | None,
        *,
        if_present: bool = False,
        if_due: bool = False,
        wait: timedelta = timedelta(),
    ) -> None:
        self._clock = clock
        self._where = where
        self._if_present = if_present
        self._if_due = if_due
        self._wait_s = wait.total_seconds()

    def one(self, backup: Configured, events: Events) -> Outcome:
        """Run one.  Its failure is an outcome; only what interrupts the program is raised."""
        account = Account(backup.name, backup.repository_id, self._where, self._clock, events)
        night = Night(backup, self._clock, account)
        with contextlib.ExitStack() as stack:
            outcome = self._run(backup, night, account, stack)
            if outcome.result == "failed":
                night.tell_failure(outcome)
            before = account.page
            if outcome.result != "skipped":
                account.end(outcome)
        notifying.notify(backup, outcome, before, account, self._clock())
        if night.interrupted is not None:
            raise night.interrupted
        return outcome

    def _run(
        self, backup: Configured, night: Night, account: Account, stack: contextlib.ExitStack
    ) -> Outcome:
        """What comes of one; what was opened for it is closed by `stack`."""
        begun = False
        try:
            self._require_due(backup, account)
            repo = stack.enter_context(contextlib.closing(self._opened(backup)))
            stack.enter_context(self._turn(repo, account))
            self._require_due(backup, account)  # another run may have been waited for
            stack.enter_context(awake())
            account.begin(backup.source, repo)
            begun = True
            return night.run(repo)
        except _Skipped as why:
            return skipped(backup.name, str(why))
        except Exception as error:
            if isinstance(error, Interrupted):
                night.interrupted = error
            if not begun:
                account.begin(backup.source, None)
            return failed(backup.name, error)

    def _require_due(self, backup: Configured, account: Account) -> None:
        if self._if_due and not is_due(backup, account.page, self._clock()):
            raise _Skipped(NOT_DUE)

    def _opened(self, backup: Configured) -> Repository:
        try:
            return opened(backup)
        except NoRepository as error:
            if self._if_present and _is_away(error):
                raise _Skipped("the drive is not there") from error
            raise

    @contextlib.contextmanager
    def _turn(self, repo: Repository, account: Account) -> Iterator[None]:
        """Wait until no other run works on this drive, nor holds this repository; then it is
        our turn.  Raises Locked where that holds the repository for too long."""
        until = time.monotonic() + self._wait_s
        fd = self._drive(repo)
        if fd is None and self._if_due and not self._wait_s:
            raise _Skipped("another run works on this drive")
        if fd is None and self._wait_s:
            # Nothing to be told of: with two timers at one time it is so every night.
            account.note("another run works on this drive, and is waited for")
        while fd is None and time.monotonic() < until:
            time.sleep(BREATH_S)
            fd = self._drive(repo)
        try:
            self._until_free(repo, account, until)
            yield
        finally:
            if fd is not None:
                os.close(fd)

    def _drive(self, repo: Repository) -> int | None:
        """A lock on the drive, among the runs of this person; None while another has it."""
        if self._where is not None:
            with contextlib.suppress(OSError), diary.opened(self._where, diary.TURNS) as folder:
                return turn.take(folder, b"%d" % repo.identity()[0])
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _until_free(self, repo: Repository, account: Account, until: float) -> None:
        """Look whether another run holds the repository, before anything of the person's runs."""
        told = False
        while True:
            try:
                with drive_errors():
                    lock.Lock.take(repo.inner).release()
                return
            except Locked as error:
                if time.monotonic() < until:
                    if not told:
                        account.warning(str(error))
                    told = True
                    time.sleep(BREATH_S)
                elif self._if_due and not self._wait_s:
                    raise _Skipped(str(error)) from error
                else:
                    raise


def _is_away(error: NoRepository) -> bool:
    """Whether the drive is not there, or nothing of ours is on it: not where it may not be
    read, or fails."""
    cause = error.__cause__
    return not isinstance(cause, OSError) or cause.errno in AWAY


def is_due(backup: Configured, page: Page, now: datetime) -> bool:
    """Whether a time of the schedule has passed since the last run."""
    last = diary.moment(page.last_run, now)
    if backup.schedule is None or last is None or is_to_come(last, now):
        return True
    coming = backup.schedule.after(last)
    return coming is not None and coming <= now
