"""The configuration, as a person meets it: written, shown, checked, edited; names for paths."""

from __future__ import annotations

import json
import os
import tempfile
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from program import NOBODY, complaint, environment, run

from mirrorback.engine.night.configuration import load

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root can give a file to others")
COMMENTED = """\
# my backups
[backup.old]   # of the old house
source = "/srv"          # everything
repository = "/media/none"

"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "my source"
    made.mkdir()
    (made / "letter").write_text("dear")
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def made(tmp_path: Path, source: Path, file: Path) -> Path:
    """A configured repository."""
    repository = tmp_path / "drive" / "home"
    run("init", repository, "--source", source, "--name", "home", "--config", file)
    return repository


def test_init_writes_an_entry_and_its_name_is_as_good_as_the_path(
    tmp_path: Path, source: Path, file: Path
) -> None:
    repository = made(tmp_path, source, file)
    entry = tomllib.loads(file.read_text())["backup"]["home"]
    assert entry["source"] == str(source) and entry["repository"] == str(repository)
    assert (
        f'id = "{entry["repository-id"]}"'
        in (repository / ".mirrorback/repository.toml").read_text()
    )
    run("backup", source, "home", "--config", file)
    assert len(run("snapshots", "home", "--config", file, "--json").json) == 1
    assert run("cat", "home", "letter", "--config", file).out == "dear"
    assert run("cat", repository, "letter").out == "dear"


def test_init_writes_when_it_runs_and_what_stays(tmp_path: Path, source: Path, file: Path) -> None:
    wishes = ["--schedule", "daily 02:00", "--time-machine", "--keep-yearly", "3"]
    wishes += ["--keep-monthly", "unlimited", "--min-free", "10%"]
    run("init", tmp_path / "r", "--source", source, "--name=home", "--config", file, *wishes)
    entry = tomllib.loads(file.read_text())["backup"]["home"]
    assert {key: entry[key] for key in list(entry)[3:]} == {
        "schedule": "daily 02:00",
        "time-machine": True,
        "keep-yearly": 3,
        "keep-monthly": "unlimited",
        "min-free": "10%",
    }
    run("config", "check", "--config", file)
    run("run", "--config", file)


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        (["--name=home", "--schedule", "dayly 02:00"], "schedule"),
        (["--name=home", "--schedule", "2020-01-01"], "never comes"),
        (["--name=home", "--keep-daily", "-1"], "--keep-daily"),
        (["--name=home", "--keep-none"], "keep-none"),
        (["--schedule", "daily 02:00"], "give --name NAME too"),
        (["--time-machine"], "give --name NAME too"),
    ],
)
def test_a_wish_that_cannot_be_makes_no_repository(
    tmp_path: Path, source: Path, file: Path, wishes: list[str], words: str
) -> None:
    told = complaint("init", tmp_path / "r", "--source", source, "--config", file, *wishes, code=2)
    assert words in told
    assert not (tmp_path / "r").exists() and not file.exists()


def test_what_was_written_before_stays_with_its_comments(
    tmp_path: Path, source: Path, file: Path
) -> None:
    file.write_text(COMMENTED)
    file.chmod(0o640)
    made(tmp_path, source, file)
    assert file.read_text().startswith(COMMENTED)
    assert file.stat().st_mode & 0o777 == 0o640
    assert set(tomllib.loads(file.read_text())["backup"]) == {"old", "home"}


def test_a_linked_configuration_stays_a_link(tmp_path: Path, source: Path, file: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text("")
    file.symlink_to(real)
    made(tmp_path, source, file)
    assert file.is_symlink() and "backup.home" in real.read_text()


@pytest.mark.parametrize("name", ["a b", "../x", "-x", ""])
def test_a_bad_name_makes_no_repository(
    tmp_path: Path, source: Path, file: Path, name: str
) -> None:
    told = complaint(
        "init", tmp_path / "r", "--source", source, f"--name={name}", "--config", file, code=2
    )
    assert "is no name" in told
    assert not (tmp_path / "r").exists() and not file.exists()


def test_a_name_that_is_taken_makes_no_repository(tmp_path: Path, source: Path, file: Path) -> None:
    file.write_text(COMMENTED)
    told = complaint(
        "init", tmp_path / "r", "--source", source, "--name", "old", "--config", file, code=2
    )
    assert "already" in told
    assert not (tmp_path / "r").exists() and file.read_text() == COMMENTED


def test_init_takes_up_a_repository_of_the_same_source(
    tmp_path: Path, source: Path, file: Path
) -> None:
    """On a machine that was set up anew, or after a crash before the entry was written."""
    repository = made(tmp_path, source, file)
    run("backup", "home", "--config", file)
    entry = tomllib.loads(file.read_text())["backup"]["home"]
    file.unlink()
    words = ("init", repository, "--name", "home", "--config", file)
    other = tmp_path / "other"
    other.mkdir()
    assert "already" in complaint(*words, "--source", other, code=5)
    assert "already" in complaint(*words, "--source", source, "--mode", "0755", code=5)
    assert not file.exists()
    done = run(*words, "--source", source, "--keep-last", "3")
    assert "is a repository of" in done.out
    assert tomllib.loads(file.read_text())["backup"]["home"] == {**entry, "keep-last": 3}
    assert len(run("snapshots", "home", "--config", file, "--json").json) == 1


def test_a_path_is_a_path_whatever_is_configured(tmp_path: Path, source: Path, file: Path) -> None:
    made(tmp_path, source, file)
    told = complaint("snapshots", "./home", "--config", file, code=10, cwd=tmp_path)
    assert "no repository at" in told


def test_another_drive_at_the_same_place_is_refused(
    tmp_path: Path, source: Path, file: Path
) -> None:
    repository = made(tmp_path, source, file)
    repository.rename(tmp_path / "other")
    run("init", repository, "--source", source)
    told = complaint("snapshots", "home", "--config", file, code=5)
    assert "another repository" in told


def test_a_drive_that_is_not_there_is_told(tmp_path: Path, source: Path, file: Path) -> None:
    repository = made(tmp_path, source, file)
    repository.rename(tmp_path / "unplugged")
    assert "is the drive mounted?" in complaint("snapshots", "home", "--config", file, code=10)


def test_show(tmp_path: Path, source: Path, file: Path) -> None:
    repository = made(tmp_path, source, file)
    with file.open("a") as opened:
        opened.write('schedule = "daily 02:00"\noverdue-after = "36h"\nexclude = ["*.tmp"]\n')
        opened.write("notify = false\nkeep-daily = 'unlimited'\nexclude-caches = false\n")
    shown = run("config", "show", "--config", file).out
    table = tomllib.loads(shown.split("\n", 1)[1])["backup"]["home"]
    assert set(table) == {
        *("source", "repository", "repository-id", "exclude", "schedule", "overdue-after"),
        *("notify", "keep-daily"),
    }
    assert table["notify"] is False and table["keep-daily"] == "unlimited"
    assert tomllib.loads(shown.split("\n", 1)[1])["backup"]["home"]["exclude"] == ["*.tmp"]
    found = run("config", "show", "--json", "--config", file).json
    assert found["file"] == str(file)
    (backup,) = found["backups"]
    assert backup["name"] == "home" and backup["repository"] == str(repository)
    assert backup["schedule"] == "*-*-* 02:00:00" and backup["overdue-after"] == "36h"


def test_check_tells_every_mistake_with_its_line(file: Path) -> None:
    file.write_text(
        'title = "x"\n'
        "[backup.home]\n"
        'source = "/home"\n'
        'repository = "/media/x"\n'
        "exclud = [\n"
        '  "a",\n'
        "]\n"
        "keep-daily = 'x'\n"
        "\n"
        '[backup."away"] # no keys\n'
    )
    done = run("config", "check", "--config", file, code=2)
    assert [line.removeprefix(f"mirrorback: {file}:") for line in done.err.splitlines()] == [
        "1: unknown key 'title'",
        "5: unknown key 'exclud' (did you mean 'exclude'?)",
        '8: keep-daily: give a whole number from 1 to 1,000,000, or "unlimited"',
        "10: 'away' has no repository",
        "10: 'away' has no source",
    ]
    assert len(run("config", "check", "--config", file, "--json", code=2).json["mistakes"]) == 5
    first = complaint("status", "--config", file, code=2)
    assert first == f"{file}:1: unknown key 'title'"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = \n", 1),
        ("[backup.home\n", 1),
        ("[backup.home]\nsource = '/a'\nsource = '/b'\n", 3),
        ("[backup.home]\nexclude = [\n 'a'\n", 4),
        ("\n\na = '''never ended\n", 4),
        ("[backup.home]\n[backup.home]\n", 2),
    ],
)
def test_what_is_no_toml_names_the_line(file: Path, text: str, line: int) -> None:
    file.write_text(text)
    told = complaint("status", "--config", file, code=2)
    assert told.startswith(f"{file}:{line}: ")


def test_what_is_no_text_names_the_line(file: Path) -> None:
    file.write_bytes(b"# fine\n# \xff\n")
    assert complaint("status", "--config", file, code=2) == f"{file}:2: is not UTF-8"


def test_a_file_of_nothing_but_brackets_is_told(file: Path) -> None:
    file.write_text("a = " + "[" * 100_000)
    complaint("status", "--config", file, code=2)


def test_a_huge_file_and_a_folder_are_no_configuration(tmp_path: Path, file: Path) -> None:
    file.write_bytes(b"#" * (2 << 20))
    assert "larger than" in complaint("status", "--config", file, code=2)
    complaint("status", "--config", tmp_path, code=2)


def test_a_pipe_is_no_configuration_and_is_not_waited_for(file: Path) -> None:
    os.mkfifo(file)
    assert "is not a file" in complaint("status", "--config", file, code=2)


def test_a_configuration_that_is_named_has_to_be_there(file: Path) -> None:
    assert "no such file" in complaint("status", "--config", file, code=2)
    assert run("config", "check", "--config", file).out.endswith("there is no such file yet\n")


@needs_root
def test_root_does_not_take_orders_from_a_file_that_others_can_write(
    tmp_path: Path, file: Path
) -> None:
    file.write_text("")
    for mode, owner in ((0o666, 0), (0o646, 0), (0o644, 65534)):
        file.chmod(mode)
        os.chown(file, owner, 0)
        assert "others can write" in complaint("status", "--config", file, code=5)
    os.chown(file, 0, 65534)
    file.chmod(0o664)
    assert "others can write" in complaint("status", "--config", file, code=5)
    file.chmod(0o644)
    assert run("status", "--config", file).code == 0
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    file.rename(loose / "config.toml")
    assert "others can write" in complaint("status", "--config", loose / "config.toml", code=5)
    link = tmp_path / "link.toml"
    link.symlink_to(loose / "config.toml")
    assert "others can write" in complaint("status", "--config", link, code=5)


@needs_root
def test_nor_from_one_that_others_can_exchange_for_another(tmp_path: Path, file: Path) -> None:
    """A link in a folder of someone else's, on the way to a file that is safe."""
    file.write_text("")
    loose = tmp_path / "loose"
    loose.mkdir()
    (loose / "config.toml").symlink_to(file)
    (loose / "folder").symlink_to(tmp_path)
    assert run("status", "--config", loose / "config.toml").code == 0
    os.chown(loose, NOBODY, NOBODY)
    for way in (loose / "config.toml", loose / "folder" / "config.toml"):
        told = complaint("status", "--config", way, code=5)
        assert f"others can write the folder {loose}" in told and f"chown root:root {loose}" in told


