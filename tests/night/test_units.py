"""What is written for systemd, launchd and cron, judged by systemd, plistlib and cron."""

from __future__ import annotations

import fcntl
import os
import plistlib
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from filesystems import require_root
from hypothesis import given
from hypothesis import strategies as st
from program import NOBODY, complaint, environment, run

from mirrorback.engine.night import schedule
from mirrorback.engine.night.configuration import load
from mirrorback.engine.night.cron import Cron
from mirrorback.engine.night.launchd import Launchd
from mirrorback.engine.night.systemd import Systemd
from mirrorback.errors import MirrorbackError, Refused
from mirrorback.plan.calendar_event import parse
from mirrorback.plan.units import (
    BEGIN,
    END,
    Job,
    cron_command,
    cron_lines,
    crontab,
    launchd_agent,
    mount_unit,
    systemd_command,
    systemd_units,
)

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
ANALYZE = shutil.which("systemd-analyze")
ESCAPE = shutil.which("systemd-escape")
SYSTEMD = "/lib/systemd/systemd"
CRONTAB = shutil.which("crontab")
ODD = ("/opt/my own/mirrorback", "/etc/50% of $HOME/config \"x\" 'y' \\ ä.toml")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd is not installed")


def job(name: str = "home", text: str = "daily 02:00", mount: str | None = None) -> Job:
    return Job(name, parse(text), ("/usr/bin/true",), "/etc/mirrorback/config.toml", mount)


@needs_systemd
@pytest.mark.parametrize("text", ["daily 02:00", "hourly", "Mon..Fri *-*-* 08..20/3:15", "*-*~1"])
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path, text: str) -> None:
    assert ANALYZE is not None
    written = systemd_units(job(text=text, mount="/media/alice/My Drive"), NOW)
    for name, unit in written.items():
        (tmp_path / name).write_text(unit)
    done = subprocess.run(
        [ANALYZE, "verify", "--man=no", *(str(tmp_path / name) for name in written)],
        capture_output=True,
        text=True,
    )
    said = [line for line in done.stderr.splitlines() if "mirrorback" in line]
    assert (done.returncode, said) == (0, [])


@needs_systemd
def test_systemd_reads_odd_words_as_they_are(tmp_path: Path) -> None:
    program, config = tmp_path / "my own $p %h", ODD[1]
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    odd = Job("home", parse("daily"), (str(program),), config)
    unit = tmp_path / "mirrorback-home.service"
    unit.write_text(systemd_units(odd, NOW)[unit.name])
    assert ANALYZE is not None
    done = subprocess.run([ANALYZE, "verify", "--man=no", unit], capture_output=True, text=True)
    assert (done.returncode, [n for n in done.stderr.splitlines() if "mirrorback" in n]) == (0, [])


@pytest.mark.skipif(not os.path.exists(SYSTEMD), reason="systemd is not installed")
def test_systemd_itself_reads_the_words_of_a_command_as_they_are() -> None:
    """By what it tells of a unit that it has read, without running anything."""
    if os.geteuid() != 0:
        pytest.skip("it is run as another user, since it refuses to do so as root")
    odd = "/etc/50% of $HOME/c \"x\" 'y' \\ ä\n\tzwei;.toml ; ${x} %h"
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        top, units = Path(folder), Path(folder) / "units"
        units.mkdir()
        for place in (top, units):
            os.chown(place, NOBODY, NOBODY)
        written = systemd_units(Job("home", parse("daily"), ("/bin/true",), odd), NOW)
        for name, text in written.items():
            (units / name).write_text(text)
        for name in ("basic.target", "shutdown.target"):
            (units / name).write_text("[Unit]\nDescription=x\n")
        env = {"SYSTEMD_UNIT_PATH": str(units), "XDG_RUNTIME_DIR": folder, "HOME": folder}
        done = subprocess.run(
            [SYSTEMD, "--test", "--user", "--unit=mirrorback-home.service"],
            env=env,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=60,
        )
    (line,) = re.findall(r"Command Line: /bin/true (.*)", done.stdout)
    match = re.search(r'--config "(.*)" --wait', line)
    assert match is not None, line
    escapes = {"n": "\n", "t": "\t"}
    read = re.sub(r"\\(.)", lambda found: escapes.get(found[1], found[1]), match[1])
    assert read.replace("$$", "$") == odd  # variables are replaced when it is run


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_a_word_for_systemd_keeps_to_its_line(word: str) -> None:
    written = systemd_command(["/bin/true", word]).removeprefix("/bin/true ")
    assert written.isprintable()
    if written.startswith('"'):
        assert written.endswith('"')


