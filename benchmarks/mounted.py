"""A repository as `mirrorback mount` shows it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from measure import END_S, TAIL, Failed
from peers import Mirrorback


class Mounted(NamedTuple):
    """Where a repository is mounted, and the process that serves it."""

    point: Path
    pid: int

    def peak(self) -> int | None:
        """The most bytes of memory that the server has held at once; None where there is no
        /proc."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return None
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@contextmanager
def mounted(mirrorback: Mirrorback, point: Path) -> Iterator[Mounted]:
    """Mount at `point`, a new folder; both are gone afterwards, also after Ctrl-C.
    Raises Failed."""
    point.mkdir()
    argv = mirrorback.command("mount", "--foreground", str(mirrorback.place), str(point)).argv
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            if not process.stdout.readline():  # it says so when it is ready
                process.wait()
                errors.seek(0)
                said = errors.read(TAIL).decode(errors="replace").strip()
                raise Failed(f"{' '.join(argv)}: exit code {process.returncode}\n{said}")
            yield Mounted(point, process.pid)
        finally:
            _end(process, point)
            point.rmdir()


def _end(process: subprocess.Popen[bytes], point: Path) -> None:
    """It unmounts when it is told to end."""
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
    if os.path.ismount(point):
        subprocess.run(["umount", "--lazy", str(point)], check=False)
