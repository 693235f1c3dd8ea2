"""Standard output and standard error: lines, JSON, and what a closed pipe means."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterable
from typing import Any, BinaryIO, cast

from mirrorback.cli.escape import plain
from mirrorback.errors import MirrorbackError

CLOSED = "the output cannot be written: standard output is closed"


class OutputClosed(MirrorbackError):
    """Who read our standard output went away; ends a command that only reads."""

    exit_code = 141  # as if SIGPIPE had ended it


class OutputFailed(MirrorbackError):
    """Standard output cannot be written, for instance since its disk is full."""


class Output:
    """Where a command's results go.

    `persistent`: the command goes on when nobody reads its results any more; what
    could not be written is told at the end, by `finish`.
    """

    def __init__(self, *, persistent: bool = False) -> None:
        self._persistent = persistent
        self._mute = sys.stdout is None
        self._failure: OutputFailed | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether a person sees standard output."""
        return sys.stdout is not None and sys.stdout.isatty()

    def line(self, text: str = "") -> None:
        """Write a line; whatever in it came from outside must be escaped already."""
        self._write(text + "\n")

    def json(self, value: object) -> None:
        """Write a value as one line of JSON, ASCII only."""
        self.line(json.dumps(value, ensure_ascii=True))

    def array(self, items: Iterable[object]) -> None:
        """Write a JSON array, an item a line, as the items come."""
        count = 0
        for item in items:
            text = json.dumps(item, ensure_ascii=True)
            self._write(("[\n" if count == 0 else ",\n") + text)
            count += 1
        self._write("\n]\n" if count else "[]\n")

    def flush(self) -> None:
        """Hand over to the system what was written."""
        self._guarded(None)

    def finish(self) -> None:
        """Flush; raises OutputFailed for what could not be written on the way."""
        self.flush()
        if self._failure is not None:
            raise self._failure

    def _write(self, text: str) -> None:
        if sys.stdout is None and not self._persistent:
            raise OutputFailed(CLOSED)
        self._guarded(text)

    def _guarded(self, text: str | None) -> None:
        if self._mute:
            return
        try:
            if text is None:
                sys.stdout.flush()
            else:
                sys.stdout.write(text)
                if self._persistent:
                    sys.stdout.flush()
        except OSError as error:
            failure = translated(error)
            silence()
            self._mute = True
            if not self._persistent:
                raise failure from error
            if isinstance(failure, OutputFailed):
                self._failure = failure


class RawOutput(io.RawIOBase):
    """Standard output for bytes, with errors that are not taken for the drive's."""

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Write all of `data`.  Raises OutputClosed, OutputFailed."""
        if sys.stdout is None:
            raise OutputFailed(CLOSED)
        try:
            sys.stdout.buffer.write(data)
        except OSError as error:
            failure = translated(error)
            silence()
            raise failure from error
        return len(data)

    @classmethod
    def open(cls) -> BinaryIO:
        """An object that commands may write bytes to."""
        return cast(BinaryIO, cls())


def translated(error: OSError) -> MirrorbackError:
    """What an error of standard output means."""
    if isinstance(error, BrokenPipeError):
        return OutputClosed("standard output was closed")
    return OutputFailed(f"the output cannot be written: {error.strerror}")


def silence() -> None:
    """Let what is still buffered for standard output go nowhere, so that the
    interpreter does not complain of it at its end."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def complain(message: str) -> None:
    """Write one line to standard error."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"mirrorback: {plain(message)}\n")
            sys.stderr.flush()