@pytest.mark.skipif(ESCAPE is None, reason="systemd is not installed")
@pytest.mark.parametrize(
    "folder",
    [
        "/",
        "/media/alice/Backup",
        "/media/My Drive",
        "/mnt/a-b",
        "/.hidden/x",
        "/mnt/ü",
        "//mnt//x/",
    ],
)
def test_a_mount_has_the_name_that_systemd_gives_it(folder: str) -> None:
    assert ESCAPE is not None
    done = subprocess.run(
        [ESCAPE, "--path", "--suffix=mount", folder], capture_output=True, text=True, check=True
    )
    assert mount_unit(folder) == done.stdout.strip()


def test_a_property_list_says_it_all() -> None:
    agent = plistlib.loads(plistlib.dumps(launchd_agent(job(text="Sun 03:00"))))
    assert agent["Label"] == "org.mirrorback.home"
    assert agent["StartCalendarInterval"] == [{"Weekday": 0, "Hour": 3, "Minute": 0}]
    assert agent["ProgramArguments"][:3] == ["/usr/bin/true", "run", "home"]
    assert launchd_agent(job(text="*-*~1")) is None


@pytest.mark.parametrize("name", ["a\x07b.toml", b"a\xffb.toml"])
def test_a_property_list_does_not_hold_everything(tmp_path: Path, name: str | bytes) -> None:
    file = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), os.fsencode(name))))
    configured(tmp_path, "daily").rename(file)
    told = complaint("schedule", "show", "--backend", "launchd", "--config", file, code=2)
    assert "no property list can hold" in told
    run("schedule", "show", "--backend", "systemd", "--config", file)
    run("schedule", "show", "--backend", "cron", "--config", file)


def as_cron_reads(command: str, unescaped: str) -> str:
    """What the shell gets of a command in a crontab (do_command.c of ISC cron): to the first `%`
    that has no backslash before it; backslashes before the characters `unescaped` go."""
    read = ""
    chars = iter(command)
    for char in chars:
        if char == "%":
            break
        if char == "\\":
            following = next(chars, "")
            read += following if following in unescaped and following else char + following
        else:
            read += char
    return read


@given(
    st.lists(
        st.text(st.sampled_from("\\%'\" a$ü"), min_size=1)
        | st.text(st.characters(codec="utf-8", exclude_characters="\0\n"), min_size=1)
    )
)
def test_the_shell_that_cron_starts_reads_the_words_as_they_are(words: list[str]) -> None:
    for unescaped in ("%", "%\\"):
        line = as_cron_reads(cron_command(words), unescaped)
        assert shlex.split(line) == ["nice", "-n", "19", *words]


def test_no_line_of_a_crontab_holds_a_line_break() -> None:
    with pytest.raises(ValueError, match="line break"):
        cron_command(["a\nb"])


OTHERS = "MAILTO=me\n# mine\n5 4 * * * true\n"


