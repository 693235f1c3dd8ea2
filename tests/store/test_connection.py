"""Several connections of one process to a catalog."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mirrorback.store.catalog import Catalog

WRITER = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1], timeout=0) as db:
    db.execute("UPDATE directory SET parent = parent")
"""


def may_write(path: Path) -> bool:
    """Whether another process could alter the catalog now."""
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(path)], capture_output=True, check=False, timeout=60
    )
    assert not done.returncode or b"locked" in done.stderr, done.stderr
    return not done.returncode


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty catalog, closed."""
    Catalog.create(bytes(tmp_path / "catalog.db")).close()
    return tmp_path / "catalog.db"


def test_one_that_is_opened_takes_no_locks_from_another(path: Path) -> None:
    with contextlib.closing(Catalog.open(bytes(path))) as reading:
        with reading.held():
            assert not may_write(path)
            with contextlib.closing(Catalog.open(bytes(path))):
                assert not may_write(path)
        assert may_write(path)


def test_mending_takes_no_locks_away(path: Path) -> None:
    with contextlib.closing(Catalog.open(bytes(path))) as reading, reading.held():
        reading.mend()
        assert not may_write(path)


def test_one_that_is_closed_leaves_nothing_open(path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for write in (False, True):
        Catalog.open(bytes(path), write=write).close()
    path.write_bytes(b"something else")
    with contextlib.suppress(Exception):
        Catalog.open(bytes(path))
    assert os.listdir("/proc/self/fd") == before
