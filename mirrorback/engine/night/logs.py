"""The logs of a backup's runs, from its drive and from this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType

from mirrorback.engine.night.account import LOGS
from mirrorback.engine.night.configuration import Configured, opened
from mirrorback.errors import DriveError, MirrorbackError, NotInHistory
from mirrorback.plan import run_logs
from mirrorback.store import logbook, tree
from mirrorback.store.repository import Repository, drive_errors

SUFFIX = ".log"
END = logbook.LEFT_FOR_LAST  # bytes of a log's end that hold its last line


@dataclass(frozen=True, slots=True)
class RunLog:
    """The log of a run: of which backup or repository, by what name, when it began, and what
    came of it; None where that is not known.  `lines` are untrusted."""

    name: str
    run: str
    time: datetime | None
    result: str | None
    message: str | None
    lines: tuple[str, ...] = ()


class Logs:
    """The logs of one backup.  A context manager; `absent` says why its drive could not be asked,
    where that is so."""

    def __init__(self, name: str, folders: list[int], absent: str | None, now: datetime) -> None:
        self.absent = absent
        self._name = name
        self._folders = folders  # the drive's before that of this machine, which has less
        self._now = now

    @classmethod
    def of_backup(cls, backup: Configured, where: str | None, now: datetime) -> Logs:
        """Of a configured backup; `where` is the folder of the diary, if there is one."""
        folders, absent = [], None
        try:
            folders += _of_drive(opened(backup))
        except MirrorbackError as error:
            absent = str(error)
        if where is not None:
            with contextlib.suppress(OSError):
                path = os.path.join(where, LOGS, backup.name)
                folders.append(os.open(path, tree.DIRECTORY_FLAGS))
        return cls(backup.name, folders, absent, now)

    @classmethod
    def of_repository(cls, path: str, now: datetime) -> Logs:
        """Of a repository, whatever is configured.  Raises MirrorbackError."""
        with drive_errors():
            repo = Repository.open(os.path.abspath(os.fsencode(path)))
            return cls(path, _of_drive(repo), None, now)

    def __enter__(self) -> Logs:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        for folder in self._folders:
            os.close(folder)

    def runs(self) -> list[str]:
        """The logs by their names, the newest last."""
        found: set[str] = set()
        for folder in self._folders:
            with contextlib.suppress(OSError):
                found |= {name.removesuffix(SUFFIX) for name in logbook.names(folder)}
        return run_logs.ordered(found, self._now)

    def listed(self) -> Iterator[RunLog]:
        """All of them, without their lines, the newest last."""
        for run in self.runs():
            text = self._text(run, END)
            if text is not None:
                yield self._log(run, text, ())

    def shown(self, when: str) -> RunLog:
        """The log of the run that is meant.  Raises NotInHistory, UsageError, DriveError."""
        runs = self.runs()
        if not runs and self.absent is not None:
            raise NotInHistory(f"there is no log of {self._name} on this machine; {self.absent}")
        run = run_logs.chosen(runs, when, self._now)
        text = self._text(run, logbook.LIMIT)
        if text is None:
            raise DriveError(f"the log {run} of {self._name} cannot be read")
        return self._log(run, text, tuple(text.splitlines()))

    def _log(self, run: str, text: str, lines: tuple[str, ...]) -> RunLog:
        result, message = run_logs.result(text)
        return RunLog(self._name, run, run_logs.taken(run, self._now), result, message, lines)

    def _text(self, run: str, most: int) -> str | None:
        """The last bytes of a log, from where it can be read."""
        for folder in self._folders:
            with contextlib.suppress(OSError):
                return logbook.read(folder, run + SUFFIX, most).decode("utf-8", "backslashreplace")
        return None


def _of_drive(repo: Repository) -> list[int]:
    """The folder of logs in a repository, which is closed; none where there is none.  Raises
    DriveError."""
    none = contextlib.suppress(FileNotFoundError, NotADirectoryError)
    with contextlib.closing(repo), drive_errors(), none:
        return [os.open(logbook.LOG, tree.DIRECTORY_FLAGS, dir_fd=repo.inner)]
    return []