@pytest.mark.parametrize("before", ["", OTHERS, OTHERS.rstrip("\n")])
def test_only_our_lines_of_a_crontab_change(before: str) -> None:
    once = crontab(before, [["1 2 * * * true"]])
    assert once.startswith(before) and once.endswith(f"{BEGIN}\n1 2 * * * true\n{END}\n")
    assert crontab(once, [["1 2 * * * true"]]) == once
    assert crontab(once, []).rstrip("\n") == before.rstrip("\n")
    after = once + "9 9 * * * false\n"
    assert crontab(after, []).splitlines() == [*before.splitlines(), "9 9 * * * false"]


def test_a_mark_that_someone_has_damaged_takes_nothing_with_it() -> None:
    for text in (f"{BEGIN}\n{OTHERS}", f"{OTHERS}{END}\n", f"{END}\n{OTHERS}{BEGIN}\n"):
        assert crontab(text, []) == text
    ours = f"{BEGIN}\n1 2 * * * true\n{END}\n"
    assert crontab(f"{BEGIN}\n{OTHERS}{ours}", []) == f"{BEGIN}\n{OTHERS}"
    assert crontab(ours + OTHERS + ours, []) == OTHERS


def test_what_mounts_the_drive_is_waited_for() -> None:
    unit = systemd_units(job(mount="/media/x"), NOW)["mirrorback-home.service"]
    assert "\nAfter=media-x.mount\n" in unit.split("[Service]")[0]
    assert "After=" not in systemd_units(job(), NOW)["mirrorback-home.service"]


def test_cron_has_nothing_to_mail_where_all_is_well() -> None:
    assert all(" --quiet " in f"{line} " for line in cron_lines(job()) or [""])


@pytest.fixture
def crontab_of_mine() -> Iterator[Callable[[], str]]:
    """A crontab that is ours for the time of a test, and reads what is in it."""
    if CRONTAB is None:
        pytest.skip("cron is not installed")
    with open(CRONTAB, "rb") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # tests may run at once
        kept = subprocess.run([CRONTAB, "-l"], capture_output=True)
        subprocess.run([CRONTAB, "-"], input=OTHERS.encode(), check=True)
        yield lambda: subprocess.run([CRONTAB, "-l"], capture_output=True, text=True).stdout
        if kept.returncode:
            subprocess.run([CRONTAB, "-r"])
        else:
            subprocess.run([CRONTAB, "-"], input=kept.stdout, check=True)


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for units, in the place of the system's."""
    folder = tmp_path / "system"
    monkeypatch.setattr("mirrorback.engine.night.systemd.home", lambda: str(folder))
    monkeypatch.setattr("mirrorback.engine.night.systemd.succeeded", lambda _command: False)
    monkeypatch.setattr("mirrorback.engine.night.cron.PROCESSES", str(tmp_path / "proc"))
    return folder


def install(file: Path, backend: str) -> list[str]:
    return schedule.install(backend, schedule.jobs(load(str(file), NOW), on_mount=False), NOW)


def test_a_real_crontab_takes_the_lines(
    tmp_path: Path, units: Path, crontab_of_mine: Callable[[], str]
) -> None:
    file = configured(tmp_path, "Mon..Fri 02:30")
    for _ in range(2):
        assert install(file, "cron") == []
        now = crontab_of_mine()
        assert now.startswith(OTHERS)
        lines = now.removeprefix(OTHERS).splitlines()
        assert (lines[0], lines[-1]) == (BEGIN, END)
        assert lines[1].startswith("30 2 * * 1,2,3,4,5 nice -n 19 ")
        assert lines[1].endswith(" --wait 12h")
        assert lines[2].startswith("47 * * * * ") and lines[2].endswith("--if-due")
        assert len(lines) == 4
    run("schedule", "remove", "--backend", "cron")
    assert crontab_of_mine() == OTHERS


