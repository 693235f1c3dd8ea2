"""verify with its options, as a person and a script meet it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from filesystems import require_root
from program import complaint, run
from runs import Nights


@pytest.fixture
def one(nights: Nights) -> Nights:
    """One night of four files."""
    for name in ("a", "b", "c", "d"):
        (nights.source / name).write_text(name)
    nights.backup()
    return nights


@pytest.mark.parametrize(
    "options",
    [["--subset", text] for text in ("0%", "101%", "-5%", "half", "0/3", "4/3", "")]
    + [["--budget", text] for text in ("0m", "-5m", "30", "soon", "9999d", "")],
)
def test_values_that_make_no_sense(one: Nights, options: list[str]) -> None:
    assert options[0] in complaint("verify", one.repository, *options, code=2)


def test_both_options(one: Nights) -> None:
    complaint("verify", one.repository, "--subset", "5%", "--budget", "5m", code=2)


def test_parts_say_how_much_they_read(one: Nights) -> None:
    assert run("verify", one.repository).out == "all is well\n"
    done = run("verify", one.repository, "--subset", "1/5")
    assert done.out.splitlines()[0].endswith("of 4 files") and "no problem" in done.out
    assert run("verify", one.repository, "--subset", "100%").out == "all is well\n"
    assert run("verify", one.repository, "--budget", "1h", "--json").json == []
    assert run("verify", one.repository, "--budget", "1h", "-q").out == ""


def test_a_problem_in_json_and_on_paper(one: Nights) -> None:
    (one.current / "a").write_text("other")
    (one.current / "new").write_text("x")
    found = run("verify", one.repository, "--json", "--budget", "1h", code=4).json
    assert sorted((p["path"], p["repairable"]) for p in found) == [("a", True), ("new", False)]
    assert set(found[0]) == {"path", "snapshots", "problem", "location", "repairable"}
    done = run("verify", one.repository, code=4)
    assert done.out.splitlines()[-1] == "2 problems found"


def test_what_desktops_leave_is_a_note(one: Nights) -> None:
    (one.current / ".DS_Store").write_text("x")
    done = run("verify", one.repository)
    assert "1 name" in done.err and done.out == "all is well\n"


def test_a_drive_that_is_read_only(one: Nights, ext4: Path) -> None:
    require_root()
    subprocess.run(["cp", "-a", one.repository, ext4 / "drive"], check=True)
    subprocess.run(["mount", "--bind", ext4, ext4], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", ext4], check=True)
        done = run("verify", ext4 / "drive", "--budget", "1h")
        assert "could not be remembered" in done.err
        assert run("verify", ext4 / "drive").err == ""
    finally:
        subprocess.run(["umount", ext4], check=True)
    assert os.path.exists(ext4 / "drive")
