"""`status`: what a person wants to know every now and then, and a script every day."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from program import environment, run
from runs import Nights

from mirrorback.engine.night import diary
from mirrorback.engine.night.configuration import load
from mirrorback.engine.night.diary import Page
from mirrorback.engine.night.running import is_due
from mirrorback.engine.night.standing import Pinned, Status, status


class Configured(Nights):
    """Nights of a configured backup, asked for its status."""

    def __init__(self, top: Path, lines: str = "") -> None:
        (top / "source").mkdir()
        super().__init__(top / "source", top / "repository")
        self.file, self.state = top / "config.toml", top / "state"
        self.file.write_text(
            f"[backup.home]\nsource = '{self.source}'\nrepository = '{self.repository}'\n{lines}"
        )

    def status(self, now: datetime | None = None) -> Status:
        found = load(str(self.file), now or self.now)
        found.require_sound()
        (one,) = status(found.backups, now or self.now, str(self.state))
        return one


def test_what_was_never_backed_up_is_overdue(tmp_path: Path) -> None:
    found = Configured(tmp_path).status()
    assert found.overdue and found.last_success is None
    assert found.absent is not None and "no repository" in found.absent


def test_a_backup_is_told_and_so_is_a_check_that_found_nothing_new(tmp_path: Path) -> None:
    nights = Configured(tmp_path, "schedule = 'daily 02:00'\n")
    (nights.source / "a").write_text("a")
    nights.backup()
    made = nights.now
    found = nights.status()
    assert (found.last_success, found.last_check, found.overdue) == (made, None, False)
    assert found.next_run == made + timedelta(days=1)
    nights.backup()
    found = nights.status()
    assert (found.last_success, found.last_check, found.overdue) == (made, nights.now, False)
    later = nights.now + timedelta(days=3)
    assert not nights.status(later).overdue
    assert nights.status(later + timedelta(seconds=1)).overdue


def test_a_mass_change_is_told_until_it_is_acknowledged(tmp_path: Path) -> None:
    nights = Configured(tmp_path)
    for number in range(1000):
        (nights.source / str(number)).write_text("x")
    first = nights.backup().summary.snapshot
    for number in range(600):
        (nights.source / str(number)).unlink()
    nights.backup()
    (pin,) = nights.status().pinned
    assert pin.name == first and "600 of 1,000 files removed" in pin.reason
    done = run("status", "--config", nights.file, code=3)  # by the real clock it is overdue
    assert f"mirrorback unpin home {first}" in done.out
    assert f"mirrorback diff home {first}" in done.out
    (told,) = run("status", "--config", nights.file, "--json", code=3).json
    assert told["pinned"] == [first] and told["overdue"] is True


def test_the_diary_answers_where_the_drive_is_away(tmp_path: Path) -> None:
    nights = Configured(tmp_path)
    page = Page(
        "home",
        last_result="failed",
        message="the drive failed",
        last_success=nights.now.isoformat(),
        pinned=("2026-11-01-020000",),
    )
    diary.update(str(nights.state), page.name, lambda _: page)
    assert diary.read(str(nights.state), "home") == page
    found = nights.status(nights.now + timedelta(days=1))
    assert found.last_success == nights.now and not found.overdue
    assert (found.last_result, found.message) == ("failed", "the drive failed")
    assert [pin.name for pin in found.pinned] == ["2026-11-01-020000"]


def test_a_page_of_another_repository_says_nothing(tmp_path: Path) -> None:
    nights = Configured(tmp_path, f"repository-id = '{'0' * 32}'\n")
    page = Page("home", repository_id="1" * 32, last_success=nights.now.isoformat())
    diary.update(str(nights.state), page.name, lambda _: page)
    assert nights.status().last_success is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", '{"last_success": 3}', '{"last_success": "when?"}', "[" * 99999),
        *('{"pinned": "x", "last_result": "splendid"}', '{"last_success": "2026-01-01T00:00:00"}'),
    ],
)
def test_a_spoilt_diary_is_an_empty_one(tmp_path: Path, text: str) -> None:
    nights = Configured(tmp_path)
    nights.state.mkdir()
    (nights.state / "home.json").write_text(text)
    found = nights.status()
    assert (found.last_success, found.last_result, found.pinned) == (None, None, ())


def test_what_a_diary_holds_does_nothing_to_a_terminal(tmp_path: Path) -> None:
    nights = Configured(tmp_path)
    nights.state.mkdir()
    odd = {"pinned": ["\x1b[2J; true", "2026-11-01-020000"], "last_result": "failed"}
    (nights.state / "home.json").write_text(json.dumps(odd | {"message": "\x1b[31m\n"}))
    env = environment(MIRRORBACK_STATE_DIR=str(nights.state))
    out = run("status", "--config", nights.file, code=3, env=env).out
    assert "\x1b" not in out and "unpin home 2026-11-01-020000`" in out
    assert nights.status().pinned == (Pinned("2026-11-01-020000", "mass change"),)


def test_a_diary_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    nights = Configured(tmp_path)
    diary.update(str(tmp_path / "elsewhere"), "home", lambda page: replace(page, last_result="ok"))
    nights.state.mkdir()
    os.symlink(tmp_path / "elsewhere" / "home.json", nights.state / "home.json")
    assert nights.status().last_result is None


def test_nothing_configured_is_nothing_overdue(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("")
    assert "no backup is configured" in run("status", "--config", file).out
    assert json.loads(run("status", "--config", file, "--json").out) == []


@pytest.mark.parametrize(
    "when", ["0001-01-01T00:00:00+00:00", "0001-01-02T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]
)
def test_a_time_that_nobody_can_reckon_with_is_none(tmp_path: Path, when: str) -> None:
    nights = Configured(tmp_path, "schedule = 'daily 02:00'\n")
    nights.state.mkdir()
    keys = ("last_run", "last_success", "last_check", "told")
    (nights.state / "home.json").write_text(json.dumps(dict.fromkeys(keys, when)))
    assert nights.status().overdue
    (backup,) = load(str(nights.file), nights.now).backups
    assert is_due(backup, diary.read(str(nights.state), "home"), nights.now)
