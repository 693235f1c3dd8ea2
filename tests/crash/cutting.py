"""Running something in a process of its own that is killed, or fails, at its n-th call.

`cut.so` has to be preloaded, made of `cut.c`, which says what the numbers mean.
"""

from __future__ import annotations

import ctypes
import errno
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mirrorback.cli.ending import told
from mirrorback.errors import MirrorbackError

KILL, TORN, SHORT = 0, -1, -2
CHANGES, READS, WRITTEN, MOVED, CLOSES, NAMES = 1, 2, 4, 8, 16, 32
KILLED = 128 + 9
INCOMPLETE, DAMAGED = 3, 4
UNEXPECTED = 70  # an exception that is none of ours
NEVER = 1 << 40  # no run has so many calls
LIBRARY = ctypes.CDLL(None)


@dataclass(frozen=True)
class Fault:
    """What happens at a call: an error number, or KILL, TORN, SHORT; `on`: at all that follow,
    too.  `kinds` of calls count; those of `where`, a name in the scenario's folder."""

    error: int
    on: bool = False
    kinds: int = CHANGES
    where: str = ""

    @classmethod
    def read(cls, text: str) -> Fault:
        """One as it is typed: `kill`, `torn`, `short`, the name of an error, with `+` for all
        that follow; before that `reads:`, `source:` for those of the source, `closes:`, or
        `configuration:` for changes of what is kept in `dotfiles`."""
        place, _colon, name = text.rpartition(":")
        where = {"reads": "drive", "source": "source", "configuration": "dotfiles"}.get(place, "")
        on, name = name.endswith("+"), name.rstrip("+")
        if name == "kill":
            return cls(KILL, where=where)
        if name == "torn":
            return cls(TORN, kinds=WRITTEN, where=where)
        if name == "short":
            return cls(SHORT, on, MOVED)
        kinds = {"reads": READS, "source": READS, "closes": CLOSES}.get(place, CHANGES)
        if name == "EMLINK":
            kinds = NAMES
        return cls(int(getattr(errno, name)), on, kinds, where)

    @property
    def kills(self) -> bool:
        """Whether it ends the process."""
        return self.error in (KILL, TORN)


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, 128 and the signal's number where it was killed; how
    many calls there were, if it lived; the call that was cut; what it said on standard error."""

    code: int
    calls: int
    call: str
    said: str


def in_child(act: Callable[[], object], at: int, fault: Fault, top: Path) -> Ended:
    """Run something below `top`, with a fault at its call number `at`.  The exit code is what it
    returns, if that is a number, or what the exception means that it raises."""
    reading, writing = os.pipe()
    stderr = os.memfd_create("stderr")
    child = os.fork()
    if child == 0:
        os.dup2(stderr, 2)
        code = UNEXPECTED
        try:
            where = os.path.join(os.path.realpath(top), fault.where)
            LIBRARY.cut_arm(
                ctypes.c_long(at),
                ctypes.c_long(fault.error),
                ctypes.c_long(fault.on),
                ctypes.c_long(fault.kinds),
                os.fsencode(where),
                writing,
            )
            code = _ended(act)
            os.write(writing, b"%d calls" % LIBRARY.cut_calls())
        finally:
            os._exit(code)
    os.close(writing)
    _pid, status = os.waitpid(child, 0)
    with os.fdopen(reading, errors="backslashreplace") as pipe, os.fdopen(stderr, "rb") as file:
        told = pipe.read().splitlines()
        file.seek(0)
        said = file.read().decode("utf-8", "replace")
    code = os.waitstatus_to_exitcode(status)
    calls = int(told.pop().split()[0]) if told and told[-1].endswith(" calls") else 0
    call = told[0] if told else ""
    return Ended(128 - code if code < 0 else code, calls, call, said)


def _ended(act: Callable[[], object]) -> int:
    try:
        code = act()
    except MirrorbackError as error:
        if "FAULT_TRACE" in os.environ:
            traceback.print_exc()
        message, number = told(error)
        os.write(2, f"mirrorback: {message}\n".encode())
        return number
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        return UNEXPECTED
    return code if isinstance(code, int) else 0
