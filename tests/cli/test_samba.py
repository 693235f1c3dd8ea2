"""The shares of docs/samba.md, read from there, with a real smbd and smbclient."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from filesystems import require_root
from mounts import let_others_in, mounted, require_fuse
from program import environment
from recipes import page
from runs import IMAGE, LargeNights, Nights, change_pages

TEXT = "\n".join(text for language, text in page("samba.md").blocks if language == "ini")
SHARES = dict(re.findall(r"^\[(\w+)\]\n(.*?)(?=^\[|\Z)", TEXT, re.MULTILINE | re.DOTALL))
ZONE = ZoneInfo("Europe/Berlin")  # the one of `environment`
GLOBAL = """
[global]
    private dir = {state}
    lock directory = {state}
    state directory = {state}
    cache directory = {state}
    pid directory = {state}
    ncalrpc dir = {state}/rpc
    log file = {state}/log
    interfaces = 127.0.0.1
    bind interfaces only = yes
    smb ports = {port}
    map to guest = Bad User
    guest account = nobody
    guest ok = yes
    load printers = no
    disable spoolss = yes
"""


class Server:
    """A running smbd with the shares of the page."""

    def __init__(self, port: int) -> None:
        self._port = port

    def says(self, share: str, commands: str, code: int | None = 0) -> str:
        """What smbclient says to some commands."""
        done = subprocess.run(
            [
                "smbclient",
                f"//127.0.0.1/{share}",
                "-p",
                str(self._port),
                "-N",
                "-s",
                "/dev/null",
                "-c",
                commands,
            ],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=60,
        )
        if code is not None:
            assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def versions(self, share: str, path: str) -> list[str]:
        """The previous versions of a path, as the protocol names them, newest first."""
        return re.findall(r"^@GMT-\S+$", self.says(share, f'allinfo "{path}"'), re.MULTILINE)

    def get(self, share: str, path: str, to: Path) -> bytes:
        """The content of a file."""
        self.says(share, f'get "{path}" "{to}"')
        return to.read_bytes()


@contextlib.contextmanager
def serving(folder: Path, nights: Nights, snapdir: Path | None = None) -> Iterator[Server]:
    """Serve a source and its repository as the page says."""
    if shutil.which("smbd") is None or shutil.which("smbclient") is None:
        pytest.fail("samba or smbclient is not installed; .ci/run lists what the tests need")
    state = folder / "smb"
    (state / "rpc").mkdir(parents=True)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    text = TEXT
    if snapdir is not None:
        text = text.replace("snapdir = /mnt/backup/alice", f"snapdir = {snapdir}")
    text = text.replace("/srv/alice", str(nights.source))
    text = text.replace("/mnt/backup/alice", str(nights.repository))
    (state / "smb.conf").write_text(GLOBAL.format(state=state, port=port) + text)
    for needed in (nights.source, folder):
        let_others_in(needed)
    process = subprocess.Popen(
        ["smbd", "--foreground", "--no-process-group", "-s", state / "smb.conf"],
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert time.monotonic() < until and process.poll() is None, "smbd does not answer"
            time.sleep(0.1)
        yield Server(port)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


@pytest.fixture
def three(nights: Nights) -> Nights:
    """Three nights, of which one is in summer time."""
    require_root()
    letters = nights.source / "Documents" / "Müller & Co"
    letters.mkdir(parents=True)
    (nights.source / "same").write_text("never changes")
    for number, now in enumerate(((2026, 7, 1, 2, 0), (2026, 10, 31, 23, 5), (2026, 11, 2, 2, 0))):
        (letters / "a letter.txt").write_text(f"version {number}")
        if number == 2:
            (nights.source / "gone").unlink()
        else:
            (nights.source / "gone").write_text("soon")
        nights.now = datetime(*now, 7, tzinfo=ZONE)
        # `backup` makes it a day later.
        nights.backup(mode=0o755)
    return nights


LETTER = "Documents\\Müller & Co\\a letter.txt"
TIMES = ["@GMT-2026.11.01-22.05.07", "@GMT-2026.07.02-00.00.07"]


@pytest.mark.parametrize("share", SHARES)
def test_previous_versions_are_listed_and_fetched(
    tmp_path: Path, three: Nights, share: str
) -> None:
    assert [path.name for path in three.folders()] == ["2026-07-02-020007", "2026-11-01-230507"]
    with serving(tmp_path, three) as server:
        assert server.versions(share, LETTER) == TIMES
        assert server.get(share, LETTER, tmp_path / "now") == b"version 2"
        for number, when in enumerate(reversed(TIMES)):
            old = server.get(share, f"{when}\\{LETTER}", tmp_path / "old")
            assert old == f"version {number}".encode()
        # A folder as it was, with what has been removed since.
        assert "gone" not in server.says(share, "ls")
        listed = server.says(share, f"ls {TIMES[1]}\\*")
        assert " gone " in listed and " Documents " in listed
        assert ".mirrorback" not in listed
        assert server.get(share, f"{TIMES[0]}\\gone", tmp_path / "gone") == b"soon"


def test_only_a_part_of_the_source_may_be_shared(tmp_path: Path, three: Nights) -> None:
    with serving(tmp_path, three) as server:
        config = tmp_path / "smb" / "smb.conf"
        text = config.read_text()
        whole = f"path = {three.source}\n"
        assert text.count(whole) == 1
        config.write_text(text.replace(whole, f"path = {three.source}/Documents\n"))
        # A new connection reads it anew.
        letter = LETTER.removeprefix("Documents\\")
        assert server.versions("alice", letter) == TIMES
        old = server.get("alice", f"{TIMES[1]}\\{letter}", tmp_path / "old")
        assert old == b"version 0"


@pytest.mark.parametrize("share", SHARES)
def test_nothing_old_can_be_written_or_removed(tmp_path: Path, three: Nights, share: str) -> None:
    (three.source).chmod(0o777)
    for folder in three.folders():
        folder.chmod(0o777)  # whatever a folder allowed then
    (tmp_path / "mine").write_text("not history")
    with serving(tmp_path, three) as server:
        for commands in (
            f'put "{tmp_path}/mine" "{TIMES[0]}\\gone"',
            f'put "{tmp_path}/mine" "{TIMES[0]}\\new"',
            f'del "{TIMES[0]}\\gone"',
            f'mkdir "{TIMES[0]}\\made"',
            f'rename "{TIMES[0]}\\gone" "{TIMES[0]}\\renamed"',
        ):
            said = server.says(share, commands, code=None)
            assert "NT_STATUS" in said, (commands, said)
        listed = sorted(os.listdir(three.folders()[1]))
        assert listed == ["Documents", "gone", "same"]
        assert (three.folders()[1] / "gone").read_text() == "soon"
        if share == "alice":  # what is live may be written
            server.says(share, f'put "{tmp_path}/mine" new')
            assert (three.source / "new").read_text() == "not history"


def test_a_closed_repository_shows_nothing(tmp_path: Path, three: Nights) -> None:
    with serving(tmp_path, three) as server:
        three.repository.chmod(0o700)
        assert server.versions("alice", LETTER) == []
        three.repository.chmod(0o755)
        assert server.versions("alice", LETTER) == TIMES


def test_large_files_are_whole_through_the_mounted_view(
    tmp_path: Path, large: LargeNights, image: Path
) -> None:
    require_root()
    require_fuse()
    image.chmod(0o644)
    first = image.read_bytes()
    large.now = datetime(2026, 11, 20, 2, 0, tzinfo=ZONE)
    large.backup(mode=0o755)
    change_pages(image, 7)
    large.backup()
    (folder,) = large.folders()
    assert os.listdir(folder / "d") == ["image.rdiff.zst"]
    let_others_in(tmp_path)
    with (
        mounted(large.repository, tmp_path / "view", "--allow-other"),
        serving(tmp_path, large, tmp_path / "view") as server,
    ):
        (when,) = server.versions("alice", "d\\image")
        assert when == "@GMT-2026.11.21-01.00.00"
        old = server.get("alice", f"{when}\\d\\image", tmp_path / "old")
        assert len(old) == IMAGE and old == first
        assert server.get("alice", "d\\image", tmp_path / "now") == image.read_bytes() != first
