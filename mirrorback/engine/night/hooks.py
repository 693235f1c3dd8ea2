"""Hooks: a person's own commands before and after a backup, kept from doing harm to the night.

A hook runs by `/bin/sh -c` in a session of its own, so that it can be ended with all it has
started; it may take so long and no longer, and of what it prints the beginning and the end are
kept.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

KEPT = 32 << 10  # bytes of output, of the beginning and of the end each
GRACE_S = 5.0  # between asking a hook to end and ending it
LINGER_S = 0.5  # for output of what a hook has left behind


@dataclass(frozen=True, slots=True)
class Ended:
    """How a hook ended: its exit code, negative for a signal, None where it took too long; and
    what it printed, shortened in the middle."""

    code: int | None
    output: str

    @property
    def failed(self) -> str | None:
        """In words, where it did not end well."""
        if self.code == 0:
            return None
        if self.code is None:
            return "took too long, and was ended"
        if self.code < 0:
            return f"was ended by signal {-self.code}"
        return f"ended with {self.code}"


def run_hook(command: str, values: Mapping[str, str], limit_s: float) -> Ended:
    """Run a command with `values` added to the environment, for `limit_s` seconds at most.
    Raises what interrupts it, after ending the command."""
    environment = {**os.environ, **{key: _fit(value) for key, value in values.items()}}
    kept = _Kept()
    ours, theirs = os.pipe()
    reader = threading.Thread(target=kept.read, args=(ours,), daemon=True)
    reader.start()
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
        )
    finally:
        os.close(theirs)
    try:
        code = _wait(process, limit_s)
    except BaseException:
        _end(process)
        raise
    if code is None:
        _end(process)
    reader.join(LINGER_S)
    kept.stop = True  # what the hook has started may print on, to nobody
    return Ended(code, kept.text())


def _fit(value: str) -> str:
    """A value that fits an environment: no NUL, and not beyond what the system takes."""
    return (
        value.replace("\0", "")
        .encode("utf-8", "surrogateescape")[: 96 << 10]
        .decode("utf-8", "surrogateescape")
    )


def _wait(process: subprocess.Popen[bytes], limit_s: float) -> int | None:
    until = time.monotonic() + limit_s
    while True:  # in steps, so that a signal to us is heard
        left = until - time.monotonic()
        if left <= 0:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(0.2, left))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and all that it has started and not set free."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
            break
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # what did not heed the first


class _Kept:
    """The beginning and the end of what is printed."""

    def __init__(self) -> None:
        self.stop = False
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out = 0

    def read(self, fd: int) -> None:
        """Take all that comes from a descriptor, to its end, and close it."""
        try:
            while data := os.read(fd, 1 << 16):
                if not self.stop:
                    self._take(data)
        finally:
            os.close(fd)

    def _take(self, data: bytes) -> None:
        room = KEPT - len(self._head)
        self._head += data[:room]
        self._tail += data[room:] if room > 0 else data
        beyond = len(self._tail) - KEPT
        if beyond > 0:
            del self._tail[:beyond]
            self._left_out += beyond

    def text(self) -> str:
        """What is kept, with a line for what is not."""
        middle = f"\n[{self._left_out:,} bytes left out]\n".encode() if self._left_out else b""
        return bytes(self._head + middle + self._tail).decode("utf-8", "replace")
