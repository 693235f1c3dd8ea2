"""Runs one command and measures it: time, processor time, memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

SAMPLE_S = 0.5  # between two looks at the memory
END_S = 10  # for a command that has been told to end
TAIL = 2000  # bytes of output shown when a command fails
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MAXRSS_UNIT = 1 if os.uname().sysname == "Darwin" else 1024


class Failed(Exception):
    """A command ended with a code other than 0."""


@dataclass(frozen=True)
class Command:
    """What to run; `env` is added to the environment."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """What one run took: seconds, and bytes of memory."""

    wall: float  # the command and the sync after it
    sync: float  # the sync alone
    cpu: float  # user and system, of all its processes
    largest: int  # peak RSS of its largest process, as the kernel counted it
    total: int  # peak of the sum over all its processes, sampled; 0 where there is no /proc


class Sampler:
    """Looks at the memory of a process group again and again, in a thread."""

    def __init__(self, group: int) -> None:
        self.peak = 0
        self._group = group
        self._ours: dict[int, bool] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Sampler:
        self._ours[self._group] = True
        if os.path.isdir("/proc/self"):
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _loop(self) -> None:
        while True:
            self.peak = max(self.peak, sum(map(_memory, self._members())))
            if self._stop.wait(SAMPLE_S):
                return

    def _members(self) -> list[int]:
        """The group's processes, but for those seen for the first time.

        A process just forked may still share its parent's memory, to be counted twice.
        """
        alive = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        members = [pid for pid, ours in self._ours.items() if ours and pid in alive]
        known = {pid: ours for pid, ours in self._ours.items() if pid in alive}
        new = {pid: _group(pid) == self._group for pid in alive - known.keys()}
        self._ours = known | new
        return members


def _group(pid: int) -> int:
    """The process group of `pid`; 0 if it is gone."""
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


def _memory(pid: int) -> int:
    """Bytes held by a process: its share of shared pages where that is told, else its RSS."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except ProcessLookupError:
        return 0
    except OSError:
        pass
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except OSError:
        return 0


def forget() -> None:
    """Have the kernel forget what it knows of all files' content and names (proc(5),
    drop_caches); where that is not allowed, nothing."""
    os.sync()
    with contextlib.suppress(OSError), open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


def sync(folders: Sequence[Path]) -> float:
    """Write out the file systems that hold `folders`; returns the seconds it took."""
    began = time.perf_counter()
    for folder in folders:
        _sync(folder)
    return time.perf_counter() - began


def _sync(folder: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        os.sync()
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        if libc.syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(fd)


def run(command: Command, sync_after: Sequence[Path] = ()) -> Figures:
    """Run a command, then sync; raises Failed.  Nothing is dropped from any cache."""
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = _start(command, output)
        try:
            with Sampler(process.pid) as sampler:
                _, status, usage = os.wait4(process.pid, 0)
                took = time.perf_counter() - began
        except BaseException:
            _end(process)
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise Failed(_what(command, process.returncode, output))
    synced = sync(sync_after)
    return Figures(
        wall=took + synced,
        sync=synced,
        cpu=usage.ru_utime + usage.ru_stime,
        largest=usage.ru_maxrss * _MAXRSS_UNIT,
        total=sampler.peak,
    )


def read(command: Command) -> str:
    """The standard output of a command that is not measured; raises Failed."""
    done = subprocess.run(
        list(command.argv),
        env=os.environ | dict(command.env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        words = " ".join(command.argv)
        raise Failed(f"{words}: exit code {done.returncode}\n{done.stderr[-TAIL:]}")
    return done.stdout


def _start(command: Command, output: BinaryIO) -> subprocess.Popen[bytes]:
    """Start it in a session of its own: no terminal, and a process group to look at."""
    return subprocess.Popen(
        list(command.argv),
        env=os.environ | dict(command.env),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and all its processes."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    except ProcessLookupError:
        pass


def _what(command: Command, code: int, output: BinaryIO) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - TAIL))
    tail = output.read().decode(errors="replace").strip()
    return f"{' '.join(command.argv)}: exit code {code}\n{tail}"
