"""Who may read what, over time: the folder of a repository keeps everybody else out, and nothing
beside it, in it, or restored from it is open for a moment."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mounts import let_others_in, require_fuse
from mounts import mounted as mounted_view
from program import NOBODY, environment, run
from runs import LARGE, LargeNights, Nights, change_pages, noise

SECRET = "a secret of its owner"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
READ_ALL = """
import os, sys
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
for top, folders, names in os.walk(sys.argv[2]):
    for name in names:
        try:
            with open(os.path.join(top, name), "rb") as file:
                sys.stdout.buffer.write(file.read())
        except OSError:
            pass
"""


def read_by_nobody(top: Path) -> str:
    """All that another user can read below a folder."""
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(NOBODY), top], capture_output=True, check=True
    )
    return done.stdout.decode("utf-8", "replace")


@pytest.fixture
def private(nights: Nights) -> Nights:
    """A file that everybody could read, until it was made private."""
    let_others_in(nights.source.parent)
    path = nights.source / "diary"
    path.write_text(SECRET)
    path.chmod(0o644)
    time.sleep(0.03)
    nights.backup()
    path.chmod(0o600)
    nights.backup()
    return nights


@as_root
def test_what_became_private_is_not_read_through_an_older_folder(private: Nights) -> None:
    older = private.folders()[0] / "diary"
    assert stat.S_IMODE(older.stat().st_mode) == 0o644  # it is what it was
    assert stat.S_IMODE((private.current / "diary").stat().st_mode) == 0o600
    assert SECRET not in read_by_nobody(private.repository.parent)
    private.repository.chmod(0o755)
    assert SECRET in read_by_nobody(private.repository.parent)  # this alone keeps them out


@as_root
def test_a_delta_of_what_was_private_is_as_private(large: LargeNights, source: Path) -> None:
    let_others_in(source.parent)
    path = source / "image"
    path.write_bytes(noise(LARGE * 4, 1))
    path.chmod(0o600)
    time.sleep(0.03)
    large.backup()
    change_pages(path, 2)
    path.chmod(0o644)
    large.backup(mode=0o755)
    delta = large.folders()[0] / "image.rdiff.zst"
    assert stat.S_IMODE(delta.stat().st_mode) == 0o600
    assert read_by_nobody(large.current)  # the new version is everybody's
    assert not read_by_nobody(large.folders()[0])
    assert not read_by_nobody(large.repository / ".mirrorback")


@as_root
def test_hard_links_to_files_of_others_open_none(large: LargeNights, tmp_path: Path) -> None:
    """As a user makes them where the system lets one (protected_hardlinks of sysctl)."""
    let_others_in(tmp_path)
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    for name, mode, content in (
        ("private", 0o600, SECRET.encode()),
        ("large", 0o640, SECRET.encode() + noise(LARGE * 2, 1)),
        ("read", 0o644, b"for all"),
    ):
        (theirs / name).write_bytes(content)
        (theirs / name).chmod(mode)
        os.link(theirs / name, large.source / name)
    os.chown(large.source, NOBODY, NOBODY)
    time.sleep(0.03)
    large.backup(mode=0o755)  # nothing but their own permissions keeps others out
    change_pages(theirs / "large", 2)
    (theirs / "large").chmod(0o600)
    (theirs / "read").write_bytes(SECRET.encode())
    (theirs / "read").chmod(0o600)
    large.backup()
    large.restore(tmp_path / "out", at="1B")
    for top in (large.current, large.folders()[0], tmp_path / "out"):
        assert {path.stat().st_uid for path in top.iterdir()} == {0}
        assert SECRET not in read_by_nobody(top)
    assert read_by_nobody(large.folders()[0]) == "for all"  # as it was for all to read then
    own = tmp_path / "own"
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    done = run("backup", "--init", large.source, own / "drive", uid=NOBODY, code=3)
    assert done.err.count("permission denied") == 3
    assert list((own / "drive" / "current").iterdir()) == []


# --- the door ------------------------------------------------------------------------


COMMANDS = {
    "backup": lambda n: ["backup", n.source, n.repository],
    "delete": lambda n: ["delete", n.repository, n.folders()[0].name],
    "prune": lambda n: ["prune", n.repository, "--keep-last", "1"],
    "pin": lambda n: ["pin", n.repository, n.folders()[0].name],
    "repair": lambda n: ["repair", n.repository],
    "rebuild": lambda n: ["rebuild", n.repository, "--force"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_writes_tells_of_an_open_door(private: Nights, command: str) -> None:
    words = COMMANDS[command](private)
    private.repository.chmod(0o751)
    done = run(*words)
    assert "warning: the repository has permissions 0751, not 0700" in done.err
    assert f"chmod 0700 {private.repository}" in done.err
    assert stat.S_IMODE(private.repository.stat().st_mode) == 0o751  # that is its owner's to say


@pytest.mark.parametrize("mode", [0o700, 0o500])
def test_a_shut_door_is_nothing_to_tell(private: Nights, mode: int) -> None:
    private.repository.chmod(mode if os.geteuid() == 0 else 0o700)
    assert run("backup", private.source, private.repository).err == ""


def test_an_open_door_is_a_message_too(private: Nights) -> None:
    private.repository.chmod(0o755)
    messages = run("backup", private.source, private.repository, "--json").messages
    assert [m["message"][:30] for m in messages if m["message_type"] == "warning"] == [
        "the repository has permissions"
    ]


def test_what_was_asked_for_is_nothing_to_tell(source: Path, repository: Path) -> None:
    (source / "f").write_text("x")
    assert run("backup", "--init", "--mode", "0750", source, repository).err == ""
    repository.chmod(0o755)
    assert "0755, not 0750" in run("backup", source, repository).err


def test_another_mode_can_be_asked_for_later(private: Nights) -> None:
    private.repository.chmod(0o755)
    done = run("backup", "--mode", "0755", private.source, private.repository)
    assert done.err == ""
    assert run("backup", private.source, private.repository).err == ""
    done = run("backup", "--mode", "0700", private.source, private.repository)
    assert done.err == ""
    assert stat.S_IMODE(private.repository.stat().st_mode) == 0o700


def test_the_inner_folder_is_shut_again(private: Nights) -> None:
    inner = private.repository / ".mirrorback"
    inner.chmod(0o755)
    run("backup", private.source, private.repository)
    assert stat.S_IMODE(inner.stat().st_mode) == 0o700


def test_lost_settings_do_not_make_an_open_door_right(private: Nights) -> None:
    private.repository.chmod(0o755)
    (private.repository / ".mirrorback" / "repository.toml").unlink()
    done = run("rebuild", private.repository, "--force", "--source", private.source)
    assert "0755, not 0700" in done.err


@as_root
def test_a_repository_of_another_user_is_told(private: Nights) -> None:
    os.chown(private.repository, NOBODY, NOBODY)
    done = run("backup", private.source, private.repository)
    assert f"belongs to nobody ({NOBODY})" in done.err
    told = {f["subject"]: f for f in run("doctor", private.repository, "--json").json}
    assert told["owner of the repository"]["level"] == "warning"
    os.chown(private.repository, 0, 0)
    assert run("backup", private.source, private.repository).err == ""


def setfacl(*words: str | Path) -> None:
    subprocess.run(["setfacl", *words], check=True)


@as_root
def test_a_list_on_the_drive_lets_nobody_in(private: Nights, ext4: Path) -> None:
    let_others_in(ext4)
    setfacl("-d", "-m", f"u:{NOBODY}:rwx", ext4)
    repository = ext4 / "drive"
    run("init", repository, "--source", private.source, "--mode", "0750")
    run("backup", private.source, repository)
    assert SECRET not in read_by_nobody(ext4)
    assert os.listxattr(repository) == []
    for path in (repository / "current").iterdir():
        assert os.listxattr(path) == []


@as_root
def test_a_list_that_was_given_later_is_told(private: Nights, ext4: Path) -> None:
    repository = ext4 / "drive"
    run("backup", "--init", "--mode", "0750", private.source, repository)
    setfacl("-m", f"u:{NOBODY}:rx", repository)
    done = run("backup", private.source, repository)
    assert "an access control list lets others into the repository" in done.err
    told = {f["subject"]: f for f in run("doctor", repository, "--json").json}
    assert told["permissions of the repository"]["level"] == "warning"


# --- what is made ------------------------------------------------------------------------


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """What is made has these permissions not."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(top: Path) -> dict[str, int]:
    """The permissions of all that is below a folder, and of itself."""
    paths = [top, *top.rglob("*")]
    return {
        str(path.relative_to(top)): stat.S_IMODE(path.lstat().st_mode)
        for path in paths
        if not path.is_symlink()
    }


