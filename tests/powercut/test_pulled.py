"""The drive is pulled in the middle: each command ends soon, with one line that says so, and
when the drive is back all is well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from powercut.able import require_disks

HERE = Path(__file__).parent
LONGEST_S = 300


@pytest.fixture(autouse=True)
def able() -> None:
    """Skip where disks of our own cannot be mounted."""
    require_disks()


POINTS = [
    ("ext4", "First"),
    ("ext4", "Large"),
    ("ext4", "ReadBack"),
    ("ext4", "Repair"),
    ("xfs", "Night"),
    ("xfs", "LargePrune"),
    ("xfs", "RestoreElsewhere"),
    ("btrfs", "MixedPrune"),
    ("btrfs", "Restore"),
    ("btrfs", "Rebuild"),
]


@pytest.mark.parametrize(("kind", "scenario"), POINTS)
def test_pulled_at_any_moment(tmp_path: Path, kind: str, scenario: str) -> None:
    """Looked at from within; see `pulled.py`."""
    command = [sys.executable, HERE / "pulled.py", kind, scenario, tmp_path / "pulled", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" of ") == 4


WHAT = [
    ("pulled", "ext4", "backup"),
    ("pulled", "xfs", "backup"),
    ("pulled", "btrfs", "run"),
    ("pulled", "ext4", "restore"),
    ("pulled", "btrfs", "verify"),
    ("pulled", "xfs", "prune"),
    ("pulled", "ext4", "delete"),
    ("read-only", "ext4"),
    ("read-only", "xfs"),
    ("commit-cut", "ext4"),
    ("unmounted", "ext4"),
    ("told-by-night", "ext4"),
]


@pytest.mark.parametrize("words", WHAT, ids="-".join)
def test_what_a_person_sees(tmp_path: Path, words: tuple[str, ...]) -> None:
    """See `pulled_commands.py`."""
    name, kind, *more = words
    command = [sys.executable, HERE / "pulled_commands.py", name, kind, tmp_path, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S)
    assert done.returncode == 0, done.stdout + done.stderr
