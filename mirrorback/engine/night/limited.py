"""Processes that may take so long and no longer, with all that they start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

GRACE_S = 5.0  # between asking a process to end and ending it
STEP_S = 0.05


def wait(process: subprocess.Popen[bytes], limit_s: float) -> int | None:
    """The exit code of a process that leads a session of its own, negative for a signal; None
    where it took too long, and was ended.  Raises what interrupts, after ending it."""
    try:
        code = _code(process, limit_s)
    except BaseException:
        end(process)
        raise
    if code is None:
        end(process)
    return code


def _code(process: subprocess.Popen[bytes], limit_s: float) -> int | None:
    until = time.monotonic() + limit_s
    while True:  # in steps, so that a signal to us is heard
        left = until - time.monotonic()
        if left <= 0:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(0.2, left))


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started and not set free: ask them, and after some
    seconds make them."""
    _signal(process, signal.SIGTERM)
    until = time.monotonic() + GRACE_S
    while time.monotonic() < until and _lives(process):
        time.sleep(STEP_S)
    _signal(process, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)


def _lives(process: subprocess.Popen[bytes]) -> bool:
    """Whether anything of its group is there."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
