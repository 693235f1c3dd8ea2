"""Exclusion is that of git itself, on real folders."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrorback.errors import UsageError
from mirrorback.plan.selection import Selection

WORDS = ["a", "b", "ab", "a.txt", "x-y", "b]"]
PARTS = st.sampled_from(["a", "b", "*", "**", "?", "[a-b]", "[!a]", "a*", "*.txt", "a**b", "\\a"])
PATTERN = st.builds(
    lambda bang, lead, parts, tail: bang + lead + "/".join(parts) + tail,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(PARTS, min_size=1, max_size=3),
    st.sampled_from(["", "", "/"]),
)


def kept_by_git(top: Path, patterns: list[str]) -> set[str]:
    (top / ".git" / "info" / "exclude").write_text("\n".join(patterns) + "\n")
    names = ["ls-files", "-z", "--others", "--exclude-standard"]
    out = subprocess.run(["git", "-C", top, *names], capture_output=True, check=True).stdout
    return {os.fsdecode(name) for name in out.split(b"\0") if name}


def kept_by_us(top: Path, patterns: list[str]) -> set[str]:
    selection = Selection(patterns)
    found = set()
    for folder, folders, files in os.walk(top):
        here = os.path.relpath(folder, top).removeprefix(".").removeprefix("/")
        keep = [
            name
            for name in folders
            if name != ".git"
            and not selection.excludes(os.fsencode(os.path.join(here, name)), True, 0, False)
        ]
        folders[:] = keep
        for name in files:
            path = os.path.join(here, name)
            if not selection.excludes(os.fsencode(path), False, 0, True):
                found.add(path)
    return found


@pytest.fixture(scope="module")
def tree() -> Path:
    """A repository of git with files of all these names, three levels deep."""
    top = Path(tempfile.mkdtemp(prefix="like-git-"))
    subprocess.run(["git", "init", "-q", top], check=True)
    for one in WORDS[:4]:
        for two in WORDS[:4]:
            (top / f"d{one}" / two).mkdir(parents=True)
            for three in WORDS:
                (top / f"d{one}" / two / three).touch()
        for name in WORDS:
            if not (top / name).exists():
                (top / name).touch()
    yield top
    shutil.rmtree(top)


@settings(max_examples=150, deadline=None)
@given(st.lists(PATTERN, min_size=1, max_size=4))
def test_the_same_files_are_kept(tree: Path, patterns: list[str]) -> None:
    try:
        ours = kept_by_us(tree, patterns)
    except UsageError:
        return
    assert ours == kept_by_git(tree, patterns)
