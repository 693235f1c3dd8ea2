"""Nights on which things go wrong: signals, drives that go, clocks that are set, other runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from filesystems import mounted, require_root
from homes import NOW, Home
from program import run, start

from mirrorback.engine.backup import BackupResult, backup


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("MIRRORBACK_STATE_DIR", str(tmp_path / "state"))
    return Home(tmp_path)


def second(home: Home) -> Path:
    """Another configured backup of the same source."""
    other = home.top / "other"
    run("init", other, "--source", home.source, "--name", "other", "--config", home.file)
    return other


# --- signals --------------------------------------------------------------------------------


def test_a_signal_ends_the_run_and_no_other_backup_begins(home: Home) -> None:
    mark = home.top / "after"
    home.add(f"before = 'kill -TERM $PPID; sleep 60'\nafter = 'touch {mark}'\nnotify = false")
    other = second(home)
    done = run("run", "--config", home.file, code=143)
    assert "interrupted" in done.err
    assert not (other / "current").exists()
    assert not mark.exists()  # it had not begun
    assert home.page().last_result == "failed"
    assert home.page().message == "interrupted; the next run goes on from there"
    assert (
        home.logs()[0]
        .splitlines()[-1]
        .endswith("failed: interrupted; the next run goes on from there")
    )


def test_a_run_that_was_interrupted_is_made_up_for(home: Home) -> None:
    """The machine was shut down in the middle of it."""
    home.add("schedule = 'daily 02:00'\nbefore = 'kill -TERM $PPID; sleep 60'\nnotify = false")
    run("run", "--config", home.file, code=143)
    assert home.page().last_result == "failed"
    home.now = datetime.now(UTC)
    home.file.write_text(home.file.read_text().replace("kill", "true"))
    assert home.again(if_due=True).result == "ok"
    assert home.again(if_due=True).result == "skipped"


def test_after_an_interruption_what_before_has_begun_is_ended_and_heeds_signals(
    home: Home,
) -> None:
    """`after` is run, does not inherit that signals are ignored, and is not waited for long."""
    said = home.top / "said"
    home.add(
        f"before = 'echo before >> {said}'\n"
        f'after = \'echo $MIRRORBACK_RESULT >> {said}; trap "echo asked >> {said}; exit 1" TERM;'
        " kill -TERM $$; sleep 1000'\n"
        "exclude-from = '/dev/stdin'\nnotify = false"
    )
    process = start("run", "home", "--config", home.file, stdin=subprocess.PIPE)
    # The patterns never end: this is somewhere in the middle of the backup.
    for _ in range(600):
        if said.exists():
            break
        time.sleep(0.1)
    time.sleep(0.5)
    process.terminate()
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert said.read_text() == "before\nfailed\nasked\n"


# --- drives that come and go ----------------------------------------------------------------


@pytest.fixture
def drive(home: Home) -> Iterator[Path]:
    """A repository on a drive of its own, with a night in it."""
    require_root()
    with mounted("ext4", home.top / "loop", size=64 << 20) as point:
        run("init", point / "r", "--source", home.source, "--name", "away", "--config", home.file)
        assert home.night("away").result == "ok"
        yield point


def test_a_drive_that_goes_in_the_middle_leaves_nothing_where_it_was(
    home: Home, drive: Path
) -> None:
    home.add(f"before = 'umount --lazy {drive}'")
    (home.source / "b").write_text("b")
    outcome = home.night("away")
    assert (outcome.result, outcome.code) == ("failed", 10)
    assert list(drive.iterdir()) == []  # nothing on the disk below
    subprocess.run(["mount", "-o", "loop", str(home.top / "loop/ext4.img"), str(drive)], check=True)
    assert {p.name for p in (drive / "r/current").iterdir()} == {"a"}


def test_a_drive_that_is_exchanged_in_the_middle_is_not_written_to(home: Home, drive: Path) -> None:
    """The guard looks at what is there when the backup begins, not when the night did."""
    stranger = home.top / "stranger"
    run("init", stranger, "--source", home.source)
    home.add(
        f"before = 'umount --lazy {drive} && mkdir {drive}/r && mount --bind {stranger} {drive}/r'"
    )
    try:
        outcome = home.night("away")
    finally:
        subprocess.run(["umount", f"{drive}/r"], check=True)
        os.rmdir(drive / "r")
        subprocess.run(
            ["mount", "-o", "loop", str(home.top / "loop/ext4.img"), str(drive)], check=True
        )
    assert (outcome.result, outcome.code) == ("failed", 5)
    assert "another repository" in outcome.message
    assert not (stranger / "current").exists()


def test_a_drive_that_is_exchanged_after_the_backup_is_not_verified_for_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.add("verify = '10s'")
    stranger = home.top / "stranger"
    run("init", stranger, "--source", home.source)

    def made(*arguments: Any) -> BackupResult:
        result = backup(*arguments)
        home.repository.rename(home.top / "unplugged")
        stranger.rename(home.repository)
        return result

    monkeypatch.setattr("mirrorback.engine.night.nightly.backup", made)
    outcome = home.night()
    assert outcome.code == 5 and "another repository" in outcome.message
    assert outcome.summary is not None and home.page().last_success is not None


def test_a_drive_that_fails_does_not_stop_the_others(home: Home, drive: Path) -> None:
    """The file system shuts itself down while the hook runs: all that is asked of it is EIO."""
    hook = home.top / "hook.py"
    hook.write_text(
        "import fcntl, os, struct\n"
        f"fd = os.open({str(drive)!r}, os.O_RDONLY)\n"
        "fcntl.ioctl(fd, 0x8004587D, struct.pack('I', 2))\n"  # EXT4_IOC_SHUTDOWN
    )
    home.add(f"before = '{sys.executable} {hook}'")
    (home.source / "b").write_text("b")
    outcome = home.night("away")
    assert outcome.result == "failed" and "put/output error" in outcome.message
    assert home.again("away", if_present=True).result == "failed"
    assert home.again().result == "ok"


def test_a_drive_that_comes_late_is_not_missed(home: Home) -> None:
    home.add("schedule = 'daily'")
    away = home.repository.rename(home.top / "unplugged")
    for _ in range(3):
        home.now += timedelta(hours=1)
        assert home.again(if_present=True, if_due=True).result == "skipped"
    away.rename(home.repository)
    home.now += timedelta(hours=1)
    assert home.again(if_present=True, if_due=True).result == "ok"
    home.now += timedelta(hours=1)
    assert home.again(if_present=True, if_due=True).message == "is not due yet"


def test_trouble_is_not_taken_for_a_drive_that_is_not_there(home: Home) -> None:
    looped = home.top / "looped"
    looped.symlink_to(looped)
    text = home.file.read_text().replace(str(home.repository), str(looped))
    home.file.write_text(text)
    outcome = home.night(if_present=True)
    assert (outcome.result, outcome.code) == ("failed", 10)
    looped.unlink()
    assert home.night(if_present=True).result == "skipped"


def test_a_failure_before_the_drive_is_open_is_told_too(home: Home) -> None:
    told = home.top / "told"
    home.add(f"on-failure = 'echo $MIRRORBACK_RESULT $MIRRORBACK_MESSAGE > {told}'")
    home.repository.rename(home.top / "unplugged")
    assert home.night().code == 10
    assert told.read_text().startswith("failed there is no repository at")


# --- what is no failure of ours to foresee ---------------------------------------------------


def test_an_error_of_ours_is_a_failure_and_no_more(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("mirrorback.engine.night.nightly.backup", broken)
    told = home.top / "told"
    home.add(f"after = 'touch {told}'")
    outcome = home.night()
    assert (outcome.code, outcome.message) == (1, "internal error: ZeroDivisionError: oh")
    assert told.exists() and home.page().last_result == "failed"


def test_a_hook_that_cannot_be_started_is_a_failure(home: Home) -> None:
    home.add(f"before = 'true {'x' * 200_000}'")
    outcome = home.night()
    assert outcome.code == 1 and outcome.message.startswith("before cannot be started: ")
    assert home.page().last_result == "failed"


def test_a_hook_has_the_time_that_is_configured(home: Home) -> None:
    left = home.top / "left"
    home.add(f"hook-timeout = '1s'\nbefore = 'sleep 1000 & echo $! > {left}; echo working; wait'")
    began = time.monotonic()
    outcome = home.night()
    assert time.monotonic() - began < 20
    assert outcome.message == "before took too long, and was ended: working"
    assert not os.path.exists(f"/proc/{left.read_text().strip()}/exe")


def test_a_hook_that_shouts_does_not_fill_the_drive(home: Home) -> None:
    home.add("before = 'yes | head -c 50000000; echo the end'")
    assert home.night().result == "ok"
    (log,) = home.logs()
    assert len(log) < 1 << 20 and "bytes left out" in log and "the end" in log
    assert "ok: made" in log.splitlines()[-1]


def test_of_a_long_last_line_a_part_is_told(home: Home) -> None:
    home.add("before = 'printf %030000d 7; exit 1'")
    message = home.night().message
    assert message.startswith("before ended with 1: 0000") and len(message) < 300


def test_a_log_shows_what_others_wrote_as_harmless_lines(home: Home) -> None:
    home.add(r"before = '''printf 'a\033[2Jb\r\nok: made up\n' '''")
    assert home.night().result == "ok"
    (log,) = home.logs()
    assert "\x1b" not in log and "a?[2Jb" in log
    assert all(line[:10].count("-") == 2 for line in log.splitlines())


# --- two runs at a time ----------------------------------------------------------------------


@contextlib.contextmanager
def held(home: Home) -> Iterator[int]:
    """Another run holds the repository."""
    fd = os.open(home.repository / ".mirrorback/lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield fd
    finally:
        os.close(fd)


def test_a_look_for_what_was_missed_leaves_a_run_that_goes_on_alone(home: Home) -> None:
    home.add(f"schedule = 'daily'\non-failure = 'touch {home.top}/told'")
    with held(home):
        outcome = home.night(if_due=True)
        assert (outcome.result, outcome.code) == ("skipped", 0)
        assert home.page().last_result is None and not (home.top / "told").exists()
    assert home.again(if_due=True).result == "ok"


def test_another_run_is_waited_for(home: Home) -> None:
    with held(home) as fd:
        threading.Timer(1.5, lambda: fcntl.flock(fd, fcntl.LOCK_UN)).start()
        outcome = home.night(wait=timedelta(seconds=60))
    assert outcome.result == "ok"
    assert "another run holds the repository" in home.heard.warnings[0][0]


def test_a_run_that_was_waited_for_may_have_done_it(home: Home) -> None:
    home.add("schedule = 'daily'")
    assert home.night().result == "ok"
    home.now += timedelta(days=1)
    with held(home) as fd:

        def other() -> None:
            time.sleep(1)
            fcntl.flock(fd, fcntl.LOCK_UN)

        thread = threading.Thread(target=other)
        thread.start()
        assert home.again(wait=timedelta(seconds=60), if_due=True).result == "ok"
        thread.join()
    assert home.again(wait=timedelta(seconds=60), if_due=True).result == "skipped"


def test_waiting_has_an_end(home: Home) -> None:
    with held(home):
        assert home.night(wait=timedelta(seconds=1.5)).code == 11


def test_two_timers_on_one_drive_run_one_after_the_other(home: Home) -> None:
    other = second(home)
    marks = home.top / "marks"
    hook = f"before = 'echo begins >> {marks}; sleep 2; echo ends >> {marks}'"
    text = home.file.read_text()
    for name in ("home", "other"):
        text = text.replace(f"[backup.{name}]\n", f"[backup.{name}]\n{hook}\n")
    home.file.write_text(text)
    runs = [start("run", name, "--config", home.file, "--wait", "1m") for name in ("home", "other")]
    ended = [one.communicate(timeout=100) for one in runs]
    assert [one.returncode for one in runs] == [0, 0], ended
    assert [err for _out, err in ended] == [b"", b""]
    logs = [*home.logs(), *(p.read_text() for p in (other / ".mirrorback/log").iterdir())]
    assert sum("another run works on this drive" in log for log in logs) == 1
    assert marks.read_text().split() == ["begins", "ends"] * 2


def test_a_run_that_nobody_told_to_wait_runs_beside_another(home: Home) -> None:
    assert home.night().result == "ok"
    second(home)
    (lock,) = (home.state / "turns").iterdir()
    with lock.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert home.again("other").result == "ok"
        assert home.again("other", wait=timedelta(seconds=1)).result == "ok"
        assert home.night("other", if_due=True).result == "skipped"  # it will be looked for again


# --- clocks ----------------------------------------------------------------------------------


def test_a_clock_that_was_a_year_ahead(home: Home) -> None:
    home.now = NOW + timedelta(days=365)
    assert home.night().result == "ok"
    home.now = NOW
    assert home.status().overdue  # nobody knows when that was
    outcome = home.night()
    assert outcome.message == "nothing changed"
    found = home.status()
    assert not found.overdue and found.last_check == home.now
    (home.source / "a").write_text("new")
    assert home.night().result == "ok"
    found = home.status()
    assert not found.overdue and found.last_success == home.now
    home.repository.rename(home.top / "unplugged")
    found = home.status()  # by the diary alone
    assert not found.overdue and found.last_success == home.now
    home.now += timedelta(days=4)
    assert home.status().overdue


def test_a_night_that_is_due_by_a_clock_that_was_set_back(home: Home) -> None:
    home.add("schedule = 'daily'")
    home.now = NOW + timedelta(days=365)
    assert home.night(if_due=True).result == "ok"
    home.now = NOW
    assert home.night(if_due=True).result == "ok"
    assert home.again(if_due=True).result == "skipped"


# --- the diary -------------------------------------------------------------------------------


def test_a_page_of_another_repository_is_not_carried_on(home: Home) -> None:
    """The drive was given up for a new one, whose first night fails."""
    assert home.night().result == "ok"
    home.repository.rename(home.top / "old")
    run("init", home.repository, "--source", home.source)
    lines = home.file.read_text().splitlines()
    home.file.write_text("\n".join(n for n in lines if "repository-id" not in n) + "\n")
    home.add("before = 'false'")
    assert home.night().result == "failed"
    assert home.page().last_success is None
    home.repository.rename(home.top / "new")
    assert home.status().last_success is None


def test_a_diary_that_cannot_be_written_stops_nothing(home: Home) -> None:
    home.state.write_text("in the way")
    assert home.night().result == "ok"
    ((said, _path),) = home.heard.warnings
    assert f"cannot be remembered in {home.state}: File exists" in said
    assert home.night(wait=timedelta(seconds=1)).result == "ok"
    assert not home.status().overdue
