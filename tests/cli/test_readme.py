"""What README.md shows works as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from program import PROGRAM, environment

README = Path(__file__).parents[2] / "README.md"


def section(title: str) -> str:
    """The text below a heading."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## )", README.read_text(), re.M | re.S)
    assert found is not None, f"README.md has no section {title!r}"
    return found[1]


def commands(title: str) -> list[str]:
    """The lines that are to be typed, without what explains them."""
    lines = re.findall(r"^    (\S.*)$", section(title), re.M)
    return [re.split(r"  {2,}", line)[0] for line in lines]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a file, and a drive beside it."""
    (tmp_path / "home" / "Documents").mkdir(parents=True)
    (tmp_path / "home" / "letter.odt").write_text("dear")
    (tmp_path / "drive" / "Backup").mkdir(parents=True)
    return tmp_path / "home"


def type_in(home: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the README as it stands there, but for the drive's place."""
    command = command.replace("/media/$USER", f'"{home.parent}/drive"')
    config = home / ".config" / "mirrorback" / "config.toml"
    if command.startswith("mirrorback") and os.geteuid() == 0:  # whose own is /etc
        command += f' --config "{config}"'
    path = f"{Path(PROGRAM).parent}:{os.environ['PATH']}"
    state = str(home.parent / "state")
    env = environment(HOME=str(home), USER="alice", PATH=path, MIRRORBACK_STATE_DIR=state)
    return subprocess.run(
        ["bash", "-c", command], cwd=home, env=env, text=True, capture_output=True, check=False
    )


def test_from_nothing_to_every_night(home: Path) -> None:
    typed = commands("Every night, from nothing")[:5]
    assert [line.split()[0] for line in typed] == ["python3", "mkdir", *["mirrorback"] * 3]
    assert typed[-1] == "mirrorback schedule install"
    for line in (*typed[2:4], "mirrorback schedule show --backend cron"):
        done = type_in(home, line)
        assert done.returncode == 0, done.stderr
    assert "mirrorback run home" in done.stdout
    drive = home.parent / "drive" / "Backup" / "home"
    assert (drive / "current" / "letter.odt").read_text() == "dear"
    for line in ("mirrorback status", "mirrorback log home", "mirrorback versions home letter.odt"):
        done = type_in(home, line)
        assert done.returncode == 0, done.stderr


def test_the_configuration_shown_has_no_mistake(home: Path) -> None:
    text = section("Every night, from nothing")
    shown = re.search(r"^    \[backup.*?(?=^\S)", text, re.M | re.S)
    assert shown is not None
    lines = re.sub(r"^    ", "", shown[0], flags=re.M).replace("5d2c...", "5d2c" * 8)
    file = home / ".config" / "mirrorback" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(lines)
    done = type_in(home, "mirrorback config check")
    assert done.returncode == 0, done.stderr
    assert "1 backup, no mistakes" in done.stdout


def test_files_come_back_as_it_says(home: Path) -> None:
    for line in commands("Every night, from nothing")[2:4]:
        assert type_in(home, line).returncode == 0
    (home / "letter.odt").write_text("dear, dear")
    for line in commands("Getting a file back"):
        line = re.sub(r"--at \S+", "--at latest", line)
        line = line.replace("/tmp/then", f'"{home.parent}/then"').replace("Documents", "letter.odt")
        if line.startswith(("zstd", "mirrorback mount")):
            continue  # test_delta_stock_tools and test_mount have those
        done = type_in(home, line)
        assert done.returncode == 0, (line, done.stderr)
    assert (home.parent / "then" / "letter.odt").read_text() == "dear"
    assert (home / "letter.odt").read_text() == "dear"
    assert [p.read_text() for p in home.glob("letter.odt.before-restore-*")] == ["dear, dear"]


def test_the_drive_it_was_copied_to_goes_on(home: Path) -> None:
    for line in commands("Every night, from nothing")[2:4]:
        assert type_in(home, line).returncode == 0
    copy, edit, verify = commands("Moving to a bigger drive")
    assert copy.startswith("cp -a") and edit == "mirrorback config edit"
    (home.parent / "drive" / "Bigger").mkdir()
    copied = type_in(home, copy.replace("Old", "Backup"))
    assert copied.returncode == 0, copied.stderr
    shutil.rmtree(home.parent / "drive" / "Backup")
    file = home / ".config" / "mirrorback" / "config.toml"
    file.write_text(file.read_text().replace("/Backup/home", "/Bigger/home"))
    for line in (verify, "mirrorback run"):
        done = type_in(home, line)
        assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("home: ok")
