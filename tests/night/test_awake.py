"""Sleep is inhibited while a backup runs, no longer, and never at its cost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mirrorback.engine.night import awake as module
from mirrorback.engine.night.awake import awake


def holder(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """What holds the system awake, as a script that reads to the end of its input."""
    monkeypatch.setattr(module, "_command", lambda: ["sh", "-c", script])


def wait_for(path: Path) -> None:
    for _ in range(200):
        if path.exists():
            return
        time.sleep(0.05)
    pytest.fail(f"{path} is not there")


def test_it_lasts_as_long_as_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    holder(monkeypatch, f"touch {begun}; cat; touch {ended}")
    with awake():
        wait_for(begun)
        assert not ended.exists()
    assert ended.exists()
    with pytest.raises(ZeroDivisionError), awake():
        ended.unlink()
        raise ZeroDivisionError
    assert ended.exists()


@pytest.mark.parametrize("script", ["exit 1", "exec 0<&-; trap '' TERM; sleep 1000"])
def test_one_that_is_refused_or_hangs_is_no_matter(
    monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    holder(monkeypatch, script)
    began = time.monotonic()
    with awake():
        time.sleep(0.1)
    assert time.monotonic() - began < 20


def test_one_that_is_not_there_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_command", lambda: ["/nonexistent"])
    with awake():
        pass
    monkeypatch.setattr(module, "_command", lambda: None)
    with awake():
        pass


def test_it_does_not_outlive_us(tmp_path: Path) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    code = (
        "import os, signal, sys, time\n"
        "from mirrorback.engine.night import awake\n"
        f"awake._command = lambda: ['sh', '-c', 'touch {begun}; cat; touch {ended}']\n"
        "with awake.awake():\n"
        f"    while not os.path.exists({str(begun)!r}): time.sleep(0.05)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60)
    wait_for(ended)


def test_here_it_is_systemd_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os.path, "isdir", lambda path: path == "/run/systemd/system")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    command = module._command()
    assert command is not None and command[0] == "systemd-inhibit" and command[-1] == "cat"
    assert "--what=sleep" in command
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert module._command() is None
    monkeypatch.setattr(sys, "platform", "darwin")
    assert module._command() == ["caffeinate", "-i", "cat"]
