"""Whether this machine can have disks of our own."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filesystems import require_root
from powercut import devices

TRY = """
import sys
sys.path.insert(0, sys.argv[1])
from powercut import devices
devices.own_mounts()
"""


def require_disks() -> None:
    """Skip where disks of our own cannot be mounted."""
    require_root()
    if reason := _why_not():
        pytest.skip(reason)


@functools.cache
def _why_not() -> str | None:
    needed = [Path("/dev/fuse"), Path("/dev/loop-control")]
    missing = [str(path) for path in needed if not os.access(path, os.R_OK | os.W_OK)]
    if missing:
        return f"{' and '.join(missing)} missing or not for us"
    known = Path("/proc/filesystems").read_text().split()
    lacking = sorted({kind.type for kind in devices.KINDS.values()} - set(known))
    if lacking:
        return f"the system does not know {', '.join(lacking)}"
    top = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", TRY, top], capture_output=True, text=True)
    return None if done.returncode == 0 else f"not permitted: {done.stderr.splitlines()[-1]}"
