"""The run: what happens to one configured backup at night, from the lock to what is told of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

from mirrorback.engine.backup import BackupOptions, backup
from mirrorback.engine.events import Events
from mirrorback.engine.history import History
from mirrorback.engine.night import diary
from mirrorback.engine.night.awake import awake
from mirrorback.engine.night.configuration import Configured, expanded, repository_of
from mirrorback.engine.night.diary import Page
from mirrorback.engine.night.hooks import run_hook
from mirrorback.engine.verify import verify
from mirrorback.errors import Damaged, MirrorbackError, NoRepository
from mirrorback.model import Summary
from mirrorback.plan import guards
from mirrorback.plan.retention import read_policy
from mirrorback.plan.verifying import Budget
from mirrorback.store import lock
from mirrorback.store.logbook import Log, forget_old
from mirrorback.store.repository import Repository, drive_errors

HOOK_LIMIT_S = 3600.0
INCOMPLETE = 3
# From the least to the worst: the worst code of all backups is that of the run.
SEVERITY = (0, INCOMPLETE, 11, 10, 5, 12, 2, 1, 4, 130, 143)

Clock = Callable[[], datetime]


class HookFailed(MirrorbackError):
    """A hook did not end well."""


@dataclass(frozen=True)
class Outcome:
    """What came of one backup: `result` is ok, incomplete, failed or skipped."""

    name: str
    result: str
    code: int
    message: str
    summary: Summary | None = None


def worst(codes: list[int]) -> int:
    """The exit code of a run of several backups."""
    known = [code if code in SEVERITY else 1 for code in codes]
    return max(known, key=SEVERITY.index, default=0)


class Run:
    """Runs configured backups; the clock is passed in, the diary lies in a folder."""

    def __init__(self, clock: Clock, where: str | None, *, if_present: bool, if_due: bool) -> None:
        self._clock = clock
        self._where = where
        self._if_present = if_present
        self._if_due = if_due

    def one(self, backup: Configured, events: Events) -> Outcome:
        """Run one.  Its failure is an outcome; only what interrupts the program is raised."""
        page = Page(backup.name) if self._where is None else diary.read(self._where, backup.name)
        if self._if_due and not is_due(backup, page, self._clock()):
            return Outcome(backup.name, "skipped", 0, "is not due yet")
        try:
            path = repository_of(backup)
            with drive_errors():
                repo = Repository.open(path.encode("utf-8", "surrogateescape"))
        except NoRepository as error:
            if self._if_present:
                return Outcome(backup.name, "skipped", 0, "the drive is not there")
            return self._ended(backup, page, _failed(backup, error))
        except MirrorbackError as error:
            return self._ended(backup, page, _failed(backup, error))
        with contextlib.closing(repo), awake():
            log = Log.begin(repo, self._clock())
            try:
                found = _Night(backup, path, repo, self._clock, _Logged(events, log, self._clock))
                outcome = found.run()
                log.line(self._clock(), f"{outcome.result}: {outcome.message}")
                with contextlib.suppress(OSError):
                    forget_old(repo, self._clock().date())
            finally:
                log.end()
            return self._ended(backup, replace(page, repository_id=repo.settings.id), outcome)

    def _ended(self, backup: Configured, page: Page, outcome: Outcome) -> Outcome:
        """Write the diary."""
        now = self._clock().isoformat()
        summary = outcome.summary
        page = replace(page, last_run=now, last_result=outcome.result, message=outcome.message)
        if summary is not None:
            if summary.unchanged:
                page = replace(page, last_check=now)
            else:
                page = replace(page, last_success=now)
            page = replace(page, pinned=_pinned(backup, self._clock()))
        if self._where is not None:
            with contextlib.suppress(OSError):
                diary.write(self._where, page)
        return outcome


def is_due(backup: Configured, page: Page, now: datetime) -> bool:
    """Whether a time of the schedule has passed since the last run."""
    try:
        last = datetime.fromisoformat(page.last_run or "")
    except ValueError:
        return True
    if backup.schedule is None or last.tzinfo is None or last > now + timedelta(days=1):
        return True
    coming = backup.schedule.after(last.astimezone(now.tzinfo))
    return coming is not None and coming <= now


def _pinned(backup: Configured, now: datetime) -> tuple[str, ...]:
    with contextlib.suppress(MirrorbackError), History.open(repository_of(backup), now) as history:
        return tuple(s.name for s in history.snapshots() if guards.holds_thinning(s.pinned))
    return ()


def _failed(backup: Configured, error: MirrorbackError) -> Outcome:
    return Outcome(backup.name, "failed", error.exit_code, str(error))


class _Logged(Events):
    """Tells a listener, and writes what matters into the log."""

    def __init__(self, events: Events, log: Log, clock: Clock) -> None:
        self._events = events
        self._log = log
        self._clock = clock
        self.wants_changes = events.wants_changes
        self.phase = events.phase  # type: ignore[method-assign]
        self.advance = events.advance  # type: ignore[method-assign]
        self.change = events.change  # type: ignore[method-assign]

    def warning(self, message: str, path: bytes | None = None) -> None:
        """Tell and write."""
        self.note(f"warning: {_about(message, path)}")
        self._events.warning(message, path)

    def error(self, message: str, path: bytes | None = None) -> None:
        """Tell and write."""
        self.note(_about(message, path))
        self._events.error(message, path)

    def note(self, text: str) -> None:
        """Write lines."""
        for line in text.splitlines():
            shown = "".join(char if char.isprintable() else "?" for char in line)
            self._log.line(self._clock(), shown)


def _about(message: str, path: bytes | None) -> str:
    return message if path is None else f"{path.decode('utf-8', 'backslashreplace')}: {message}"


class _Night:
    """One backup whose drive is there."""

    def __init__(
        self, backup: Configured, path: str, repo: Repository, clock: Clock, events: _Logged
    ) -> None:
        self._backup = backup
        self._path = path
        self._repo = repo
        self._clock = clock
        self._events = events
        self._summary: Summary | None = None

    def run(self) -> Outcome:
        """Before, backup, thin, verify, after; and what is told where it failed."""
        outcome = Outcome(self._backup.name, "failed", 1, "was interrupted")
        began = False
        try:
            with drive_errors():
                lock.Lock.take(self._repo.inner).release()  # before anything of the person's runs
            self._hook("before", self._backup.before, None)
            began = True
            outcome = self._backed_up()
        except MirrorbackError as error:
            outcome = replace(_failed(self._backup, error), summary=self._summary)
        finally:
            if began:
                try:
                    self._hook("after", self._backup.after, outcome)
                except HookFailed as error:
                    if outcome.code in (0, INCOMPLETE):
                        outcome = replace(_failed(self._backup, error), summary=self._summary)
            if outcome.result == "failed":
                with contextlib.suppress(HookFailed):
                    self._hook("on-failure", self._backup.on_failure, outcome)
        return outcome

    def _backed_up(self) -> Outcome:
        name, source = self._backup.name, expanded(self._backup.source)
        result = backup(source, self._path, options(self._backup), self._clock(), self._events)
        self._summary = summary = result.summary
        problems = list(self._verified())
        if problems:
            raise Damaged(
                f"{len(problems):,} damaged: `mirrorback verify {name}` tells, and"
                f" `mirrorback repair {name}` mends: {problems[0]}"
            )
        if summary.errors:
            said = f"{summary.errors:,} could not be read: the snapshot is incomplete"
            return Outcome(name, "incomplete", INCOMPLETE, said, summary)
        said = "nothing changed" if summary.unchanged else f"made {summary.snapshot}"
        return Outcome(name, "ok", 0, said, summary)

    def _verified(self) -> Iterator[str]:
        """A slice of the repository, the longest unverified first; what is wrong."""
        if self._backup.verify is None:
            return
        part = Budget(max(1, int(self._backup.verify.total_seconds())))
        for problem in verify(self._path, self._clock(), self._events, part):
            line = _about(problem.problem, problem.path)
            self._events.note(line)
            yield line

    def _hook(self, key: str, command: str | None, outcome: Outcome | None) -> None:
        """Run a hook of the person's.  Raises HookFailed."""
        if command is None:
            return
        summary = None if outcome is None else outcome.summary
        values = {
            "MIRRORBACK_NAME": self._backup.name,
            "MIRRORBACK_RESULT": "" if outcome is None else outcome.result,
            "MIRRORBACK_MESSAGE": "" if outcome is None else outcome.message,
            "MIRRORBACK_SUMMARY": "" if summary is None else json.dumps(asdict(summary)),
        }
        ended = run_hook(command, values, HOOK_LIMIT_S)
        if ended.output:
            self._events.note(f"{key} says:\n{ended.output}")
        if ended.failed is not None:
            self._events.warning(f"{key} {ended.failed}")
            last = (ended.output.strip().splitlines() or [""])[-1]
            raise HookFailed(f"{key} {ended.failed}" + (f": {last}" if last else ""))


def options(backup: Configured) -> BackupOptions:
    """A configured backup's options, as `backup` takes them.  Raises UsageError."""
    return BackupOptions(
        checksum=backup.checksum,
        always=backup.always,
        allow_empty_source=backup.allow_empty_source,
        one_file_system=backup.one_file_system,
        exclude=backup.exclude,
        exclude_from=tuple(expanded(name) for name in backup.exclude_from),
        exclude_caches=backup.exclude_caches,
        exclude_if_present=backup.exclude_if_present,
        exclude_larger_than=backup.exclude_larger_than,
        delta_min_size=backup.delta_min_size,
        large_files=backup.large_files,
        policy=read_policy(
            keep_last=_typed(backup.keep_last),
            keep_hourly=_typed(backup.keep_hourly),
            keep_daily=_typed(backup.keep_daily),
            keep_weekly=_typed(backup.keep_weekly),
            keep_monthly=_typed(backup.keep_monthly),
            keep_yearly=_typed(backup.keep_yearly),
            keep_within=backup.keep_within,
            time_machine=backup.time_machine,
            min_free=backup.min_free,
        ),
    )


def _typed(count: int | None) -> str | None:
    return None if count is None else str(count)
