"""Real file systems on loop devices."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "ea_inode"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
    "ntfs": ["mkfs.ntfs", "-q", "-F", "-f"],
}
SIZES = {"ext4": 400 << 20, "xfs": 400 << 20, "btrfs": 400 << 20, "ntfs": 200 << 20}


def require_root() -> None:
    """Skip where file systems cannot be mounted."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system of its own needs root")


@contextlib.contextmanager
def mounted(
    kind: str,
    folder: Path,
    *,
    size: int | None = None,
    options: str = "",
    make: tuple[str, ...] = (),
) -> Iterator[Path]:
    """A new file system of this kind in an image of `size` bytes, mounted."""
    image, point = folder / f"{kind}.img", folder / kind
    point.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(size or SIZES[kind])
    _run(*MAKE[kind], *make, str(image))
    if kind == "ntfs":
        loop = _run("losetup", "--find", "--show", str(image)).strip()
        mount = [
            "ntfs-3g",
            "-o",
            options or "permissions,streams_interface=xattr",
            loop,
            str(point),
        ]
    else:
        loop = ""
        mount = ["mount", "-o", f"loop,{options}".rstrip(","), str(image), str(point)]
    _run(*mount)
    try:
        yield point
    finally:
        _run("umount", "--lazy", str(point))
        if loop:
            _run("losetup", "-d", loop)
        image.unlink()


def _run(*command: str) -> str:
    if shutil.which(command[0], path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
        pytest.fail(f"{command[0]} is not installed; .ci/run lists what the tests need")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout
