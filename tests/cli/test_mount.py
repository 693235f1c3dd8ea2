"""`mount`, as a person meets it: the installed program, and the kernel between."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounts import is_mounted, let_others_in, mounted, require_fuse, server, unmount, wait_for
from program import NOBODY, PROGRAM, complaint, environment, run, start
from runs import Nights
from trees import Tree, describe, require_same

SOON_S = 2.0  # within which changes are to show
SLACK_S = 1.5  # for a busy machine
ACL = bytes.fromhex("02000000" "01000600ffffffff" "02000400e8030000" "04000400ffffffff"
                    "10000400ffffffff" "20000000ffffffff")  # fmt: skip


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    """An empty folder, on which nothing is mounted in the end."""
    require_fuse()
    folder = tmp_path / "point"
    folder.mkdir()
    yield folder
    if is_mounted(folder):
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def small(nights: Nights) -> Nights:
    """A night."""
    (nights.source / "f").write_text("one")
    nights.backup()
    return nights


def write_all_kinds(source: Path) -> None:
    top = os.fsencode(source)
    for name in (b"latin1-\xe9\xff", b"new\nline", b"-rf", b"x" * 255, b"comma,\\back"):
        with open(os.path.join(top, name), "wb") as file:
            file.write(name * 1000)
    (source / "d" / "e").mkdir(parents=True)
    (source / "d" / "f").write_text("linked")
    os.link(source / "d" / "f", source / "d" / "e" / "g")
    os.link(source / "d" / "f", source / "h")
    (source / "old").touch()
    os.utime(source / "old", ns=(0, -1_500_000_000))
    (source / "sealed").write_text("x")
    (source / "sealed").chmod(0)
    (source / "setuid").touch()
    (source / "setuid").chmod(0o6711)
    os.symlink(b"\xff/nowhere", top + b"/link")
    os.symlink(b"a/" * 2000, top + b"/long")
    os.mkfifo(source / "fifo", 0o622)
    os.setxattr(source / "d", b"user.\xff", b"\0" * 3000)
    os.setxattr(source / "h", "user.empty", b"")
    if os.geteuid() == 0:
        os.mknod(source / "null", 0o640 | 0o020000, os.makedev(1, 3))
        os.mknod(source / "far", 0o640 | 0o060000, os.makedev(259, 70000))
        os.mknod(source / "socket", 0o140700)
        os.chown(source / "setuid", 12345, 54321)
        os.setxattr(source / "d" / "f", "system.posix_acl_access", ACL)


def test_whole_trees_over_nights(nights: Nights, point: Path) -> None:
    wanted: dict[str, Tree] = {}
    write_all_kinds(nights.source)
    states = []
    for night in range(3):
        if night == 1:
            (nights.source / "d").rename(nights.source / "moved")
            (nights.source / "h").write_text("all three names change")
        elif night == 2:
            (nights.source / "moved" / "f").unlink()
            (nights.source / "old").write_bytes(os.urandom(3_000_000))
        states.append(describe(nights.source))
        nights.backup()
    names = [path.name for path in nights.folders()]
    wanted = dict(zip([*names, "current"], states, strict=True))
    with mounted(nights.repository, point):
        assert sorted(os.listdir(point)) == sorted(wanted)
        for name, tree in wanted.items():
            require_same(tree, describe(point / name))
        for name in os.listdir(os.fsencode(nights.source)):
            for side in (nights.source, point / "current"):
                full = os.path.join(os.fsencode(side), name)
                if side is nights.source:
                    one = os.lstat(full)
                else:
                    two = os.lstat(full)
            if not os.path.isdir(full):
                assert (one.st_size, one.st_nlink) == (two.st_size, two.st_nlink)
        same = {os.lstat(point / name / "-rf").st_ino for name in wanted}
        assert len(same) == 1


def test_what_the_drive_could_not_hold(nights: Nights, point: Path, tmp_path: Path) -> None:
    """A repository that somebody made who is not root."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    write_all_kinds(nights.source)
    (nights.source / "sealed").chmod(0o644)
    (nights.source / "setuid").chmod(0o644)
    os.removexattr(nights.source / "d" / "f", "system.posix_acl_access")
    (nights.source / "d" / "f").chmod(0o644)
    os.chown(nights.source, NOBODY, NOBODY)
    let_others_in(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    wanted = describe(nights.source)
    run("backup", "--init", nights.source, home / "drive", uid=NOBODY)
    found = describe(home / "drive" / "current")
    assert found[b"setuid"].uid == NOBODY and b"null" not in found
    with mounted(home / "drive", point):
        require_same(wanted, describe(point / "current"))


def test_a_view_in_the_source_is_no_part_of_it(small: Nights, tmp_path: Path) -> None:
    require_fuse()
    point = small.source / "history"
    point.mkdir()
    small.backup()
    with mounted(small.repository, point):
        assert (point / "current" / "f").exists()
        (small.source / "f").write_text("two")
        result = small.backup()
        assert not (small.current / "history").exists() and result.summary.errors == 0
        assert small.backup().summary.unchanged
    small.backup()
    assert (small.current / "history").is_dir()
    assert small.problems() == []


def test_it_is_read_only(small: Nights, point: Path) -> None:
    with mounted(small.repository, point):
        file = point / "current" / "f"
        attempts = [
            lambda: file.write_text("x"),
            lambda: os.open(file, os.O_RDWR),
            lambda: os.truncate(file, 0),
            lambda: file.unlink(),
            lambda: file.rename(point / "current" / "g"),
            lambda: (point / "current" / "new").touch(),
            lambda: (point / "new").mkdir(),
            lambda: (point / "current").rmdir(),
            lambda: os.link(file, point / "current" / "g"),
            lambda: os.symlink("f", point / "current" / "g"),
            lambda: os.mkfifo(point / "current" / "g"),
            lambda: file.chmod(0o600),
            lambda: os.chown(file, 1, 1),
            lambda: os.utime(file),
            lambda: os.setxattr(file, "user.a", b"b"),
        ]
        for attempt in attempts:
            with pytest.raises(OSError) as raised:
                attempt()
            assert raised.value.errno == errno.EROFS
        assert not os.access(file, os.W_OK)
    assert (small.current / "f").read_text() == "one"


def test_a_backup_and_a_removal_show_soon(small: Nights, point: Path) -> None:
    with mounted(small.repository, point):
        assert (point / "current" / "f").read_text() == "one"
        (small.source / "f").write_text("the second")
        (small.source / "g").write_text("new")
        small.backup()
        old = small.folders()[0].name
        took = wait_for(
            lambda: (
                sorted(os.listdir(point)) == [old, "current"]
                and (point / "current" / "g").exists()
                and (point / "current" / "f").stat().st_size == 10
                and (point / "current" / "f").read_text() == "the second"
            )
        )
        assert took < SOON_S + SLACK_S
        assert (point / old / "f").read_text() == "one"
        run("delete", small.repository, old)
        took = wait_for(lambda: os.listdir(point) == ["current"])
        took += wait_for(lambda: not (point / old / "f").exists())
        assert took < SOON_S + SLACK_S


def test_what_is_read_at_any_moment_is_one_version_whole(small: Nights, point: Path) -> None:
    """The kernel keeps sizes and pages by path: of two versions no mixture may be read."""
    texts = [bytes([65 + number]) * (1000 + 7777 * (number % 3)) for number in range(8)]
    (small.source / "f").write_bytes(texts[0])
    small.backup()
    wrong: list[bytes] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            found = (point / "current" / "f").read_bytes()
            if found not in (b"one", *texts):
                wrong.append(found)

    with mounted(small.repository, point):
        held = [open(point / "current" / "f", "rb")]  # noqa: SIM115
        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        try:
            for text in texts[1:]:
                (small.source / "f").write_bytes(text)
                small.backup()
                wait_for(lambda text=text: (point / "current" / "f").read_bytes() == text)  # type: ignore[misc]
                held.append(open(point / "current" / "f", "rb"))  # noqa: SIM115
        finally:
            done.set()
            for reader in readers:
                reader.join()
        for file, text in zip(held, texts, strict=True):
            with file:
                assert file.read() == text
    assert [found[:20] for found in wrong] == []


def test_it_does_not_keep_a_backup_waiting(small: Nights, point: Path) -> None:
    with mounted(small.repository, point), (point / "current" / "f").open() as file:
        names = os.scandir(point / "current")
        next(names)
        (small.source / "f").write_text("two")
        assert run("backup", small.source, small.repository, "--json").summary["files_changed"] == 1
        assert file.read() == "one"
        names.close()
    assert run("verify", small.repository, "--json").json == []


def test_several_readers(nights: Nights, point: Path) -> None:
    for number in range(40):
        folder = nights.source / f"d{number % 5}"
        folder.mkdir(exist_ok=True)
        (folder / f"f{number}").write_bytes(os.urandom(200_000 + number))
    nights.backup()
    with mounted(nights.repository, point):
        readers = [
            subprocess.Popen(["diff", "-r", nights.source, point / "current"]) for _ in range(6)
        ]
        assert [reader.wait(120) for reader in readers] == [0] * 6


def test_a_large_file_and_a_large_folder(nights: Nights, point: Path) -> None:
    big = nights.source / "big"
    big.write_bytes(os.urandom(1 << 20) * 60)
    (nights.source / "many").mkdir()
    for number in range(5000):
        (nights.source / "many" / f"f{number}").touch()
    nights.backup()
    with mounted(nights.repository, point):
        assert filecmp.cmp(big, point / "current" / "big", shallow=False)
        with (point / "current" / "big").open("rb") as file, big.open("rb") as origin:
            for offset in (33_333_333, (60 << 20) - 10, 60 << 20):
                wanted = os.pread(origin.fileno(), 5000, offset)
                assert os.pread(file.fileno(), 5000, offset) == wanted
        assert len(os.listdir(point / "current" / "many")) == 5000
        assert sum(entry.stat().st_size for entry in os.scandir(point / "current" / "many")) == 0


def test_paths_longer_than_a_call_takes(nights: Nights, point: Path) -> None:
    name, depth = "d" * 240, 25

    def bottom(top: Path, make: bool) -> int:
        fd = os.open(top, os.O_RDONLY)
        for _ in range(depth):
            if make:
                os.mkdir(name, dir_fd=fd)
            fd, above = os.open(name, os.O_RDONLY, dir_fd=fd), fd
            os.close(above)
        return fd

    made = bottom(nights.source, True)
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, 0o640, dir_fd=made))
    os.close(made)
    nights.backup()
    with mounted(nights.repository, point):
        found = bottom(point / "current", False)
        assert os.listdir(found) == ["f"]
        assert os.stat("f", dir_fd=found).st_mode & 0o777 == 0o640
        os.close(os.open("f", os.O_RDONLY, dir_fd=found))
        os.close(found)


