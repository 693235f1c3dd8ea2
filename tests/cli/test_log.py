"""`log`: what the runs said, from the drive, or from this machine."""

from __future__ import annotations

import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from homes import NOW, Home
from program import complaint, run

from mirrorback.engine.night.configuration import load
from mirrorback.engine.night.logs import Logs
from mirrorback.errors import NotInHistory, UsageError
from mirrorback.plan import run_logs
from mirrorback.store import logbook


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("MIRRORBACK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TZ", "UTC")
    found = Home(tmp_path)
    found.now = NOW - timedelta(days=100)  # by no clock is it to come
    found.add("before = 'echo hello from $MIRRORBACK_NAME'")
    return found


def show(home: Home, *arguments: str, **more: int) -> str:
    return run("log", *arguments, "--config", home.file, **more).out


def test_the_newest_is_shown_and_all_are_listed(home: Home) -> None:
    home.night()
    (home.source / "a").unlink()
    home.night()
    shown = show(home, "home").splitlines()
    assert shown[0].endswith(f" backs up {home.source} to {home.repository}")
    assert shown[1].endswith("before says:") and shown[2].endswith("hello from home")
    assert "failed: the source is empty" in shown[-1]
    first, last = show(home, "home", "--list").splitlines()
    assert first.split()[:3] == ["home", "2026-08-18-020005", "ok"]
    assert last.split()[:3] == ["home", "2026-08-19-020005", "failed"]
    assert show(home) == f"{first}\n{last}\n"
    assert show(home, "home", "--run", "2026-08-18") == show(
        home, "home", "--run", "2026-08-18-020005"
    )
    *_, files, size, last = show(home, "home", "--run", "2026-08-18").splitlines()
    assert "ok: made" in last and files.endswith(" files: 1 new")
    assert " 1 bytes copied, 1 written in " in size


def test_status_says_where_to_look(home: Home) -> None:
    home.add("before = 'exit 9'")
    text = home.file.read_text().replace("before = 'echo hello from $MIRRORBACK_NAME'\n", "")
    home.file.write_text(text)
    home.night()
    said = run("status", "--config", home.file, code=3).out
    assert "home: before ended with 9 (`mirrorback log home` tells more)" in said
    assert "before ended with 9" in show(home, "home")


def test_json(home: Home) -> None:
    home.night()
    (row,) = run("log", "--json", "--config", home.file).json
    assert row["name"] == "home" and row["run"] == "2026-08-18-020005" and row["result"] == "ok"
    assert row["message"].startswith("made ") and row["time"].startswith("2026-08-18T02:00:05")
    (one,) = run("log", "home", "--json", "--config", home.file).json
    assert one["lines"][2].endswith("hello from home") and one.keys() == row.keys() | {"lines"}


def test_without_the_drive_what_is_kept_here_is_shown(home: Home) -> None:
    home.night()
    there = show(home, "home")
    home.repository.rename(home.top / "unplugged")
    assert show(home, "home") == there
    home.night()
    assert "failed: there is no repository" in show(home, "home")
    shutil.rmtree(home.state)
    told = complaint("log", "home", "--config", home.file, code=1)
    assert "no log of home on this machine" in told and "is the drive mounted?" in told
    (home.top / "unplugged").rename(home.repository)
    assert show(home, "home") == there


def test_a_repository_has_logs_whatever_is_configured(home: Home) -> None:
    home.night()
    assert run("log", home.repository).out == show(home, "home")
    assert "no repository" in complaint("log", home.top / "none", code=10)


def test_nothing_yet(home: Home) -> None:
    assert show(home) == "there is no log of a run yet\n"
    assert "no log of a run yet" in complaint("log", "home", "--config", home.file, code=1)
    assert run("log", "--json", "--config", home.file).json == []


def test_mistakes(home: Home) -> None:
    home.night()
    assert "--run shows one" in complaint("log", "--run", "1d", "--config", home.file, code=2)
    told = complaint("log", "home", "--run", "3B", "--config", home.file, code=2)
    assert "is not a time" in told
    told = complaint("log", "home", "--run", "2020-01-01", "--config", home.file, code=1)
    assert "the oldest is 2026-08-18-020005" in told