@pytest.mark.parametrize("mask", [0, 0o077, 0o777])
def test_no_umask_opens_or_closes_anything(nights: Nights, tmp_path: Path, mask: int) -> None:
    for name, mode in (("open", 0o777), ("usual", 0o755), ("own", 0o700)):
        (nights.source / name).mkdir()
        (nights.source / name / "f").write_text(name)
        (nights.source / name / "f").chmod(mode & 0o666)
        (nights.source / name).chmod(mode)
    wanted = modes(nights.source)
    config, state = tmp_path / "config.toml", tmp_path / "state"
    env = environment(MIRRORBACK_STATE_DIR=str(state))
    words = ["--config", config]
    with umask(mask):
        run("init", nights.repository, "--source", nights.source, "--name", "home", *words, env=env)
        run("run", "home", *words, env=env)
        (nights.source / "new").touch()
        (nights.source / "new").chmod(0o640)
        run("run", "home", *words, env=env)
        run("restore", nights.repository, "--to", tmp_path / "out", "--at", "1B", env=env)
    assert stat.S_IMODE(nights.repository.stat().st_mode) == 0o700
    assert modes(nights.folders()[0]) == wanted
    assert modes(nights.current) == wanted | {"new": 0o640}
    assert modes(tmp_path / "out") == wanted
    inner = modes(nights.repository / ".mirrorback")
    assert inner.pop(".") == 0o700
    for top in (inner, modes(state)):
        assert [path for path, mode in top.items() if mode & 0o077] == []
    assert modes(config)["."] & 0o077 == 0