def test_df_tells_of_the_drive(small: Nights, point: Path) -> None:
    with mounted(small.repository, point):
        ours, drives = os.statvfs(point), os.statvfs(small.repository)
        assert (ours.f_blocks, ours.f_frsize) == (drives.f_blocks, drives.f_frsize)


def test_damage_is_an_error_and_the_mount_goes_on(small: Nights, point: Path) -> None:
    (small.source / "g").write_text("fine")
    small.backup()
    (small.current / "f").unlink()
    with mounted(small.repository, point):
        with pytest.raises(OSError) as raised:
            (point / "current" / "f").read_bytes()
        assert raised.value.errno == errno.EIO
        assert (point / "current" / "g").read_text() == "fine"


# --- how it begins and ends -----------------------------------------------------------------


def test_in_the_background_it_says_that_it_is_ready(small: Nights, point: Path) -> None:
    with mounted(small.repository, point) as done:
        assert done.out == f"{point} is ready; `umount {point}` ends it\n" or os.geteuid()
        assert done.err == ""
        process = server(point)
        assert os.path.realpath(f"/proc/{process}/cwd") == "/"
        assert os.getsid(process) == process
        standard = {os.path.realpath(f"/proc/{process}/fd/{fd}") for fd in range(3)}
        assert standard == {"/dev/null"}
        unmount(point)
        wait_for(lambda: not Path(f"/proc/{process}").exists())
    with mounted(small.repository, point, "--json") as done:
        assert done.json == {"message_type": "ready", "mountpoint": str(point)}
        unmount(point)
    with mounted(small.repository, point, "-q") as done:
        assert done.out == done.err == ""