def test_a_schedule_that_never_comes_is_told_at_noon(file: Path) -> None:
    file.write_text(
        "[backup.home]\nsource = '/srv'\nrepository = '/media/x'\n\nschedule = '*-02-30 03:00'\n"
    )
    for command in (("config", "check"), ("run",), ("schedule", "show", "--backend", "cron")):
        told = complaint(*command, "--config", file, code=2)
        assert told == f"{file}:5: schedule: this never comes"


def test_an_entry_in_a_configuration_of_several_megabytes_is_refused(file: Path) -> None:
    file.write_bytes(b"#" * (2 << 20))
    assert "larger than" in complaint("backup", "home", "--config", file, code=2)


def test_edit_opens_the_editor_and_checks_afterwards(tmp_path: Path, file: Path) -> None:
    editor = tmp_path / "an editor"
    editor.write_text("#!/bin/sh\necho 'zzz = 1' >>\"$2\"\n")
    editor.chmod(0o755)
    env = environment(VISUAL=f"'{editor}' -w")
    done = run("config", "edit", "--config", file, env=env, code=2)
    text = file.read_text()
    assert "# [backup.home]" in text and text.endswith("zzz = 1\n")
    assert f"{file}:{text.count(chr(10))}: unknown key 'zzz'" in done.err


