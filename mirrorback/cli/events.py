"""What a running use case tells, shown to a person or written as JSON."""

from __future__ import annotations

import threading

from mirrorback.cli import clock, shapes
from mirrorback.cli.escape import escape, plain
from mirrorback.cli.output import complain
from mirrorback.cli.session import Session
from mirrorback.engine.events import Events, Phase
from mirrorback.model import Change, ChangeKind

SIGNS = {
    ChangeKind.ADDED: "+",
    ChangeKind.REMOVED: "-",
    ChangeKind.MODIFIED: "M",
    ChangeKind.METADATA: "m",
    ChangeKind.MOVED: "R",
    ChangeKind.RETYPED: "T",
}
STATUS_EVERY = 0.3  # seconds


def change_line(change: Change) -> str:
    """A change as a line: `M path`, `R old -> new`."""
    sign, path = SIGNS[change.change], escape(change.path) or "."
    if change.from_path is not None:
        return f"{sign} {escape(change.from_path)} -> {path}"
    return f"{sign} {path}"


def trouble_line(message: str, path: bytes | None) -> str:
    """An error or warning as a line."""
    return message if path is None else f"{escape(path) or 'the source'}: {message}"


class Shown(Events):
    """Warnings and errors as lines on standard error; changes, where wanted, as lines
    on standard output."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.wants_changes = session.verbose > 0
        self.lock = threading.Lock()

    def change(self, change: Change) -> None:
        """Show a change."""
        self.result(change_line(change))

    def result(self, line: str) -> None:
        """Write a line to standard output, where it does not disturb what else is shown."""
        with self.lock:
            self.session.out.line(line)

    def warning(self, message: str, path: bytes | None = None) -> None:
        """Show a warning."""
        self.complain(f"warning: {trouble_line(message, path)}")

    def error(self, message: str, path: bytes | None = None) -> None:
        """Show an error that does not end the run."""
        self.complain(trouble_line(message, path))

    def complain(self, line: str) -> None:
        """Write a line to standard error."""
        with self.lock:
            complain(line)

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, *_exception: object) -> None:
        pass


class Stream(Shown):
    """`backup --json`: a line per message on standard output; `status` a few times a second."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._began = self._told = clock.ticks()
        self._phase: Phase | None = None
        self._totals: tuple[int | None, int | None] = (None, None)
        self._files = self._bytes = 0

    def phase(self, phase: Phase, files: int | None = None, size: int | None = None) -> None:
        """Another part begins."""
        with self.lock:
            self._phase, self._totals = phase, (files, size)
            self._files = self._bytes = 0
            self._status(clock.ticks())

    def advance(self, files: int = 0, size: int = 0) -> None:
        """So many files and bytes were done."""
        with self.lock:
            self._files += files
            self._bytes += size
            now = clock.ticks()
            if now - self._told >= STATUS_EVERY:
                self._status(now)

    def change(self, change: Change) -> None:
        """A change, as a message."""
        with self.lock:
            self.session.out.json({"message_type": "change", **shapes.change(change)})

    def warning(self, message: str, path: bytes | None = None) -> None:
        """A warning, as a message too."""
        self._message("warning", message, path)
        super().warning(message, path)

    def error(self, message: str, path: bytes | None = None) -> None:
        """An error, as a message too."""
        self._message("error", message, path)
        super().error(message, path)

    def _message(self, kind: str, message: str, path: bytes | None) -> None:
        with self.lock:
            self.session.out.json(shapes.message(kind, plain(message), path))

    def _status(self, now: float) -> None:
        self._told = now
        if self.session.quiet:
            return
        self.session.out.json(
            {
                "message_type": "status",
                "phase": self._phase.value if self._phase else None,
                "files_done": self._files,
                "total_files": self._totals[0],
                "bytes_done": self._bytes,
                "total_bytes": self._totals[1],
                "seconds_elapsed": round(now - self._began, 1),
            }
        )


def listener(session: Session, *, stream: bool = False) -> Shown:
    """Whoever is to show what happens; a context manager."""
    if session.shows_progress:
        from mirrorback.cli.progress import Bars

        return Bars(session)
    if session.json and stream:
        return Stream(session)
    if session.json:
        return _Silent(session)
    return Shown(session)


class _Silent(Shown):
    """With --json of other commands: standard output is for the result."""

    def change(self, change: Change) -> None:
        """Nothing: the result tells."""
