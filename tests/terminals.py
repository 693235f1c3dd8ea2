"""Running the program on a terminal."""

from __future__ import annotations

import errno
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from fcntl import ioctl
from pathlib import Path

from program import PROGRAM, environment

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(*arguments: str | Path, width: int = 80, color: bool = True) -> tuple[int, str]:
    """Run the program on a terminal so many columns wide; its exit code and all it wrote."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    env = environment(TERM="xterm-256color" if color else "dumb")
    process = subprocess.Popen(
        [PROGRAM, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=env
    )
    os.close(theirs)
    written = bytearray()
    until = time.monotonic() + 120
    while time.monotonic() < until:
        ready, _, _ = select.select([ours], [], [], 0.5)
        if ready:
            try:
                data = os.read(ours, 65536)
            except OSError as error:
                assert error.errno == errno.EIO  # the other end is closed
                break
            if not data:
                break
            written += data
    os.close(ours)
    return process.wait(60), written.decode("utf-8", "surrogateescape")


def lines(text: str) -> list[str]:
    """What stays on the screen, without colours; lines that were written over left out."""
    return [CONTROL.sub("", line.rsplit("\r", 1)[-1]) for line in text.split("\r\n")]
