"""Names that hold commands for a terminal: whatever tells of them, none reaches it."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
from program import environment, run
from terminals import on_terminal

EVIL = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b3;1H\u202egpj.\u200b\n\rend"
RAW = EVIL.encode() + b"\x80\x9b\xff"
# Colours, cursor movements and erasures, as bars and tables use them.
OURS = re.compile(r"\x1b\[[0-9;?]*[ABCDEFGKhlm]")
HARMFUL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]"
)


@pytest.fixture
def evil(tmp_path: Path) -> tuple[Path, Path]:
    """A source and a repository at evil places, with evil names, changed between backups."""
    source, repository = tmp_path / f"source {EVIL}", tmp_path / f"drive {EVIL}"
    folder = os.path.join(os.fsencode(source), RAW)
    os.makedirs(folder)
    for name in (RAW, b"f", RAW + b"gone", RAW + b"mode"):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"first")
    os.symlink(RAW, os.path.join(folder, b"link"))
    os.mkfifo(os.path.join(folder, RAW + b"fifo"))
    time.sleep(0.03)
    run("backup", "--init", source, repository)
    with open(os.path.join(folder, RAW), "wb") as file:
        file.write(b"then")
    os.rename(os.path.join(folder, b"f"), os.path.join(folder, RAW + b"moved"))
    os.unlink(os.path.join(folder, RAW + b"gone"))
    os.chmod(os.path.join(folder, RAW + b"mode"), 0o600)
    time.sleep(0.03)
    return source, repository


def harmful(text: str) -> list[str]:
    """What a terminal might obey in what was written to it, or shows otherwise than it is."""
    kept = OURS.sub("", text.replace("\r\n", "\n"))
    return HARMFUL.findall(kept) + re.findall(r"[\udc80-\udcff]", kept)


def commands(source: Path, repository: Path, out: Path) -> list[list[str | bytes | Path]]:
    """Each that can tell of a name, in an order in which all have something to tell."""
    path = RAW + b"/" + RAW
    return [
        ["backup", "-v", "--dry-run", source, repository],
        ["backup", "-v", source, repository],
        ["ls", repository],
        ["ls", "-R", repository, RAW],
        ["ls", repository, RAW, "--at", "1B"],
        ["versions", repository, path],
        ["find", repository, "*"],
        ["diff", repository, "1B"],
        ["stats", repository],
        ["snapshots", repository],
        ["doctor", repository],
        ["pin", repository, "1B"],
        ["restore", "-v", repository, "--at", "1B", "--to", out],
        ["restore", "-v", repository, "--to", out, "--delete"],
        ["restore", "-v", repository, path, "--in-place", "--overwrite", "always"],
        ["restore", repository, path + b"none", "--to", out],
        ["cat", repository, path + b"none"],
        ["ls", repository, path + b"none"],
        ["ls", repository, "--at", EVIL],
        ["delete", repository, EVIL],
        ["verify", repository],
        ["repair", repository],
        ["rebuild", "--force", repository],
        ["prune", repository, "--keep-last", "1"],
        ["backup", os.path.join(os.fsencode(source), RAW + b"none"), repository],
        ["backup", source, os.path.join(os.fsencode(out), RAW)],
        ["ls", RAW],
        ["init", repository, "--source", source],
        ["backup", "--exclude-from", RAW, source, repository],
        ["backup", "--large-files", EVIL, source, repository],
        ["backup", f"--{EVIL}", source, repository],
        ["status", "--config", RAW],
        [EVIL],
    ]


def test_no_name_commands_a_terminal(evil: tuple[Path, Path], tmp_path: Path) -> None:
    source, repository = evil
    telling = set()
    for words in commands(source, repository, tmp_path / "out"):
        _code, text = on_terminal(*words, width=200)
        assert text, words
        assert harmful(text) == [], (words, text)
        if r"\x1b]0;owned" in text:
            telling.add(str(words[0]))
    assert {"backup", "ls", "versions", "find", "diff", "delete", "status"} <= telling


def test_what_is_damaged_and_unread_neither(evil: tuple[Path, Path], tmp_path: Path) -> None:
    source, repository = evil
    run("backup", source, repository)
    mirror = os.path.join(os.fsencode(repository), b"current", RAW)
    with open(os.path.join(mirror, RAW), "r+b") as file:
        file.write(b"XX")
    os.unlink(os.path.join(mirror, RAW + b"moved"))
    with open(os.path.join(mirror, RAW + b"put there"), "wb") as file:
        file.write(b"x")
    for words in (["verify"], ["repair", "--dry-run"], ["repair"], ["rebuild", "--force"]):
        _code, text = on_terminal(words[0], *words[1:], repository, width=200)
        assert text and harmful(text) == [], (words, text)
    _code, text = on_terminal("restore", repository, "--to", tmp_path / "out", "--at", "1B")
    assert text and harmful(text) == [], text


def test_json_and_logs_are_plain(evil: tuple[Path, Path], tmp_path: Path) -> None:
    source, repository = evil
    config, state = tmp_path / "config.toml", tmp_path / "state"
    hook = json.dumps("printf '\\033]0;owned\\007\\n'; exit 0")
    config.write_text(
        f"[backup.home]\nsource = {json.dumps(str(source))}\n"
        f"repository = {json.dumps(str(repository))}\nbefore = {hook}\n"
    )
    env = environment(MIRRORBACK_STATE_DIR=str(state))
    done = run("run", "home", "--config", config, env=env)
    assert harmful(done.out + done.err) == []
    logs = [*(repository / ".mirrorback" / "log").iterdir(), *state.rglob("*.log")]
    assert len(logs) == 2
    for log in logs:
        assert harmful(log.read_bytes().decode("utf-8", "surrogateescape")) == []
    assert harmful(run("log", "home", "--config", config, env=env).out) == []
    assert harmful(run("status", "--config", config, env=env).out) == []
    for command, *more in (["ls", RAW, "-R"], ["find", "*"], ["diff", "1B"], ["verify"]):
        done = run(command, repository, *more, "--json")
        assert done.out.isascii() and harmful(done.out) == []
        json.loads(done.out)


def test_a_shell_is_offered_no_such_name(evil: tuple[Path, Path]) -> None:
    source, repository = evil
    run("backup", source, repository)
    done = run("__complete", "paths", "", "", repository)
    assert harmful(done.out) == []