def test_a_folder_that_a_restore_makes_is_as_private_as_it_was(
    nights: Nights, tmp_path: Path
) -> None:
    deep = nights.source / "private" / "deep"
    deep.mkdir(parents=True)
    (deep / "f").write_text(SECRET)
    (deep / "f").chmod(0o644)
    os.utime(deep, (1, 1))
    (nights.source / "private").chmod(0o700)
    nights.backup()
    nights.restore(tmp_path / "out", b"private/deep/f")
    out = tmp_path / "out" / "private"
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert (out / "deep").stat().st_mtime == 1
    assert (out / "deep" / "f").read_text() == SECRET


WATCH = """
import os, sys
sys.addaudithook(lambda event, args: event in ("os.chmod", "os.rename", "os.utime") and look())
import mirrorback.cli.app
top, looking = os.fsencode(sys.argv.pop(1)), False
def look():
    global looking
    if looking:
        return
    looking = True
    reach(top)
    looking = False
def reach(folder):
    if os.path.isdir(folder) and os.stat(folder).st_mode & 0o001:
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            st = os.lstat(path)
            if st.st_mode & 0o170000 == 0o100000 and st.st_mode & 0o004 and st.st_size:
                print("readable", path, file=sys.stderr)
            elif st.st_mode & 0o170000 == 0o040000:
                reach(path)
mirrorback.cli.app.main()
"""


@pytest.mark.parametrize("path", [[], ["private/f"], ["private"]])
def test_nothing_is_readable_for_a_moment_of_a_restore(
    nights: Nights, tmp_path: Path, path: list[str]
) -> None:
    """The files may be read by everybody, but stand in folders that nobody else may enter."""
    (nights.source / "private").mkdir()
    (nights.source / "private" / "f").write_text(SECRET)
    (nights.source / "own").write_text(SECRET)
    (nights.source / "own").chmod(0o600)
    (nights.source / "private").chmod(0o700)
    if not path:
        nights.source.chmod(0o700)
        (nights.source / "f").write_text(SECRET)
    nights.backup()
    words = ["restore", nights.repository, *path, "--to", tmp_path / "out"]
    with umask(0):
        done = subprocess.run(
            [sys.executable, "-c", WATCH, tmp_path / "out", *words],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=100,
        )
    assert done.returncode == 0, done.stderr
    assert "readable" not in done.stderr
    assert (tmp_path / "out" / "private" / "f").read_text() == SECRET


@as_root
def test_other_users_see_in_a_view_what_they_might_in_the_source(private: Nights) -> None:
    require_fuse()
    open_to_all = private.source / "for-all"
    open_to_all.write_text("for all")
    open_to_all.chmod(0o644)
    private.backup()
    point = private.repository.with_name("view")
    with mounted_view(private.repository, point):
        assert read_by_nobody(point) == ""
    with mounted_view(private.repository, point, "--allow-other"):
        seen = read_by_nobody(point / "current")
        assert "for all" in seen and SECRET not in seen
