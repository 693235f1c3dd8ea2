"""What a person sees at a terminal, and what a script sees without one."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from program import PROGRAM, environment, run
from runs import Nights
from terminals import CONTROL, lines, on_terminal


def fill(source: Path, count: int, size: int) -> None:
    for number in range(count):
        (source / f"d{number % 10}").mkdir(exist_ok=True)
        (source / f"d{number % 10}" / f"f{number}").write_bytes(os.urandom(size))


def test_progress_has_files_bytes_rate_and_time_left(source: Path, repository: Path) -> None:
    fill(source, 2500, 60_000)
    code, text = on_terminal("backup", "--init", source, repository, width=100)
    assert code == 0
    plain = CONTROL.sub("", text)
    assert re.search(r"copying .*[\d,]+ of 2,500 files, [\d.]+ \w+ of [\d.]+ MiB", plain)
    assert re.search(r"MiB/s", plain)
    assert re.search(r"\d:\d\d:\d\d|-:--:--", plain)
    assert re.search(r": 2,500 new; 11 folders", plain)


def test_no_progress_where_it_is_not_wanted(source: Path, repository: Path) -> None:
    fill(source, 100, 50_000)
    code, text = on_terminal("backup", "--init", "--no-progress", source, repository)
    assert code == 0
    assert "copying" not in text
    done = run("backup", source, repository)
    assert "copying" not in done.err + done.out
    assert "\x1b" not in done.err + done.out


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_tables_fit_the_width(nights: Nights, width: int) -> None:
    name = "a rather long name of a file that will not fit into narrow terminals " * 3
    (nights.source / name).write_text("x")
    nights.backup()
    (nights.source / name).write_text("yy")
    nights.backup()
    for command in (["snapshots"], ["versions", name], ["find", "*"], ["doctor"]):
        code, text = on_terminal(command[0], nights.repository, *command[1:], width=width)
        assert code == 0
        for line in lines(text):
            assert len(line) <= width, (command, line)


def test_hostile_names_reach_no_terminal_raw(nights: Nights) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J[red]x\u202e"
    (nights.source / evil).write_text("x")
    (nights.source / "[bold]not bold[bold]").write_text("x")
    code, text = on_terminal("backup", "--init", "-v", nights.source, nights.repository)
    assert code == 0
    for command in (["ls"], ["find", "*"], ["diff", "0B"], ["verify"]):
        text += on_terminal(command[0], nights.repository, *command[1:], width=200)[1]
    assert "\x1b]0;owned" not in text and "\x07" not in text
    assert "\x1b[2J" not in text and "\u202e" not in text
    assert "[bold]not bold[bold]" in text


def test_errors_are_one_line_on_a_terminal_too(tmp_path: Path) -> None:
    code, text = on_terminal("ls", tmp_path / "none", width=60)
    assert code == 10
    assert "Traceback" not in text
    assert CONTROL.sub("", text).startswith("mirrorback: ")


def test_a_terminal_that_can_nothing(source: Path, repository: Path) -> None:
    fill(source, 50, 1000)
    code, text = on_terminal("backup", "--init", source, repository, color=False)
    assert code == 0
    assert "\x1b[3" not in text


def test_help_of_every_command() -> None:
    listed = run("--help").out
    for command in re.findall(r"^  ([a-z]+) ", listed.split("Commands:")[1], re.MULTILINE):
        text = run(command, "--help").out
        assert text == run(command, "-h").out
        assert "--json" in text


def test_the_version() -> None:
    assert re.fullmatch(r"mirrorback \d+\.\d+\.\d+\n", run("--version").out)


def test_no_command_and_an_unknown_one() -> None:
    run(code=2)
    assert "no such command" in run("bakcup", code=2).err.lower()


def test_standard_output_closed_from_the_start(nights: Nights) -> None:
    (nights.source / "f").write_text("x")
    nights.backup()
    process = subprocess.run(
        ["sh", "-c", 'exec "$0" "$@" >&-', PROGRAM, "ls", nights.repository],
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert b"Traceback" not in process.stderr
