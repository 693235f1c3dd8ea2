"""Commands of the system that a scheduler is spoken to by, and the files that it reads."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

from mirrorback.errors import MirrorbackError
from mirrorback.store import durable, tree

WAIT_S = 60
SYSTEMD = "/run/systemd/system"  # is there where systemd runs


class ScheduleError(MirrorbackError):
    """The system's own scheduler refused, or is not there."""


def put(folder: str, name: str, text: str) -> None:
    """Write a file that the system may read, whole.  Raises OSError."""
    opened = os.open(folder, tree.DIRECTORY_FLAGS)
    try:
        durable.replace(opened, name.encode(), text.encode(), mode=0o644)
    finally:
        os.close(opened)


@contextlib.contextmanager
def writing(folder: str) -> Iterator[None]:
    """Turn an OSError into a ScheduleError."""
    try:
        yield
    except OSError as error:
        raise ScheduleError(f"{folder} cannot be written: {error.strerror or error}") from error


def result(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """What came of a command, which got `text` as its input.  Raises ScheduleError where it
    cannot be run, or does not end."""
    environment = {**os.environ, "LC_ALL": "C"}
    runtime = f"/run/user/{os.geteuid()}"
    if os.path.isdir(runtime):  # what `su` does not tell, and systemctl --user asks for
        environment.setdefault("XDG_RUNTIME_DIR", runtime)
    try:
        return subprocess.run(
            command,
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=WAIT_S,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ScheduleError(f"{command[0]} cannot be run: {error}") from error


def succeeded(command: list[str]) -> bool:
    """Run a command; whether it ended well."""
    try:
        return result(command).returncode == 0
    except ScheduleError:
        return False
