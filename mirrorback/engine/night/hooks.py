"""Hooks: a person's own commands before and after a backup, kept from doing harm to the night.

A hook runs by `/bin/sh -c` in a session of its own, so that it can be ended with all it has
started; it may take so long and no longer, and of what it prints the beginning and the end are
kept.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from mirrorback.engine.night import limited

KEPT = 32 << 10  # bytes of output, of the beginning and of the end each
PROGRAMS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
LINGER_S = 0.5  # for output of what a hook has left behind


@dataclass(frozen=True, slots=True)
class Ended:
    """How a hook ended: its exit code, negative for a signal, None where it took too long, or
    could not be started, for `trouble`; and what it printed, shortened in the middle."""

    code: int | None
    output: str
    trouble: str | None = None

    @property
    def failed(self) -> str | None:
        """In words, where it did not end well."""
        if self.code == 0:
            return None
        if self.trouble is not None:
            return f"cannot be started: {self.trouble}"
        if self.code is None:
            return "took too long, and was ended"
        if self.code < 0:
            return f"was ended by signal {-self.code}"
        return f"ended with {self.code}"


def run_hook(command: str, values: Mapping[str, str], limit_s: float) -> Ended:
    """Run a command with `values` added to the environment, for `limit_s` seconds at most.
    Raises what interrupts it, after ending the command."""
    environment = _usual() | {key: _fit(value) for key, value in values.items()}
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
    except OSError as error:  # a command that is too long, no shell, no memory
        return Ended(None, "", error.strerror or str(error))
    finally:
        os.close(theirs)
    code = limited.wait(process, limit_s)
    reader.join(LINGER_S)
    kept.stop = True  # what the hook has started may print on, to nobody
    return Ended(code, kept.text())


def _usual() -> dict[str, str]:
    """Our environment, with what a person's has and a scheduler's may lack: a home (systemd, for
    root), and all folders of programs (cron)."""
    found = dict(os.environ)
    home = os.path.expanduser("~")
    if os.path.isabs(home):
        found.setdefault("HOME", home)
    known = [folder for folder in found.get("PATH", "").split(":") if folder]
    found["PATH"] = ":".join(known + [folder for folder in PROGRAMS if folder not in known])
    return found


def _fit(value: str) -> str:
    """A value that fits an environment: no NUL, and not beyond what the system takes."""
    return (
        value.replace("\0", "")
        .encode("utf-8", "surrogateescape")[: 96 << 10]
        .decode("utf-8", "surrogateescape")
    )


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