def test_an_editor_that_fails_is_told(file: Path) -> None:
    env = environment(VISUAL="false")
    assert "ended with 1" in complaint("config", "edit", "--config", file, env=env, code=2)
    env = environment(VISUAL="/nonexistent")
    assert "cannot be started" in complaint("config", "edit", "--config", file, env=env, code=2)


def test_an_action_there_is_not(file: Path) -> None:
    assert "give show, check or edit" in complaint("config", "burn", code=2)


@needs_root
def test_without_a_home_the_configuration_has_to_be_named() -> None:
    wanted = ("HOME", "XDG_", "MIRRORBACK_")
    env = {k: v for k, v in environment().items() if not k.startswith(wanted)}
    homeless = 54321  # a number that has no home
    for command in (("status",), ("run",), ("log",), ("config",), ("backup", "home")):
        assert "--config" in run(*command, uid=homeless, env=env, code=2).err
    with tempfile.TemporaryDirectory(dir="/tmp") as top:
        os.chown(top, homeless, homeless)
        source, file = Path(top) / "source", Path(top) / "config.toml"
        source.mkdir()
        file.write_text(f"[backup.home]\nsource = '{source}'\nrepository = '{top}/r'\n")
        for path in (source, file):
            os.chown(path, homeless, homeless)
        words = ("--config", file)
        run("backup", "--init", "home", *words, uid=homeless, env=env)
        done = run("run", *words, uid=homeless, env=env)
        assert "nothing changed" in done.out
        assert "nothing can be remembered of the runs" in done.err
        assert "home" in run("status", *words, uid=homeless, env=env).out
        assert "nothing changed" in run("log", "home", *words, uid=homeless, env=env).out


