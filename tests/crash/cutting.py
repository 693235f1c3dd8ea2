"""Runs something in a process of its own, cut at a call; see `cut.c`, which is to be preloaded."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

from mirrorback.errors import MirrorbackError

LIBRARY = ctypes.CDLL(None)
NEVER = 1 << 40  # no run has so many calls


def in_child(act: Callable[[], object], at: int, error: int, on: int) -> tuple[int, int]:
    """Run in a process of its own, cut at a call.  Returns the exit code, 128 and the
    signal's number where it was killed, and how many calls there were (if it lived)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            LIBRARY.cut_arm(ctypes.c_long(at), ctypes.c_long(error), ctypes.c_long(on))
            try:
                act()
                code = 0
            except MirrorbackError as problem:
                code = problem.exit_code
            os.write(writing, b"%d" % LIBRARY.cut_calls())
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    _pid, status = os.waitpid(child, 0)
    told = os.read(reading, 20)
    os.close(reading)
    code = os.waitstatus_to_exitcode(status)
    return (128 - code if code < 0 else code), int(told or 0)
