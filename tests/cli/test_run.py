"""`run`: the configured backups, with hooks, failures and drives that come and go."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from homes import NOW, Home
from program import Done, complaint, environment, run

from mirrorback.engine.night import diary
from mirrorback.engine.night.configuration import load
from mirrorback.engine.night.diary import Page
from mirrorback.engine.night.outcome import worst
from mirrorback.engine.night.running import is_due


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_night_and_one_with_nothing_new(home: Home) -> None:
    first = home.night()
    assert (first.result, first.code) == ("ok", 0) and first.message.startswith("made 2026-11-26")
    page = diary.read(str(home.state), "home")
    assert page.last_success == home.now.isoformat() and page.last_check is None
    second = home.night()
    assert second.message == "nothing changed"
    page = diary.read(str(home.state), "home")
    assert page.last_check == home.now.isoformat() and page.last_result == "ok"
    assert len(home.logs()) == 2 and "ok: nothing changed" in home.logs()[1]


def test_it_thins_by_the_policy_and_verifies(home: Home) -> None:
    home.add('keep-last = 2\nverify = "10s"')
    for number in range(4):
        (home.source / "a").write_text(f"night {number}")
        assert home.night().result == "ok"
    folders = [p.name for p in home.repository.iterdir() if p.name.startswith("20")]
    assert len(folders) == 1
    (home.repository / "current" / "a").write_text("an edit by hand")
    (home.source / "b").write_text("b")
    outcome = home.night()
    assert (outcome.result, outcome.code) == ("failed", 4)
    assert "mirrorback repair home" in outcome.message


def test_the_hooks_know_what_came_of_it(home: Home) -> None:
    told = home.top / "told"
    show = f"echo $MIRRORBACK_NAME,$MIRRORBACK_RESULT >> {told}"
    home.add(
        f"before = 'echo hello; {show}'\n"
        f"after = '{show}; echo \"$MIRRORBACK_SUMMARY\" > {home.top}/summary'\n"
        f"on-failure = 'echo never >> {told}'"
    )
    assert home.night().result == "ok"
    assert told.read_text() == "home,\nhome,ok\n"
    assert json.loads((home.top / "summary").read_text())["files_new"] == 1
    assert "hello" in home.logs()[0]


def test_a_before_that_fails_stops_the_backup(home: Home) -> None:
    told = home.top / "told"
    home.add(f"before = 'echo no disk; exit 7'\nafter = 'echo after >> {told}'")
    home.add(f"on-failure = 'echo $MIRRORBACK_RESULT: $MIRRORBACK_MESSAGE >> {told}'")
    outcome = home.night()
    assert (outcome.result, outcome.code) == ("failed", 1)
    assert outcome.message == "before ended with 7: no disk"
    assert told.read_text() == "failed: before ended with 7: no disk\n"
    assert not (home.repository / "current").exists()


def test_an_after_that_fails_is_a_failure_but_the_backup_stands(home: Home) -> None:
    home.add("after = 'false'")
    outcome = home.night()
    assert (outcome.result, outcome.message) == ("failed", "after ended with 1")
    assert (home.repository / "current" / "a").read_text() == "a"
    assert diary.read(str(home.state), "home").last_success == home.now.isoformat()


def test_after_runs_also_where_the_backup_failed(home: Home) -> None:
    told = home.top / "told"
    home.add(f"after = 'echo $MIRRORBACK_RESULT > {told}'")
    assert home.night().result == "ok"
    (home.source / "a").unlink()
    outcome = home.night()
    assert (outcome.result, outcome.code) == ("failed", 5)
    assert told.read_text() == "failed\n"


def test_a_lock_that_is_held_lets_no_hook_run(home: Home) -> None:
    home.add(f"before = 'touch {home.top}/ran'")
    fd = os.open(home.repository / ".mirrorback/lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    outcome = home.night()
    os.close(fd)
    assert outcome.code == 11 and not (home.top / "ran").exists()
    assert home.night().result == "ok"


def test_a_drive_that_is_away(home: Home) -> None:
    home.repository.rename(home.top / "unplugged")
    assert home.night().code == 10
    assert diary.read(str(home.state), "home").last_result == "failed"
    skipped = home.night(if_present=True)
    assert (skipped.result, skipped.code) == ("skipped", 0)


def test_what_has_run_since_is_not_due(home: Home) -> None:
    home.add('schedule = "daily 02:00"')
    (backup,) = load(str(home.file), NOW).backups
    page = Page("home", last_run=NOW.isoformat())
    assert not is_due(backup, page, NOW + timedelta(hours=23))
    assert is_due(backup, page, NOW + timedelta(hours=24))
    assert is_due(backup, Page("home"), NOW)
    assert is_due(backup, Page("home", last_run="long ago"), NOW)
    assert is_due(backup, Page("home", last_run=(NOW + timedelta(days=400)).isoformat()), NOW)
    assert home.night(if_due=True).result == "ok"
    home.now -= timedelta(hours=23)
    assert home.night(if_due=True).result == "skipped"
    assert home.night(if_due=True).result == "ok"


def test_the_worst_code_counts() -> None:
    assert worst([]) == 0
    assert worst([0, 3, 0]) == 3
    assert worst([3, 10, 11]) == 10
    assert worst([12, 1, 4]) == 4


def ended(home: Home, *arguments: str, code: int) -> Done:
    return run("run", *arguments, "--config", home.file, code=code)


def test_one_that_fails_does_not_stop_the_others(home: Home) -> None:
    home.add(f"[backup.away]\nsource = '{home.source}'\nrepository = '{home.top}/none'")
    home.add("[backup.wrong]\nsorce = 'x'")
    done = ended(home, code=2)
    assert "home: ok: made " in done.out
    assert "away: there is no repository" in done.err
    assert "unknown key 'sorce'" in done.err
    done = ended(home, "home", "home", code=0)
    assert done.out == "home: ok: nothing changed\n" and done.err == ""
    last = ended(home, "home", "--json", code=0).messages[-1]
    assert (last["message_type"], last["name"], last["result"]) == ("result", "home", "ok")
    assert last["summary"]["unchanged"] is True
    assert ended(home, "away", "--if-present", code=0).out == ""
    told = complaint("run", "wrong", "--config", home.file, code=2)
    assert "'wrong' has no repository" in told


def test_two_backups_in_one_repository_do_not_take_turns(home: Home) -> None:
    """The second would take all files of the first for removed."""
    (home.top / "other").mkdir()
    (home.top / "other" / "b").write_text("b")
    home.add(f"[backup.other]\nsource = '{home.top}/other'\nrepository = '{home.repository}/'")
    done = ended(home, code=2)
    assert "home: ok: made " in done.out and "'home' has the same" in done.err
    assert [p.name for p in (home.repository / "current").iterdir()] == ["a"]
    assert "'home' has the same" in complaint("run", "other", "--config", home.file, code=2)


def test_nothing_configured(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("")
    assert "no backup is configured" in complaint("run", "--config", file, code=2)


@pytest.mark.skipif(sys.platform != "linux", reason="its desktops have notify-send")
def test_a_mistake_in_the_configuration_is_shown_where_nobody_watches(home: Home) -> None:
    shown, program = home.top / "shown", home.top / "notify-send"
    program.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >>{shown}\n')
    program.chmod(0o755)
    env = environment(PATH=f"{home.top}:{os.environ['PATH']}")
    home.add("keep-dayly = 3")
    run("run", "home", "--config", home.file, env=env, code=2)
    assert "|backups are not made|" in shown.read_text()
    assert "unknown key 'keep-dayly'" in shown.read_text()
