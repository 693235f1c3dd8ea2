"""Acts in processes of their own, which are watched."""

from __future__ import annotations

import os
import select
import sys
import time
import traceback
from collections.abc import Callable

from powercut import devices


def in_child(act: Callable[[], object], longest_s: float) -> str | None:
    """What an act in a process of its own raises; None where it ends well, and soon enough."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _report(act, writing)
    os.close(writing)
    told, ended = b"", False
    until = time.monotonic() + longest_s
    while not ended and (left := until - time.monotonic()) > 0:
        if select.select([reading], [], [], left)[0]:
            part = os.read(reading, 1 << 16)
            told, ended = told + part, not part
    if not ended:
        os.kill(child, 9)
        told += b"\nit did not come to an end"
    os.close(reading)
    _pid, status = os.waitpid(child, 0)
    if status == 0 and not told:
        return None
    return told.decode(errors="replace") or f"it ended with {os.waitstatus_to_exitcode(status)}"


def _report(act: Callable[[], object], writing: int) -> None:
    devices.die_with_parent()
    code = 1
    try:
        act()
        code = 0
    except BaseException:
        text = traceback.format_exc()
        os.write(writing, text.encode()[-60_000:])
    finally:
        sys.stdout.flush()
        os._exit(code)