def test_nothing_that_was_open_stays_open(small: Nights, point: Path, tmp_path: Path) -> None:
    """Who waits for the end of a pipe does not wait for the end of the mount."""
    with (tmp_path / "held").open("w") as held:
        number = held.fileno()
        subprocess.run(
            [PROGRAM, "mount", small.repository, point],
            pass_fds=[number],
            check=True,
            capture_output=True,
            timeout=60,
            env=environment(),
        )
        process = server(point)
        targets = [os.path.realpath(path) for path in Path(f"/proc/{process}/fd").iterdir()]
        assert str(tmp_path / "held") not in targets
    unmount(point)


def ready_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 60)[0], "it says nothing"
    return process.stdout.readline()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unmounts(small: Nights, point: Path, number: signal.Signals) -> None:
    process = start("mount", "--foreground", small.repository, point)
    assert b"ready" in ready_line(process)
    file = os.open(point / "current" / "f", os.O_RDONLY)  # in use, even
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, b"", b"")
    assert not is_mounted(point)
    with contextlib.suppress(OSError):  # it cannot be said to its server any more
        os.close(file)


def test_a_signal_unmounts_in_the_background_too(small: Nights, point: Path) -> None:
    with mounted(small.repository, point):
        process = server(point)
        os.kill(process, signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{process}").exists())
        assert not is_mounted(point)


def test_unmounting_ends_it_in_the_foreground(small: Nights, point: Path) -> None:
    process = start("mount", "-f", "--json", small.repository, point)
    assert json.loads(ready_line(process)) == {
        "message_type": "ready",
        "mountpoint": str(point),
    }
    assert (point / "current" / "f").read_text() == "one"
    unmount(point)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, b"", b"")


