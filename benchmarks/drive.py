"""The drive that is backed up to: an image of its own, or a plain folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TRIES = 10  # to unmount, a second apart
SECTOR = 512  # bytes, the unit of the kernel's statistics
SECTORS_WRITTEN = 6  # the field: Documentation/admin-guide/iostats.rst
UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}


def size(text: str) -> int:
    """A size in bytes, from text such as 20G."""
    number, unit = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    return int(float(number) * (1 << UNITS[unit] if unit else 1))


@contextmanager
def drive(work: Path, kind: str, image_size: int) -> Iterator[Path]:
    """A drive below `work`, empty; it is gone afterwards whatever happens."""
    folder = work / "drive"
    folder.mkdir()
    if kind == "none" or not _possible():
        yield folder
        return
    image = work / "drive.img"
    try:
        mounted = _mount(image, folder, image_size)
        if not mounted:
            print("no image could be mounted: the drive is a plain folder", file=sys.stderr)
        yield folder
    finally:
        if os.path.ismount(folder):
            _unmount(folder)
        image.unlink(missing_ok=True)


def written(folder: Path) -> int | None:
    """The bytes that the device below `folder` has written so far; None where `folder` is not
    a file system of its own, whose device others write to, or the system does not tell."""
    if not os.path.ismount(folder):
        return None
    device = os.stat(folder).st_dev
    try:
        text = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text()
    except OSError:
        return None
    return int(text.split()[SECTORS_WRITTEN]) * SECTOR


def _possible() -> bool:
    tools = ("losetup", "mkfs.ext4", "mount", "umount")
    return os.geteuid() == 0 and all(map(shutil.which, tools))


def _mount(image: Path, folder: Path, image_size: int) -> bool:
    """Make a sparse image with an ext4 on it and mount it; false if that cannot be done."""
    with image.open("wb") as file:
        file.truncate(image_size)
    commands = (
        ["mkfs.ext4", "-O", "ea_inode", "-q", str(image)],
        ["mount", "-o", "loop", str(image), str(folder)],
    )
    for command in commands:
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"{command[0]}: {done.stderr.strip()}", file=sys.stderr)
            return False
    return True


def _unmount(folder: Path) -> None:
    """Unmount; the loop device goes with it.  A busy drive is detached in the end."""
    for _ in range(TRIES):
        if subprocess.run(["umount", str(folder)], check=False).returncode == 0:
            return
        time.sleep(1)
    subprocess.run(["umount", "--lazy", str(folder)], check=False)