def test_what_others_put_among_the_logs(home: Home) -> None:
    home.night()
    folder = home.repository / ".mirrorback/log"
    secret = home.top / "secret"
    secret.write_text("2026-08-20 02:00:05 ok: a secret\n")
    (folder / "2026-08-20-020005.log").symlink_to(secret)
    os.mkfifo(folder / "2026-08-20-020006.log")
    (folder / "2026-08-20-020007.log").write_bytes(
        b"\xff\x1b[2Jx\r\n2026-08-20 02:00:05 ok: \x1b]0;title\x07\n"
    )
    (folder / "2026-99-99-999999.log").write_text("what\n")
    with (folder / "2026-08-20-020008.log").open("wb") as file:
        file.truncate(1 << 40)
    out = show(home, "home", "--list")
    assert "secret" not in out and "\x1b" not in out and "\x00" not in out
    assert "\\x1b]0;title\\x07" in out
    assert "\x1b" not in show(home, "home", "--run", "2026-08-20-020007")
    show(home, "home", "--run", "2026-08-20-020008")
    told = complaint("log", "home", "--run", "2026-08-20-020006", "--config", home.file, code=1)
    assert "cannot be read" in told


def test_a_folder_of_logs_that_is_a_link_is_not_followed(home: Home) -> None:
    home.night()
    shutil.rmtree(home.state)
    folder = home.repository / ".mirrorback/log"
    folder.rename(home.top / "elsewhere")
    folder.symlink_to(home.top / "elsewhere")
    complaint("log", "home", "--config", home.file, code=1)


def test_a_drive_that_fails_hides_no_log_of_this_machine(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night()
    (backup,) = load(str(home.file), home.now).backups
    monkeypatch.setattr(logbook, "LOG", b"x" * 300)  # cannot be opened
    with Logs.of_backup(backup, str(home.state), home.now) as logs:
        assert logs.absent is not None and "the drive failed" in logs.absent
        assert "ok: made" in logs.shown("latest").lines[-1]


def test_a_run_that_was_cut_short(home: Home) -> None:
    home.night()
    path = next((home.repository / ".mirrorback/log").iterdir())
    path.write_text("2026-08-18 02:00:05 before says:\n")
    assert show(home, "home", "--list").split()[2:] == ["no", "end"]


def test_the_newest_by_a_clock_that_was_set_back(home: Home) -> None:
    home.now = NOW + timedelta(days=365)
    home.night()
    home.now = NOW
    (home.source / "a").write_text("new")
    home.night()
    (backup,) = load(str(home.file), home.now).backups
    with Logs.of_backup(backup, str(home.state), home.now) as logs:
        assert logs.runs() == ["2027-11-26-020005", "2026-11-26-020005"]
        assert logs.shown("latest").run == "2026-11-26-020005"


@pytest.mark.parametrize(
    ("text", "run_of"),
    [
        ("latest", "2026-11-24-020000-10"),
        ("2026-11-24-020000", "2026-11-24-020000"),
        ("2026-11-23", "2026-11-22-020000"),
        ("2026-11-24T02:00", "2026-11-24-020000-10"),
        ("2d", "2026-11-22-020000"),
    ],
)
def test_which_run_is_meant(text: str, run_of: str) -> None:
    runs = run_logs.ordered(
        ["2026-11-24-020000", "2026-11-24-020000-10", "2026-11-24-020000-2", "2026-11-22-020000"],
        NOW,
    )
    assert runs[-1] == "2026-11-24-020000-10"
    assert run_logs.chosen(runs, text, NOW) == run_of


def test_no_run_is_meant() -> None:
    with pytest.raises(NotInHistory):
        run_logs.chosen([], "latest", NOW)
    with pytest.raises(UsageError):
        run_logs.chosen(["2026-11-24-020000"], "yesterday", NOW)
    assert run_logs.taken("2026-13-45-990000", NOW) is None
    assert run_logs.taken("x", NOW) is None
    assert run_logs.taken("2026-11-24-020000", NOW) == datetime(2026, 11, 24, 2, tzinfo=NOW.tzinfo)