def test_a_user_has_a_configuration_of_their_own() -> None:
    if not ROOT:
        pytest.skip("becoming another user needs root")
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        os.chown(home, NOBODY, NOBODY)
        folder = Path(home) / "config" / "mirrorback"
        folder.mkdir(parents=True)
        (folder / "config.toml").write_text(COMMENTED)
        env = environment(HOME=home, XDG_CONFIG_HOME=f"{home}/config")
        found = run("config", "show", "--json", uid=NOBODY, env=env)
        assert [backup["name"] for backup in json.loads(found.out)["backups"]] == ["old"]
        (folder / "config.toml").chmod(0o646)
        assert "others can write" in run("status", uid=NOBODY, env=env, code=5).err


def test_hundreds_of_mistakes_are_told_at_once_each_with_its_line(file: Path) -> None:
    entries = (
        f'[backup.b{n}]\nsource = "/s"\nrepository = "/r{n}"\nexclude = [\n"a",\n3]\nkep = {n}\n'
        for n in range(300)
    )
    file.write_text("".join(entries))
    began = time.monotonic()
    found = load(str(file), datetime.now(UTC))
    assert time.monotonic() - began < 5  # 40 s, when each line was looked for by itself
    lines = [int(told.removeprefix(f"{file}:").partition(":")[0]) for told in found.mistakes]
    assert lines == [7 * n + m for n in range(300) for m in (4, 7)]


@pytest.mark.parametrize(
    "text",
    [
        f"x = {'[' * 200}{']' * 200}",
        f"backup.{'.'.join('a' * 300)} = 1",
        '[backup.a]\nsource = "here 0"  # here 0, here 1\nfoo = "here 1"',
    ],
)
def test_a_mistake_in_what_is_odd_has_its_line_too(file: Path, text: str) -> None:
    file.write_text(text)
    err = run("config", "check", "--config", file, code=2).err
    number = text.count("\n") + 1
    assert f"{file}:{number}: " in err and "internal error" not in err
