"""Files with more extended attributes than anything has."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filesystems import require_root
from program import run
from runs import Nights

VALUE = bytes(1 << 16)  # the most that Linux takes


@pytest.mark.parametrize("count", [255, 600])
def test_a_file_of_many_attributes_spoils_no_catalog(
    mount: Callable[[str], Path], tmp_path: Path, count: int
) -> None:
    require_root()
    source = mount("xfs") / "source"
    source.mkdir()
    nights = Nights(source, tmp_path / "drive")
    (source / "other").write_text("x")
    (source / "many").write_text("y")
    for number in range(count):
        os.setxattr(source / "many", b"user.%d" % number, VALUE)
    kept = count < 256
    nights.backup(exclude=("many",))
    assert nights.problems() == []  # what reads has limits, which hold for all of a process
    summary = nights.backup().summary
    assert (summary.errors == 0) is kept
    if not kept:
        assert any("extended attributes" in message for message, _path in nights.heard.errors)
    nights.restore(tmp_path / "back")
    assert sorted(os.listdir(tmp_path / "back")) == ["many", "other"] if kept else ["other"]
    names = [entry["path"] for entry in run("ls", nights.repository, "-R", "--json").json]
    assert ("many" in names) is kept
    assert nights.problems() == []
