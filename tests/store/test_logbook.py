"""Logs of runs: bounded, whole to their last line, and forgotten in time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from mirrorback.store.logbook import KEPT, LIMIT, Log, forget_old, names, read

NOW = datetime(2026, 11, 25, 2, 0, 5, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_lines_are_written_in_order_below_the_moment_of_the_run(folder: int) -> None:
    log = Log.begin(folder, NOW)
    log.line(NOW, "begins")
    log.line(NOW + timedelta(seconds=3), "ends \udcff")
    log.end()
    assert names(folder) == ["2026-11-25-020005.log"]
    assert read(folder, names(folder)[0]) == (
        b"2026-11-25 02:00:05 begins\n2026-11-25 02:00:08 ends \\udcff\n"
    )


def test_two_runs_of_one_second_have_two_logs(folder: int) -> None:
    for _ in range(3):
        Log.begin(folder, NOW).end()
    assert len(names(folder)) == 3


def test_a_log_that_is_full_has_its_last_line_all_the_same(folder: int) -> None:
    log = Log.begin(folder, NOW, 64 << 10)
    for _ in range(1000):
        log.line(NOW, "x" * 100)
    log.line(NOW, "y" * 100_000, last=True)
    log.end()
    found = read(folder, names(folder)[0])
    assert len(found) <= 64 << 10
    *_, full, last = found.splitlines()
    assert full.endswith(b"[the log is full]") and last.endswith(b"yyy")
    assert found.count(b"the log is full") == 1


def test_lines_of_several_threads_are_all_there(folder: int) -> None:
    log = Log.begin(folder, NOW)
    threads = [
        threading.Thread(target=lambda n=n: [log.line(NOW, f"{n} {i}") for i in range(300)])
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.end()
    found = read(folder, names(folder)[0]).decode().splitlines()
    wanted = {f"{n} {i}" for n in range(8) for i in range(300)}
    assert {line[20:] for line in found} == wanted and len(found) == len(wanted)


def test_where_no_log_can_be_made_lines_go_nowhere(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir(tmp_path)
    log = Log.begin(fd, NOW)
    log.line(NOW, "x")
    log.end()
    os.close(fd)


def test_a_drive_that_fails_ends_the_log_alone(folder: int) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    log = Log(full)
    log.line(NOW, "x")
    log.line(NOW, "y", last=True)
    with pytest.raises(OSError):
        os.fstat(full)


def test_old_logs_go_and_nothing_else_does(folder: int, tmp_path: Path) -> None:
    old, fresh = NOW - KEPT - timedelta(days=1), NOW - KEPT
    for moment in (old, fresh, NOW + timedelta(days=400)):
        Log.begin(folder, moment).end()
    for name in ("notes.txt", "2020-13-45-000000.log", "2020-01-01-000000.log.bak"):
        (tmp_path / name).touch()
    before = set(os.listdir(folder))
    forget_old(folder, NOW.date())
    assert before - set(os.listdir(folder)) == {f"{old:%Y-%m-%d-%H%M%S}.log"}
    forget_old(folder, date(1, 1, 1) + KEPT)


def test_what_is_no_file_is_no_log(folder: int, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    os.symlink("secret", tmp_path / "2026-01-01-000000.log")
    os.mkfifo(tmp_path / "2026-01-02-000000.log")
    (tmp_path / "2026-01-03-000000.log").mkdir()
    for name in names(folder):
        with pytest.raises(OSError):
            read(folder, name)


def test_of_a_huge_log_the_end_is_read(folder: int, tmp_path: Path) -> None:
    huge = tmp_path / "2026-01-01-000000.log"
    with huge.open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 40)
        file.write(b"the end\n")
    found = read(folder, huge.name)
    assert len(found) == LIMIT and found.endswith(b"the end\n")
