"""Hooks fail, hang and shout; the night goes on."""

from __future__ import annotations

import os
import pwd
import signal
import time
from pathlib import Path

import pytest

from mirrorback.engine.night.hooks import KEPT, run_hook

LONG = 60.0


def test_what_a_hook_prints_and_how_it_ends() -> None:
    ended = run_hook("echo out; echo err >&2; exit 3", {}, LONG)
    assert ended.code == 3 and ended.output == "out\nerr\n"
    assert ended.failed == "ended with 3"
    assert run_hook("true", {}, LONG).failed is None


def test_it_gets_its_environment() -> None:
    values = {"MIRRORBACK_NAME": "home", "MIRRORBACK_MESSAGE": "a 'b' \"c\" \udcff\nd\0"}
    ended = run_hook(
        'printf "%s|%s" "$MIRRORBACK_NAME" "$MIRRORBACK_MESSAGE" | od -An -c', values, LONG
    )
    assert "".join(ended.output.split()) == "home|a'b'\"c\"377\\nd"


def test_it_finds_by_night_what_it_finds_by_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """cron knows few folders of programs, systemd no home of root."""
    monkeypatch.setenv("PATH", "/opt/own:/usr/bin:/bin")
    monkeypatch.delenv("HOME", raising=False)
    folders, home = run_hook('echo "$PATH"; echo "$HOME"', {}, LONG).output.splitlines()
    assert folders.startswith("/opt/own:/usr/bin:/bin:")
    assert {"/usr/sbin", "/sbin", "/usr/local/bin"} <= set(folders.split(":"))
    assert home == pwd.getpwuid(os.geteuid()).pw_dir
    monkeypatch.setenv("HOME", "/elsewhere")
    assert run_hook('echo "$HOME"', {}, LONG).output == "/elsewhere\n"


def test_a_value_that_no_environment_takes_is_shortened() -> None:
    ended = run_hook("echo ${#MIRRORBACK_SUMMARY}", {"MIRRORBACK_SUMMARY": "x" * (1 << 20)}, LONG)
    assert 1 << 16 <= int(ended.output) < 1 << 17


def test_a_hook_that_hangs_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    mark = tmp_path / "child"
    began = time.monotonic()
    ended = run_hook(
        f"sleep 1000 & echo $! > '{mark}'; trap '' TERM; sleep 1000; sleep 1000", {}, 0.5
    )
    assert time.monotonic() - began < 30
    assert ended.code is None and ended.failed == "took too long, and was ended"
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(int(mark.read_text()), 0)
            time.sleep(0.1)


def test_a_hook_that_prints_megabytes_is_kept_in_bounds() -> None:
    ended = run_hook(
        "echo begin; head -c 20000000 /dev/zero | tr '\\0' x; echo; echo end", {}, LONG
    )
    assert ended.code == 0
    assert ended.output.startswith("begin\n") and ended.output.endswith("\nend\n")
    assert "bytes left out" in ended.output and len(ended.output) < 2 * KEPT + 100


def test_what_a_hook_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    mark = tmp_path / "daemon"
    began = time.monotonic()
    ended = run_hook(f"(sleep 100; echo late) & echo $! > '{mark}'; echo done", {}, LONG)
    assert ended.output == "done\n" and time.monotonic() - began < 20
    os.kill(int(mark.read_text()), signal.SIGKILL)


def test_a_hook_that_a_signal_ends() -> None:
    assert run_hook("kill -9 $$", {}, LONG).failed == "was ended by signal 9"


def test_a_hook_reads_nothing_from_a_person() -> None:
    assert run_hook("cat; echo over", {}, LONG).output == "over\n"


def test_output_that_is_no_text() -> None:
    assert run_hook(r"printf '\377\n'", {}, LONG).output == "\ufffd\n"
