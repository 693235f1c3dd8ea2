"""What one run of a command knows: its common options and where its results go."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, TypeVar

from mirrorback.cli.output import Output

if TYPE_CHECKING:
    from mirrorback.engine.history import History

T = TypeVar("T")


@contextlib.contextmanager
def closing(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """Close a generator before what it reads from is closed."""
    try:
        yield items
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


@dataclass(frozen=True, slots=True)
class Session:
    """The options every command has, and the output."""

    json: bool = False
    verbose: int = 0
    quiet: bool = False
    progress: bool = True
    config: str | None = None
    out: Output = field(default_factory=Output)

    @property
    def now(self) -> datetime:
        """The present moment, in the local zone."""
        from mirrorback.cli import clock

        return clock.now()

    @property
    def zone(self) -> tzinfo:
        """The local zone."""
        from mirrorback.cli import clock

        return clock.zone()

    @property
    def shows_progress(self) -> bool:
        """Whether a person watches who wants to see it go on."""
        return (
            self.progress
            and not self.json
            and not self.quiet
            and sys.stderr is not None
            and sys.stderr.isatty()
        )

    def configuration_file(self) -> str:
        """The configuration: what --config names, else the usual one.  Raises UsageError."""
        from mirrorback.engine.night.configuration import default_file

        return default_file() if self.config is None else self.config

    def repository(self, given: str) -> str:
        """The path of what was given as REPO: a folder, or the name of a configured backup.
        Raises MirrorbackError."""
        if "/" in given:
            return given
        from mirrorback.engine.night.configuration import resolved

        return resolved(given, self.config, self.now)

    def history(self, repository: str, *, needs_folders: bool = False) -> History:
        """Open a repository for reading; a mirror whose folder is missing is told, unless the
        command `needs_folders`, and will tell.  Raises MirrorbackError."""
        from mirrorback.engine.history import History

        cwd = None
        with contextlib.suppress(OSError):  # the folder we are in may be gone
            cwd = os.getcwdb()
        history = History.open(repository, self.now, cwd)
        if not needs_folders:
            self._tell_of_mirror(history)
        return history

    @staticmethod
    def _tell_of_mirror(history: History) -> None:
        trouble = history.trouble()
        if trouble is not None:
            from mirrorback.cli.output import complain

            complain(f"warning: {trouble}")
