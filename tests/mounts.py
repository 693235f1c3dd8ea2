"""Mounting a repository with the installed program."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from program import PROGRAM, Done, environment, run


@functools.cache
def _why_not() -> str | None:
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:
        return f"no mfusepy or libfuse: {error}"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is missing or not for us"
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        for name in ("source", "point"):
            (top / name).mkdir()
        run("init", top / "drive", "--source", top / "source")
        done = subprocess.run(
            [PROGRAM, "mount", top / "drive", top / "point"],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=60,
        )
        if done.returncode == 0:
            unmount(top / "point")
            return None
        # In a container: not permitted.  Anything else is a fault, and the tests show it.
        return done.stderr if "ermitted" in done.stderr else None


def require_fuse() -> None:
    """Skip where FUSE is missing or not permitted."""
    if reason := _why_not():
        pytest.skip(reason)


def let_others_in(folder: Path) -> None:
    """Let other users reach a folder of the tests."""
    for path in (folder, *folder.parents):
        if path != Path("/"):
            path.chmod(path.stat().st_mode | 0o005)


def is_mounted(point: Path) -> bool:
    """Whether something is mounted there, also if its server is gone."""
    return f" {point} " in Path("/proc/self/mountinfo").read_text()


def unmount(point: Path) -> None:
    """End a mount, which must be possible."""
    command = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
    subprocess.run([*command, str(point)], check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def mounted(repository: Path, point: Path, *options: str) -> Iterator[Done]:
    """A repository mounted in the background."""
    point.mkdir(exist_ok=True)
    done = run("mount", repository, point, *options)
    try:
        yield done
    finally:
        if is_mounted(point):
            unmount(point)


def server(point: Path) -> int:
    """The process that serves a mount point."""
    wanted = os.fsencode(point)
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if b"mount" in words and wanted in words:
                    return int(folder.name)
    raise AssertionError("nobody serves it")


def wait_for(what: Callable[[], bool], seconds: float = 30) -> float:
    """Wait until something holds; how long that took."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, "it does not come to pass"
        time.sleep(0.02)
    return time.monotonic() - began
