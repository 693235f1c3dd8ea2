"""Every way a command can end badly, each with its exit code.

An error is one sentence: what is wrong and what to do.  `Trouble` is the one
that does not end a run: a source file that could not be read is counted and
the run goes on.
"""

from __future__ import annotations

from typing import ClassVar


class MirrorbackError(Exception):
    """A command failed; `str()` is the line shown to the person."""

    exit_code: ClassVar[int] = 1


class UsageError(MirrorbackError):
    """What was asked for makes no sense: a bad option, pattern, size or time."""

    exit_code = 2


class Damaged(MirrorbackError):
    """Something in the repository is not what was once written there."""

    exit_code = 4


class Refused(MirrorbackError):
    """A guard stopped the run; the message names the option that overrides it."""

    exit_code = 5


class NoRepository(MirrorbackError):
    """There is no repository at that place (is the drive mounted?)."""

    exit_code = 10


class Locked(MirrorbackError):
    """Another run holds the repository."""

    exit_code = 11


class NoSpace(MirrorbackError):
    """The drive has not, or no longer, enough room."""

    exit_code = 12


class DriveError(MirrorbackError):
    """The drive failed to do something it should be able to do."""


class SourceError(MirrorbackError):
    """The source as a whole cannot be backed up: missing, or no directory."""


class DeltaTooLarge(MirrorbackError):
    """A reverse delta has more segments or data than its format holds; whoever writes it
    keeps the version whole instead."""


class NotInHistory(MirrorbackError):
    """No snapshot, or no snapshot that old, or no such path in it."""


class Interrupted(MirrorbackError):
    """A signal ended the run; the next run goes on from there."""

    def __init__(self, signal_number: int) -> None:
        super().__init__("interrupted; the next run goes on from there")
        self.signal_number = signal_number

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """128 and the number of the signal, as shells have it."""
        return 128 + self.signal_number


class Trouble(Exception):
    """One source entry could not be read: `reason` in words, for one line."""

    def __init__(self, reason: str, *, vanished: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.vanished = vanished

    def alone(self) -> Trouble:
        """The same without what it passed on its way, to be kept where that is still going."""
        return Trouble(self.reason, vanished=self.vanished)