def test_in_the_foreground_trouble_is_told(small: Nights, point: Path) -> None:
    (small.current / "f").unlink()
    process = start("mount", "-f", small.repository, point)
    ready_line(process)
    with pytest.raises(OSError):
        (point / "current" / "f").read_bytes()
    unmount(point)
    _out, err = process.communicate(timeout=60)
    assert err.decode().splitlines() == ["mirrorback: f is missing from the folder of " + NIGHT]


NIGHT = "2026-11-02-020000"


def test_a_killed_server_is_named_by_the_next_mount(small: Nights, point: Path) -> None:
    with mounted(small.repository, point):
        process = server(point)
        os.kill(process, signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{process}").exists())
        with pytest.raises(OSError) as raised:
            os.listdir(point)
        assert raised.value.errno == errno.ENOTCONN
        line = complaint("mount", small.repository, point, code=1)
        assert "server is gone" in line and f"umount {point}" in line
        unmount(point)
        with mounted(small.repository, point):
            assert (point / "current" / "f").read_text() == "one"


def test_only_who_mounts_may_enter_unless_others_are_allowed(small: Nights, point: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    let_others_in(point)
    (small.source / "f").chmod(0o644)
    (small.source / "secret").write_text("x")
    (small.source / "secret").chmod(0o600)
    (small.source / "listed").write_text("x")
    (small.source / "listed").chmod(0o644)
    # Mode bits of the group would let it in; the list does not.
    acl = "02000000" "01000600ffffffff" "02000400e8030000" "04000000ffffffff" \
        "10000400ffffffff" "20000000ffffffff"  # fmt: skip
    os.setxattr(small.source / "listed", "system.posix_acl_access", bytes.fromhex(acl))
    os.chown(small.source / "listed", 0, NOBODY)
    small.source.chmod(0o755)
    small.backup()
    code = """
import os, sys
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
for path in sys.argv[2:]:
    try:
        open(path).close()
        print("yes")
    except PermissionError:
        print("no")
"""
    paths = [str(point / "current" / name) for name in ("f", "secret", "listed")]

    def tried() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", code, str(NOBODY), *paths], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    with mounted(small.repository, point):
        assert tried() == ["no", "no", "no"]
        assert Path(paths[1]).read_text() == "x"
    with mounted(small.repository, point, "--allow-other"):
        assert tried() == ["yes", "no", "no"]


# --- what is refused ----------------------------------------------------------------------------


def test_bad_places(small: Nights, point: Path, tmp_path: Path) -> None:
    drive = small.repository
    assert "make the folder" in complaint("mount", drive, tmp_path / "none", code=1)
    (tmp_path / "file").touch()
    assert "not a folder" in complaint("mount", drive, tmp_path / "file", code=1)
    assert "not empty" in complaint("mount", drive, small.source, code=1)
    for inside in (drive, drive / "current", drive / ".mirrorback" / "trash"):
        assert "in the repository" in complaint("mount", drive, inside, code=5)
    os.symlink(drive / ".mirrorback" / "trash", tmp_path / "link")
    assert "in the repository" in complaint("mount", drive, tmp_path / "link", code=5)
    complaint("mount", tmp_path / "none", point, code=10)
    complaint("mount", drive, code=2)
    complaint("mount", drive, point, "more", code=2)
    complaint("mount", drive, point, "--no-such-option", code=2)
    assert not is_mounted(point)


def test_a_mount_point_with_an_odd_name(small: Nights, point: Path) -> None:
    odd = os.fsencode(point.parent) + b"/-o ro,\xff\n\\"
    os.mkdir(odd)
    process = start("mount", "-f", "--json", small.repository, odd)
    told = json.loads(ready_line(process))["mountpoint"]
    assert os.fsencode(told) == odd
    with open(odd + b"/current/f") as file:
        assert file.read() == "one"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert os.listdir(odd) == []


def test_a_mount_already(small: Nights, point: Path, tmp_path: Path) -> None:
    with mounted(small.repository, point):
        line = complaint("mount", small.repository, point, code=1)
        assert "a mount already" in line
        # Two views of one repository disturb neither.
        with mounted(small.repository, tmp_path / "other"):
            assert (tmp_path / "other" / "current" / "f").read_text() == "one"
            assert (point / "current" / "f").read_text() == "one"
        (tmp_path / "link").symlink_to(point)
        assert "a mount already" in complaint("mount", small.repository, tmp_path / "link", code=1)


def test_an_error_in_json(small: Nights, tmp_path: Path) -> None:
    done = run("mount", "--json", small.repository, tmp_path / "none", code=1)
    (message,) = done.messages
    assert message["message_type"] == "error" and message["exit_code"] == 1


def hidden(tmp_path: Path, name: str, text: str) -> dict[str, str]:
    """An environment in which a module is another one."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{name}.py").write_text(text)
    return environment(PYTHONPATH=str(tmp_path / "modules"))


def test_what_is_missing_is_named(small: Nights, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    env = hidden(tmp_path, "mfusepy", "raise ModuleNotFoundError('mfusepy')")
    line = complaint("mount", small.repository, tmp_path / "empty", code=1, env=env)
    assert "pip install 'mirrorback[mount]'" in line
    Path(tmp_path / "modules" / "mfusepy.py").write_text("raise OSError('Unable to find libfuse')")
    line = complaint("mount", small.repository, tmp_path / "empty", code=1, env=env)
    assert "apt install fuse3" in line


HANGING = """
import time
class FUSE:
    def __init__(self, *arguments, **options):
        print("hanging", file=open(options_file, "w"))
        time.sleep(300)
"""


def test_an_interruption_before_it_is_ready(small: Nights, tmp_path: Path) -> None:
    if not os.path.exists("/dev/fuse"):
        pytest.skip("no /dev/fuse: that is said first")
    (tmp_path / "empty").mkdir()
    text = HANGING.replace("options_file", repr(str(tmp_path / "hangs")))
    env = hidden(tmp_path, "mfusepy", text)
    process = subprocess.Popen(
        [PROGRAM, "mount", small.repository, tmp_path / "empty"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
    )
    wait_for((tmp_path / "hangs").exists)
    child = next(pid for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
                 if parent_of(pid) == process.pid)  # fmt: skip
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (143, b"", b"mirrorback: interrupted\n")
    wait_for(lambda: parent_of(child) is None)


def parent_of(pid: int) -> int | None:
    """The parent of a process that lives."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[1])


BROKEN = """
import os
class FUSE:
    def __init__(self, *arguments, **options):
        os.write(2, b"fuse: device not found, try 'modprobe fuse' first\\n\\n")
        raise RuntimeError(1)
"""


@pytest.mark.parametrize("option", [[], ["--foreground"]])
def test_a_mount_that_fails_says_why(small: Nights, tmp_path: Path, option: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    env = hidden(tmp_path, "mfusepy", BROKEN)
    place = (small.repository, tmp_path / "empty")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("no /dev/fuse: that is said first")
    line = complaint("mount", *place, *option, code=1, env=env)
    assert line == "the mount failed: fuse: device not found, try 'modprobe fuse' first"


def test_a_server_that_is_killed_before_it_is_ready(small: Nights, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    killed = (
        "import os\nclass FUSE:\n    def __init__(self, *a, **o):\n        os.kill(os.getpid(), 9)"
    )
    env = hidden(tmp_path, "mfusepy", killed)
    if not os.path.exists("/dev/fuse"):
        pytest.skip("no /dev/fuse: that is said first")
    line = complaint("mount", small.repository, tmp_path / "empty", code=1, env=env)
    assert "killed" in line
