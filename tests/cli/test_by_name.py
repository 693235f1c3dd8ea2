"""A configured backup, made by hand under its name."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import tempfile
import tomllib
from pathlib import Path

import pytest
from filesystems import require_root
from homes import NOW
from program import NOBODY, complaint, run

from mirrorback.engine.backup_options import BackupOptions
from mirrorback.engine.night import diary, entries
from mirrorback.engine.night.by_hand import together
from mirrorback.engine.night.configuration import load
from mirrorback.engine.night.entries import fill_in_id
from mirrorback.errors import Interrupted, UsageError
from mirrorback.plan.retention import Policy

TEXT = """\
# mine
[backup.home]  # of this house
source = "{top}/source"
repository = "{top}/drive/home"   # the blue one
exclude = ["*.tmp"]
before = "false"
"""


@pytest.fixture(autouse=True)
def own_diary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing outside of the test's folder is written."""
    monkeypatch.setenv("MIRRORBACK_STATE_DIR", str(tmp_path / "diary"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "config.toml"
    found.write_text(TEXT.format(top=tmp_path))
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_text("a")
    (tmp_path / "source" / "b.tmp").write_text("b")
    return found


def identity(repository: Path) -> str:
    table = tomllib.loads((repository / ".mirrorback/repository.toml").read_text())
    return str(table["id"])


def test_init_makes_the_repository_and_fills_in_its_id(tmp_path: Path, file: Path) -> None:
    repository = tmp_path / "drive" / "home"
    assert "is the drive mounted?" in complaint("backup", "home", "--config", file, code=10)
    assert not repository.exists()
    run("backup", "--init", "home", "--config", file)
    assert [p.name for p in (repository / "current").iterdir()] == ["a"]
    text = file.read_text()
    assert text == TEXT.format(top=tmp_path) + f'repository-id = "{identity(repository)}"\n'
    (tmp_path / "source" / "c").write_text("c")
    run("backup", "home", "--config", file)
    run("backup", "--init", "home", "--config", file)  # it is there already
    assert file.read_text() == text
    assert len(run("snapshots", "home", "--config", file, "--json").json) == 2


def test_init_makes_no_second_repository_where_the_first_is_away(
    tmp_path: Path, file: Path
) -> None:
    run("backup", "--init", "home", "--config", file)
    drive = tmp_path / "drive"
    drive.rename(tmp_path / "unplugged")
    text = file.read_text()
    told = complaint("backup", "--init", "home", "--config", file, code=10)
    assert "take repository-id out of" in told
    assert not drive.exists() and file.read_text() == text


def test_an_id_that_was_not_written_is_written_by_the_next_init(tmp_path: Path, file: Path) -> None:
    """As after a crash between the two."""
    repository = tmp_path / "drive" / "home"
    run("init", repository, "--source", tmp_path / "source")
    run("backup", "--init", "home", "--config", file)
    assert tomllib.loads(file.read_text())["backup"]["home"]["repository-id"] == identity(
        repository
    )


def test_another_drive_is_refused(tmp_path: Path, file: Path) -> None:
    run("backup", "--init", "home", "--config", file)
    repository = tmp_path / "drive" / "home"
    repository.rename(tmp_path / "other")
    run("init", repository, "--source", tmp_path / "source")
    for more in ([], ["--init"], ["--dry-run"]):
        told = complaint("backup", "home", *more, "--config", file, code=5)
        assert "another repository" in told
    assert not (repository / "current").exists()


def test_a_configuration_that_cannot_be_written_stops_no_backup(tmp_path: Path, file: Path) -> None:
    require_root()
    folder = tmp_path / "read-only"
    folder.mkdir()
    (folder / "config.toml").write_text(file.read_text())
    subprocess.run(["mount", "--bind", "-o", "ro", folder, folder], check=True)
    try:
        done = run("backup", "--init", "home", "--config", folder / "config.toml")
    finally:
        subprocess.run(["umount", folder], check=True)
    repository = tmp_path / "drive" / "home"
    assert f'write repository-id = "{identity(repository)}" into [backup.home]' in done.err
    assert (repository / "current" / "a").exists()


@pytest.mark.parametrize(
    "text",
    [
        "backup = {{ home = {{ source = '{top}/source', repository = '{top}/r' }} }}\n",
        "backup.home.source = '{top}/source'\nbackup.home.repository = '{top}/r'\n",
        "[backup]\nhome.source = '{top}/source'\nhome.repository = '{top}/r'\n# end",
        "[backup.home]\nsource='{top}/source'\nrepository='{top}/r'\n\n[backup.x]\n"
        "source='/x'\nrepository='/y'\n",
        "[backup.'home']\r\nsource='{top}/source'\r\nrepository='{top}/r'\r\n",
        "[backup.x]\nsource='/x'\nrepository='/y'\n[backup]\nhome={{source='{top}/source',"
        "repository='{top}/r'}}\n",
    ],
)
def test_however_it_is_written(tmp_path: Path, file: Path, text: str) -> None:
    """The id is filled in and nothing else changes; or, where that cannot be, a warning says so."""
    text = text.format(top=tmp_path)
    file.write_bytes(text.encode())
    before = tomllib.loads(text)
    done = run("backup", "--init", "home", "--config", file)
    after = tomllib.loads(file.read_text())
    written = identity(tmp_path / "r")
    assert after["backup"]["home"].pop("repository-id", None) == written or written in done.err
    assert after == before


def test_two_at_once_do_not_spoil_an_entry(tmp_path: Path, file: Path) -> None:
    """Another process has filled in an id in the meantime."""
    (backup,) = load(str(file), NOW).backups
    fill_in_id(str(file), backup, "0" * 32, NOW)
    text = file.read_text()
    with pytest.raises(UsageError, match="cannot be changed"):
        fill_in_id(str(file), backup, "1" * 32, NOW)
    assert file.read_text() == text


def test_a_signal_while_an_entry_is_written_ends_as_one(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("backup", "--init", tmp_path / "source", tmp_path / "r")
    (backup,) = load(str(file), NOW).backups

    def waits(*_values: object) -> None:
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(entries, "_put", waits)
    with pytest.raises(Interrupted) as filling:
        fill_in_id(str(file), backup, "0" * 32, NOW)
    with pytest.raises(Interrupted) as adding:
        entries.add_made(str(file), "x", str(tmp_path), str(tmp_path / "r"), NOW, {})
    assert (filling.value.exit_code, adding.value.exit_code) == (130, 130)


def test_that_no_hook_runs_is_told(tmp_path: Path, file: Path) -> None:
    err = run("backup", "--init", "home", "--config", file).err
    assert "no hooks are run" in err and "`mirrorback run home`" in err
    assert "no hooks are run" in run("log", "home", "--config", file).out
    file.write_text(file.read_text().replace("before", "on-failure"))
    assert run("backup", "home", "--config", file).err == ""


def test_options_that_are_given_count_besides(tmp_path: Path, file: Path) -> None:
    run("backup", "--init", "home", "--config", file)
    (tmp_path / "source" / "d.log").write_text("d")
    dry = run("backup", "home", "-n", "--exclude", "*.log", "--config", file)
    assert "d.log" not in dry.out and "0 B would be copied" in dry.out
    assert "+ d.log" in run("backup", "home", "-n", "--config", file).out
    assert "+ b.tmp" not in run("backup", "home", "-v", "--config", file).out


def test_what_comes_together() -> None:
    configured = BackupOptions(
        exclude=("a",), checksum=True, delta_min_size=5, policy=Policy(last=3), large_files="auto"
    )
    asked = BackupOptions(exclude=("b",), always=True, delta_min_size=0, dry_run=True)
    found = together(configured, asked)
    assert found.exclude == ("a", "b") and found.checksum and found.always and found.dry_run
    assert found.delta_min_size == 0 and found.policy == Policy(last=3)
    assert together(configured, BackupOptions(policy=Policy(last=1))).policy == Policy(last=1)


def test_status_knows_of_it_when_the_drive_is_away(tmp_path: Path, file: Path) -> None:
    run("backup", "--init", "home", "--config", file)
    (tmp_path / "drive").rename(tmp_path / "unplugged")
    (told,) = run("status", "--json", "--config", file).json
    assert told["last_result"] == "ok" and told["last_success"] and not told["overdue"]
    assert "made 20" in run("log", "home", "--config", file).out
    complaint("backup", "home", "--config", file, code=10)
    (again,) = run("status", "--json", "--config", file).json
    assert again == told  # what could not even begin is no run


def test_a_failure_is_known_too_but_not_that_another_run_goes_on(
    tmp_path: Path, file: Path
) -> None:
    run("backup", "--init", "home", "--config", file)
    fd = os.open(tmp_path / "drive/home/.mirrorback/lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    complaint("backup", "home", "--config", file, code=11)
    os.close(fd)
    assert diary.read(str(tmp_path / "diary"), "home").last_result == "ok"
    (tmp_path / "source" / "a").unlink()
    assert "is empty" in run("backup", "home", "--config", file, code=5).err
    assert diary.read(str(tmp_path / "diary"), "home").last_result == "failed"


def test_what_is_no_name(tmp_path: Path, file: Path) -> None:
    told = complaint("backup", "hme", "--config", file, code=2)
    assert "no backup is configured as hme" in told
    assert "give SOURCE and REPO" in complaint("backup", tmp_path, "--config", file, code=2)
    with file.open("a") as opened:
        opened.write("colour = 'blue'\n")
    assert "unknown key 'colour'" in complaint("backup", "home", "--config", file, code=2)


# --- init --name where the configuration is not to be written --------------------------------


def test_init_looks_at_the_configuration_before_it_makes_anything() -> None:
    require_root()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        top = Path(folder)
        (top / "source").mkdir()
        for path in (top, top / "source"):
            os.chown(path, NOBODY, NOBODY)
        top.chmod(0o755)
        file = top / "config.toml"
        file.write_text("")
        file.chmod(0o444)
        words = ("init", top / "r", "--source", top / "source", "--name", "x", "--config", file)
        assert "is read-only" in run(*words, uid=NOBODY, code=2).err
        assert not (top / "r").exists()
        file.chmod(0o644)
        os.chown(top, 0, 0)
        assert "is read-only" in run(*words, uid=NOBODY, code=2).err


def test_a_source_that_toml_cannot_hold_makes_no_repository(tmp_path: Path, file: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(odd)
    told = complaint(
        "init", tmp_path / "r", "--source", odd, "--name", "x", "--config", file, code=2
    )
    assert "not UTF-8" in told and not (tmp_path / "r").exists()
    named = tmp_path / 'my "own"\n\t\x7f ü'
    named.mkdir()
    run("init", tmp_path / "r", "--source", named, "--name", "x", "--config", file)
    assert tomllib.loads(file.read_text())["backup"]["x"]["source"] == str(named)
