"""What is mounted where: mountinfo (proc(5)), which Linux alone has."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of mountinfo (proc(5))."""

    point: bytes
    fstype: str
    options: frozenset[str]
    device: str  # major:minor
    source: str


def _mounts() -> list[Mount]:
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        head, _, tail = line.partition(b" - ")
        fields, rest = head.split(b" "), tail.split(b" ")
        if len(fields) < 6 or len(rest) < 3:
            continue
        options = fields[5] + b"," + rest[2]
        found.append(
            Mount(
                point=_plain(fields[4]),
                fstype=rest[0].decode("ascii", "replace"),
                options=frozenset(options.decode("ascii", "replace").split(",")),
                device=fields[2].decode("ascii", "replace"),
                source=os.fsdecode(_plain(rest[1])),
            )
        )
    return found


def _plain(field: bytes) -> bytes:
    """Undo mountinfo's octal escapes."""
    return re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), field)


def mount_points(fstype: str | None = None) -> frozenset[bytes]:
    """The absolute paths of all mounts, bind mounts included; or of those of one type."""
    return frozenset(mount.point for mount in _mounts() if fstype in (None, mount.fstype))


def mount_of(path: bytes) -> Mount | None:
    """The mount that a path lies on; None where the system does not say."""
    real = os.path.realpath(path)
    best: Mount | None = None
    for mount in _mounts():
        top = mount.point.rstrip(b"/") + b"/"
        inside = real == mount.point or real.startswith(top)
        # Of two mounts at one place the later one is seen.
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def read_ahead(point: bytes, size: int) -> bool:
    """Have the kernel read so many bytes ahead in files of the file system mounted at an
    absolute path, which is not looked at; whether that was allowed (to root)."""
    devices = [mount.device for mount in _mounts() if mount.point == point]
    try:
        with open(f"/sys/class/bdi/{devices[-1]}/read_ahead_kb", "w") as file:
            file.write(str(size >> 10))
    except (OSError, IndexError):
        return False
    return True
