"""Names that are those of our own files, or that a shell, a terminal or a format might obey."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from runs import Nights
from trees import describe, require_same

OURS = [
    ".mirrorback",
    "current",
    "incoming",
    "incoming-1",
    "catalog.db",
    "catalog.db-journal",
    "catalog.db-wal",
    "spool.db",
    "repository.toml",
    "repository.toml.new",
    "mirror.toml",
    "mirror.toml.new",
    "README.txt",
    "README.txt.new",
    "lock",
    "log",
    "redo",
    "signatures",
    "trash",
    "reserve",
    "damaged",
    "former-123",
    "catalog.blake3",
    "2026-11-24-013000",
    "2026-11-24-013000-2",
    "f.set-aside",
    "f.before-restore-2026-11-24-013000",
    "1.undo",
    "1.redo",
    "1.bad",
    ".mirrorback-0123456789abcdef.tmp",
    ".mirrorback-0123456789abcdef.new",
    ".mirrorback-snapshots-1",
    "image.rdiff.zst",
    "f.rdiff.zst",
    "lost+found",
]
ODD = [
    "-rf",
    "--",
    "-",
    "~",
    "*",
    "$(reboot)",
    "`reboot`",
    " ",
    "a b",
    "\n",
    "\r",
    "\x1b[2J",
    "\x07",
]
ODD += ["\u202e", "a\\b", "%41", r"[red]x[red]", "{}", "'", '"', "x" * 255, ".." * 2, "#f", "!f"]
NAMES = [name.encode() for name in OURS + ODD] + [b"\xff\xfe", b"\x80" * 255, b"\xed\xa0\x80"]


def fill(top: Path, tag: bytes) -> None:
    """Each name as a file and as a folder, in the source's root and below it."""
    files, folders = os.path.join(os.fsencode(top), b"f"), os.path.join(os.fsencode(top), b"d")
    os.makedirs(files, exist_ok=True)
    for number, name in enumerate(NAMES):
        write(os.path.join(files, name), tag + name)
        folder = os.path.join(folders, name)
        os.makedirs(os.path.join(folder, b".mirrorback"), exist_ok=True)
        write(os.path.join(folder, b"f"), tag + name)
        write(os.path.join(folder, b".mirrorback", b"repository.toml"), tag)
        here = os.path.join(os.fsencode(top), name)
        if number % 2:
            write(here, tag + name)
        else:
            os.makedirs(here, exist_ok=True)
            write(os.path.join(here, b"f"), tag + name)
    time.sleep(0.03)


def write(path: bytes, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


@pytest.mark.parametrize("least", [1, 1 << 25])
def test_names_of_our_own_are_names_like_others(nights: Nights, tmp_path: Path, least: int) -> None:
    """With `least` 1 each of the files is large, and has a reverse delta or stays whole."""
    fill(nights.source, b"first ")
    first = describe(nights.source)
    nights.backup(delta_min_size=least)
    require_same(first, describe(nights.current))
    fill(nights.source, b"then ")
    then = describe(nights.source)
    nights.backup()
    require_same(then, describe(nights.current))
    assert nights.backup().summary.unchanged
    for at, wanted in (("0B", then), ("1B", first)):
        nights.restore(tmp_path / at, at=at)
        require_same(wanted, describe(tmp_path / at))
    nights.restore(tmp_path / "0B", at="1B", delete=True, keep=False)
    del first[b""]  # what is there already stays as it is
    found = describe(tmp_path / "0B")
    require_same(first, {path: node for path, node in found.items() if path})
    assert nights.problems() == []
    shutil.rmtree(nights.source / "d")
    nights.backup()
    names = [folder.name for folder in nights.folders()]
    assert len(names) == 2
    nights.delete(names[0])
    assert nights.problems() == []
    nights.restore(tmp_path / "again", at="1B")
    require_same(then, describe(tmp_path / "again"))
    nights.prune(last=1)
    assert nights.folders() == []
    assert nights.problems() == []
