"""Signals and kills: the exit code, what is left, and how the next run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from program import PROGRAM, environment, run
from trees import describe, require_same


def fill(source: Path, count: int = 300, size: int = 200_000) -> None:
    for number in range(count):
        folder = source / f"d{number % 20}"
        folder.mkdir(exist_ok=True)
        (folder / f"f{number}").write_bytes(os.urandom(100) + bytes([number % 251]) * size)


def copies(repository: Path) -> int:
    """Files in the snapshot that is being built."""
    incoming = repository / ".mirrorback" / "incoming"
    return sum(len(files) for _top, _folders, files in os.walk(incoming))


def begun(source: Path, repository: Path, least: int = 60) -> subprocess.Popen[bytes]:
    """A first backup in the middle of its work, with so many files begun, and stopped
    (SIGSTOP) there, however fast or busy the machine is."""
    process = subprocess.Popen(
        [PROGRAM, "backup", "--init", source, repository],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )
    until = time.monotonic() + 60
    while time.monotonic() < until:
        os.killpg(process.pid, signal.SIGSTOP)
        if copies(repository) >= least:
            return process
        os.killpg(process.pid, signal.SIGCONT)
        time.sleep(0.005)
    process.kill()
    pytest.fail("the backup did not begin")


def signalled(process: subprocess.Popen[bytes], number: signal.Signals) -> tuple[bytes, bytes]:
    """Send a signal to a backup that `begun` has stopped, and let it go on to its end;
    what it printed."""
    process.send_signal(number)
    os.killpg(process.pid, signal.SIGCONT)
    return process.communicate(timeout=60)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_it_cleanly(
    source: Path, repository: Path, number: signal.Signals, code: int
) -> None:
    fill(source)
    process = begun(source, repository)
    out, err = signalled(process, number)
    assert process.returncode == code
    assert out == b""
    assert len(err.decode().splitlines()) == 1 and b"next run" in err
    assert not (repository / "current").exists()
    run("backup", source, repository)
    require_same(describe(source), describe(repository / "current"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_an_interrupted_first_backup_does_not_start_over(
    source: Path, repository: Path, how: signal.Signals
) -> None:
    fill(source)
    process = begun(source, repository, 150)
    signalled(process, how)
    done = run("backup", source, repository, "--json")
    total = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    assert done.summary["files_new"] == 300
    assert done.summary["bytes_copied"] < total * 0.6
    require_same(describe(source), describe(repository / "current"))
    assert list((repository / ".mirrorback" / "trash").iterdir()) == []
    run("verify", repository)


def test_what_was_half_copied_is_not_taken_up(source: Path, repository: Path) -> None:
    """Size and time alone do not prove a copy."""
    fill(source, 40)
    process = begun(source, repository, 20)
    process.kill()
    process.communicate()
    incoming = repository / ".mirrorback" / "incoming"
    altered = 0
    for path in incoming.rglob("f*"):
        origin = source / path.relative_to(incoming)
        st = path.stat()
        if st.st_size == origin.stat().st_size and st.st_mtime_ns == origin.stat().st_mtime_ns:
            with path.open("r+b") as file:
                file.seek(1000)
                file.write(b"garbage")
            os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
            altered += 1
    assert altered
    run("backup", source, repository)
    require_same(describe(source), describe(repository / "current"))


def test_many_files_are_copied_by_helpers_and_killed_with_them(
    source: Path, repository: Path
) -> None:
    fill(source, 3500, 20_000)
    process = begun(source, repository, 500)
    helpers = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True
    ).stdout.split()
    assert helpers
    signalled(process, signal.SIGTERM)
    assert process.returncode == 143
    for helper in helpers:
        assert not Path(f"/proc/{helper}").exists()
    done = run("backup", source, repository, "--json")
    assert done.summary["files_new"] == 3500
    require_same(describe(source), describe(repository / "current"))
    run("verify", repository)


def test_a_helper_that_is_killed_fails_the_run_alone(source: Path, repository: Path) -> None:
    fill(source, 3500, 20_000)
    process = begun(source, repository, 300)
    subprocess.run(["pkill", "-KILL", "-P", str(process.pid)], check=True)
    _out, err = signalled(process, signal.SIGCONT)
    assert process.returncode == 1
    assert len(err.decode().splitlines()) == 1
    run("backup", source, repository)
    require_same(describe(source), describe(repository / "current"))


def test_a_closed_pipe_ends_a_listing_quietly(source: Path, repository: Path) -> None:
    for number in range(5000):
        (source / f"file-with-a-long-name-{number}").touch()
    run("backup", "--init", source, repository)
    process = subprocess.Popen(
        [PROGRAM, "ls", repository],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 141
    assert err == b""


def test_a_backup_whose_reader_went_away_goes_on(source: Path, repository: Path) -> None:
    fill(source, 50, 1000)
    process = subprocess.Popen(
        [PROGRAM, "backup", "--init", "--json", "-v", source, repository],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    assert process.stdout is not None
    process.stdout.close()
    process.wait(60)
    require_same(describe(source), describe(repository / "current"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_temporary_folder(source: Path, repository: Path, tmp_path: Path) -> None:
    fill(source, 20, 1000)
    tiny = tmp_path / "tiny"
    tiny.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", tiny], check=True)
    try:
        (tiny / "full").write_bytes(b"x" * 4096)
        env = environment(TMPDIR=str(tiny), SQLITE_TMPDIR=str(tiny))
        run("backup", "--init", source, repository, env=env)
        run("diff", repository, "0B", env=env)
        run("verify", repository, env=env)
        (source / "new").write_text("x")
        done = run("backup", "--dry-run", "--json", source, repository, env=env)
        assert json.loads(done.out.splitlines()[-1])["files_new"] == 1
    finally:
        subprocess.run(["umount", tiny], check=True)