def test_a_cron_that_does_not_run_is_told(
    tmp_path: Path, units: Path, crontab_of_mine: Callable[[], str]
) -> None:
    for number, name in enumerate(("init", "cron-like"), 1):
        (tmp_path / f"proc/{number}").mkdir(parents=True)
        (tmp_path / f"proc/{number}/comm").write_text(f"{name}\n")
    file = configured(tmp_path, "daily")
    (note,) = install(file, "cron")
    assert note.startswith("no cron is running")
    (tmp_path / "proc/2/comm").write_text("cron\n")
    assert install(file, "cron") == []


def test_there_may_be_no_crontab_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BusyBox says so in words of its own; another failure is one."""
    said, taken = tmp_path / "said", tmp_path / "taken"
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/crontab"
    program.write_text(f'#!/bin/sh\n[ "$1" = - ] && exec cat >{taken}\ncat {said} >&2; exit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    said.write_text("crontab: can't open 'alice': No such file or directory\n")
    Cron().install([job()], NOW)
    assert taken.read_text().startswith(BEGIN)
    taken.unlink()
    said.write_text("You (alice) are not allowed to use this program\n")
    with pytest.raises(MirrorbackError, match="not allowed"):
        Cron().install([job()], NOW)
    assert not taken.exists()


def test_a_job_is_with_one_scheduler(
    tmp_path: Path, units: Path, crontab_of_mine: Callable[[], str]
) -> None:
    file = configured(tmp_path, "daily")
    install(file, "cron")
    assert BEGIN in crontab_of_mine()
    assert any("no longer run by cron: crontab" in note for note in install(file, "systemd"))
    assert crontab_of_mine() == OTHERS and len(tree(units)) == 3
    (note,) = install(file, "cron")
    assert note.startswith("no longer run by systemd: mirrorback-home.service")
    assert BEGIN in crontab_of_mine() and tree(units) == {}
    install(file, "systemd")
    subprocess.run(["crontab", "-"], input=f"{BEGIN}\n1 2 * * * true\n{END}\n".encode())
    removed = schedule.remove(None)
    assert removed == ["mirrorback-home.service", "mirrorback-home.timer", "crontab"]
    assert schedule.remove(None) == []


def test_a_real_crontab_and_odd_folders(
    tmp_path: Path, units: Path, crontab_of_mine: Callable[[], str]
) -> None:
    odd = tmp_path / "50% ä 'x' \\%"
    odd.mkdir()
    file = configured(odd, "hourly")
    install(file, "cron")
    now = crontab_of_mine()
    at_its_time = now.split(BEGIN)[1].splitlines()[1]
    command = as_cron_reads(at_its_time.split(" ", 5)[5], "%\\")
    assert str(file) in shlex.split(command)
    folder = tmp_path / "a\nb"
    folder.mkdir()
    file.rename(folder / "config.toml")
    broken = ("schedule", "install", "--backend", "cron", "--config", folder / "config.toml")
    assert "home: a line break cannot stand in a crontab" in complaint(*broken, code=2)
    assert crontab_of_mine() == now


def test_a_line_that_cron_finds_too_long_is_told(
    tmp_path: Path, units: Path, crontab_of_mine: Callable[[], str]
) -> None:
    deep = tmp_path.joinpath(*["x" * 200] * 6)
    deep.mkdir(parents=True)
    with pytest.raises(MirrorbackError, match=r"the crontab cannot be written.*long"):
        install(configured(deep, "hourly"), "cron")
    assert crontab_of_mine() == OTHERS


def configured(top: Path, when: str) -> Path:
    file = top / "config.toml"
    file.write_text(
        f"[backup.home]\nsource = '/srv'\nrepository = '/media/r'\nschedule = '{when}'\n"
    )
    return file


def test_what_a_scheduler_cannot_say_is_an_error(tmp_path: Path) -> None:
    file = configured(tmp_path, "*-*~1")
    for backend in ("cron", "launchd"):
        told = complaint("schedule", "show", "--backend", backend, "--config", file, code=2)
        assert "cannot come at *-*~01 00:00:00" in told
    file.write_text(f"[backup.home]\nsource = '{tmp_path}'\nrepository = '/r'\n")
    assert "no backup has a schedule" in complaint("schedule", "--config", file, code=2)
    assert "give systemd" in complaint("schedule", "show", "--backend", "at", code=2)
    assert "give install" in complaint("schedule", "burn", code=2)


def test_show_tells_what_install_writes_and_the_next_run(tmp_path: Path) -> None:
    file = configured(tmp_path, "daily 02:00")
    shown = run("schedule", "show", "--backend", "systemd", "--config", file, "--json").json
    assert [Path(one["path"]).name for one in shown["files"]] == [
        "mirrorback-home.service",
        "mirrorback-home.timer",
    ]
    assert "T02:00:00" in shown["runs"][0]["next_run"]
    assert "OnCalendar=*-*-* 02:00:00" in shown["files"][1]["text"]
    told = run("schedule", "--backend", "cron", "--config", file).out
    assert "the next run is at" in told


@pytest.mark.parametrize("backend", ["systemd", "launchd", "cron"])
def test_runs_and_status_go_by_the_same_diary(tmp_path: Path, backend: str) -> None:
    file = configured(tmp_path, "daily 02:00")
    words = ("schedule", "show", "--backend", backend, "--config", file)
    kept = {k: v for k, v in environment().items() if k != "XDG_STATE_HOME"}
    usual = run(*words, env={k: v for k, v in kept.items() if k != "MIRRORBACK_STATE_DIR"}).out
    assert "MIRRORBACK_STATE_DIR" not in usual
    moved = run(*words, env=kept | {"MIRRORBACK_STATE_DIR": "/srv/50% of it"}).out
    where = {"systemd": "50%% of it", "launchd": "50% of it", "cron": "50\\% of it"}[backend]
    assert f"MIRRORBACK_STATE_DIR=/srv/{where}" in moved


class TestSystemd:
    """Units in a folder, without a systemd that runs."""

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
        return tmp_path / "units"

    def test_twice_is_once_and_removed_is_as_before(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "other.timer").write_text("[Timer]\n")
        (folder / "mirrorback-mine.service").write_text("[Service]\n")
        before = tree(folder)
        systemd = Systemd(str(folder), user=False)
        systemd.install([job(mount="/media/x")], NOW)
        once = tree(folder)
        systemd.install([job(mount="/media/x")], NOW)
        assert tree(folder) == once != before
        wants = folder / "timers.target.wants" / "mirrorback-home.timer"
        assert wants.resolve() == folder / "mirrorback-home.timer"
        assert (folder / "media-x.mount.wants" / "mirrorback-home.service").exists()
        assert systemd.remove() == ["mirrorback-home.service", "mirrorback-home.timer"]
        assert tree(folder) == before
        assert systemd.remove() == []

    def test_a_drive_that_no_longer_starts_it_does_not(self, folder: Path) -> None:
        folder.mkdir()
        systemd = Systemd(str(folder), user=False)
        systemd.install([job()], NOW)
        without = tree(folder)
        systemd.install([job(mount="/media/x")], NOW)
        systemd.install([job(mount="/media/y")], NOW)
        assert not (folder / "media-x.mount.wants").exists()
        systemd.install([job()], NOW)
        assert tree(folder) == without

    def test_what_is_no_longer_configured_goes(self, folder: Path) -> None:
        systemd = Systemd(str(folder), user=False)
        systemd.install([job("old"), job("home")], NOW)
        systemd.install([job("home")], NOW)
        assert not [name for name in tree(folder) if "old" in name]
        assert (folder / "mirrorback-home.timer").exists()

    def test_a_unit_of_someone_else_is_left_alone(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "mirrorback-home.timer").write_text("[Timer]\nOnCalendar=yearly\n")
        before = tree(folder)
        with pytest.raises(Refused, match="is not ours"):
            Systemd(str(folder), user=False).install([job()], NOW)
        assert tree(folder) == before

    def test_a_timer_that_does_not_start_is_an_error(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "mirrorback.engine.night.systemd.succeeded", lambda command: "start" not in command
        )
        with pytest.raises(MirrorbackError, match=r"does not start mirrorback-home\.timer"):
            Systemd(str(folder), user=False).install([job()], NOW)

    def test_a_user_is_told_of_lingering(self, folder: Path) -> None:
        notes = Systemd(str(folder), user=True).install([job()], NOW)
        assert any("enable-linger" in note for note in notes)


def tree(folder: Path) -> dict[str, str]:
    """What lies in a folder: files by their text, links by where they lead."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_text()
    return found


