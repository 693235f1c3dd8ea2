"""What a running use case tells of itself, for whoever wants to show it."""

from __future__ import annotations

import enum

from mirrorback.model import Change


class Phase(enum.StrEnum):
    """The part of the work that goes on."""

    RECOVER = "recover"
    SURVEY = "survey"
    PLAN = "plan"
    BUILD = "build"
    SETTLE = "settle"
    PUBLISH = "publish"
    RESTORE = "restore"
    VERIFY = "verify"
    DELETE = "delete"
    REPAIR = "repair"
    REBUILD = "rebuild"


class Events:
    """Listener: every method does nothing here.  They may be called from any thread."""

    wants_changes = False  # whether `change` is to be called

    def phase(self, phase: Phase, files: int | None = None, size: int | None = None) -> None:
        """Another part begins, with so many files and bytes to do where that is known."""

    def advance(self, files: int = 0, size: int = 0) -> None:
        """So many files and bytes were done since the last call."""

    def change(self, change: Change) -> None:
        """A path differs from the last snapshot."""

    def warning(self, message: str, path: bytes | None = None) -> None:
        """Something a person should know, which costs nothing."""

    def error(self, message: str, path: bytes | None = None) -> None:
        """Something could not be done; the run goes on."""
