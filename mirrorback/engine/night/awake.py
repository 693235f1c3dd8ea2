"""Keeping the machine from falling asleep while a backup runs, where it lets us."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from mirrorback.engine.night.commands import SYSTEMD

WHY = "a backup is running"


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """For the time of the block.  Where the system knows no such thing, or does not allow it,
    nothing happens."""
    command = _command()
    if command is None:
        yield
        return
    try:
        holder = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # it ends when this is closed, also by our death
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        yield
        return
    try:
        yield
    finally:
        assert holder.stdin is not None
        with contextlib.suppress(OSError):
            holder.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            holder.wait(2)
        if holder.poll() is None:
            holder.kill()
            holder.wait()


def _command() -> list[str] | None:
    if sys.platform == "darwin":
        return ["caffeinate", "-i", "cat"]
    if os.path.isdir(SYSTEMD) and shutil.which("systemd-inhibit"):
        who = ["--what=sleep", "--who=mirrorback", f"--why={WHY}", "--mode=block"]
        return ["systemd-inhibit", *who, "cat"]
    return None