def test_a_backup_that_would_take_any_drive_is_told(tmp_path: Path) -> None:
    file = configured(tmp_path, "daily")
    (note,) = schedule.unguarded(load(str(file), NOW))
    assert note.startswith("home has no repository-id") and "backup --init home`" in note
    assert note in schedule.advice(load(str(file), NOW))
    file.write_text(file.read_text() + f"repository-id = '{'0f' * 16}'\n")
    assert schedule.unguarded(load(str(file), NOW)) == []


def test_root_is_told_of_a_program_that_others_can_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_root()
    program = tmp_path / "bin" / "mirrorback"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setattr("sys.argv", [str(program)])
    before = schedule.entrusted()  # where the test's own folder lies is not our matter
    assert str(program.parent) not in "".join(before).split()
    os.chown(program.parent, NOBODY, NOBODY)
    (note,) = schedule.entrusted()
    assert f"for {program.parent} is theirs to write" in note


def test_without_any_scheduler(tmp_path: Path) -> None:
    if os.path.isdir("/run/systemd/system"):
        pytest.skip("systemd runs here")
    file = configured(tmp_path, "daily")
    env = environment(PATH=str(tmp_path))
    assert "neither systemd" in complaint("schedule", "--config", file, env=env, code=2)


@pytest.mark.parametrize("backend", ["systemd", "cron"])
def test_what_nothing_runs_is_told_until_it_is_installed(
    tmp_path: Path, units: Path, crontab_of_mine: Callable[[], str], backend: str
) -> None:
    file = configured(tmp_path, "daily 02:00")
    more = "[backup.more]\nsource = '/srv'\nrepository = '/media/more'\nschedule = 'hourly'\n"
    file.write_text(file.read_text() + more)

    def idle() -> list[str]:
        return schedule.idle(load(str(file), NOW).backups)

    assert idle() == ["home", "more"]
    install(file, backend)
    assert idle() == []
    file.write_text(file.read_text().replace("daily 02:00", "daily 03:00"))
    assert idle() == ["home"]
    install(file, backend)
    assert idle() == []
    file.write_text(file.read_text().replace("backup.more", "backup.other"))
    assert idle() == ["other"]
    schedule.remove(None)
    assert idle() == ["home", "other"]


def test_a_property_list_runs_what_it_says(tmp_path: Path) -> None:
    launchd = Launchd(str(tmp_path))
    assert not launchd.runs("home", job().schedule)
    (one,) = launchd.show([job()], NOW)
    Path(one.where).write_text(one.text)
    assert launchd.runs("home", job().schedule)
    assert not launchd.runs("home", parse("daily 23:59"))
    for text in ("", "<plist>", "<plist version='1.0'><string/></plist>"):
        Path(one.where).write_text(text)
        assert not launchd.runs("home", job().schedule)


def test_status_tells_what_nothing_runs(tmp_path: Path) -> None:
    if os.path.isdir("/run/systemd/system"):
        pytest.skip("systemd runs here")
    file = configured(tmp_path, "daily 02:00")
    env = environment(PATH=str(tmp_path))
    assert "schedule install" in run("status", "--config", file, code=3, env=env).out
    assert "schedule install" not in run("status", "-q", "--config", file, code=3, env=env).out
