"""What the shells complete: the scripts know the program, and real shells use them."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import PROGRAM, environment, run
from runs import Nights
from shells import COMPLETIONS, Shell, shell

from completions import generate
from mirrorback.cli.completing import KINDS

SHELLS = ("bash", "zsh", "fish")
TOP = COMPLETIONS.parent
ODD = [
    "with space",
    "quote's",
    'double"quote',
    "$(touch PWNED)",
    "`touch PWNED`;x",
    "ümläut",
    "a*b",
]
EVIL = ["new\nline", "esc\x1b]0;title\x07", "bell\x07", "\udcff-not-utf-8", "rtl\u202e", "tab\tx"]


class Drive:
    """A repository with some history."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "source"
        self.repository = folder / "drive"
        self.config = folder / "c.toml"
        (self.source / "Documents" / "letters").mkdir(parents=True)
        for name in ("Documents/report.odt", "Documents/letters/old.txt", "removed.txt"):
            (self.source / name).write_text(name)
        nights = Nights(self.source, self.repository)
        for number in range(3):
            (self.source / "Documents" / "report.odt").write_text(str(number))
            nights.backup()
            (self.source / "removed.txt").unlink(missing_ok=True)
        self.config.write_text(
            f'[backup.homework]\nsource = "{self.source}"\nrepository = "{self.repository}"\n'
            f'[backup.photos]\nsource = "{self.source}"\nrepository = "{folder}/elsewhere"\n'
        )
        self.config.chmod(0o600)
        self.names = [path.name for path in nights.folders()]
        with nights.history() as history:
            self.mirror = history.snapshots()[-1].name

    @property
    def env(self) -> dict[str, str]:
        """The environment of who uses it."""
        path = f"{Path(PROGRAM).parent}:{os.environ['PATH']}"
        return environment(PATH=path)

    def asked(self, *words: str) -> list[str]:
        """What the program answers to a shell."""
        return run("__complete", *words, env=self.env).out.splitlines()


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Drive:
    return Drive(tmp_path_factory.mktemp("completion"))


# --- the scripts ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", generate.SCRIPTS)
def test_a_script_knows_the_program_as_it_is(name: str) -> None:
    text = (COMPLETIONS / name).read_text()
    assert text == generate.renewed(name), "run: python completions/generate.py"
    for command in generate.commands():
        assert text.count(command.name) > 1


def test_what_is_asked_for_is_what_the_program_answers() -> None:
    kinds = {a.kind for c in generate.commands() for a in c.arguments}
    kinds |= {o.kind for c in generate.commands() for o in c.options if o.kind}
    plain = {kind for kind in kinds if not kind.startswith("=")}
    assert plain - {"file", "folder", "repo", "nothing"} <= set(KINDS)


def test_the_scripts_are_in_the_wheel() -> None:
    import tomllib

    built = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    shared = built["targets"]["wheel"]["shared-data"]
    assert {source: target for source, target in shared.items() if "completions" in source} == {
        "completions/mirrorback.bash": "share/bash-completion/completions/mirrorback",
        "completions/_mirrorback": "share/zsh/site-functions/_mirrorback",
        "completions/mirrorback.fish": "share/fish/vendor_completions.d/mirrorback.fish",
    }
    assert all((TOP / source).is_file() for source in shared)
    assert "/completions" in built["targets"]["sdist"]["include"]


def bash_offers(line: str, drive: Drive) -> set[str]:
    """All that bash would list for a line that ends in a word being typed."""
    words = line.split(" ")
    script = (
        f"source {COMPLETIONS}/mirrorback.bash; COMP_WORDS=({shlex.join(words)});"
        f" COMP_CWORD={len(words) - 1}; COMP_LINE={shlex.quote(line)};"
        ' COMP_POINT=${#COMP_LINE}; _mirrorback; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        env=drive.env,
        cwd=drive.folder,
        check=True,
        timeout=60,
    )
    return set(done.stdout.split("\n")) - {""}


def fish_offers(line: str, drive: Drive) -> set[str]:
    """All that fish would list for a line."""
    script = f"source {COMPLETIONS}/mirrorback.fish; complete -C {shlex.quote(line)}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        capture_output=True,
        text=True,
        env=drive.env | {"HOME": str(drive.folder)},
        cwd=drive.folder,
        check=True,
        timeout=60,
    )
    return {line.split("\t")[0] for line in done.stdout.splitlines()}


OFFERS = {"bash": bash_offers, "fish": fish_offers}


@pytest.mark.parametrize("name", OFFERS)
@pytest.mark.parametrize("command", [c.name for c in generate.commands()])
def test_every_option_is_offered(name: str, command: str, drive: Drive) -> None:
    (found,) = (c for c in generate.commands() if c.name == command)
    long = {n for option in found.options for n in option.names if n.startswith("--")}
    assert OFFERS[name](f"mirrorback {command} --", drive) == long


@pytest.mark.parametrize("name", OFFERS)
def test_every_command_is_offered(name: str, drive: Drive) -> None:
    assert OFFERS[name]("mirrorback ", drive) == {c.name for c in generate.commands()}
    assert OFFERS[name]("mirrorback pr", drive) == {"prune"}


@pytest.mark.parametrize("name", OFFERS)
def test_what_is_offered_for_arguments_and_values(name: str, drive: Drive) -> None:
    offers = OFFERS[name]
    assert {"homework", "photos"} <= offers("mirrorback snapshots --config c.toml ", drive)
    assert offers("mirrorback run --config=c.toml ", drive) == {"homework", "photos"}
    assert offers("mirrorback ls drive ", drive) == {"Documents/"}
    assert offers("mirrorback ls --config c.toml homework Documents/", drive) == {
        "Documents/letters/",
        "Documents/report.odt",
    }
    assert offers("mirrorback versions -v drive r", drive) == {"removed.txt"}
    assert offers("mirrorback cat drive r", drive) == set()
    assert offers(f"mirrorback cat drive --at {drive.names[0]} r", drive) == {"removed.txt"}
    assert {"homework", "photos"} <= offers("mirrorback backup --config c.toml ", drive)
    assert offers("mirrorback log --config c.toml ", drive) == {"homework", "photos"}
    assert offers("mirrorback delete drive ", drive) == set(drive.names)
    assert offers(f"mirrorback delete -n drive {drive.names[0]} ", drive) == set(drive.names)
    assert offers("mirrorback pin drive ", drive) == {*drive.names, drive.mirror}
    assert offers("mirrorback unpin drive ", drive) == set()
    assert offers("mirrorback restore drive Documents --at ", drive) == {
        "latest",
        *drive.names,
        drive.mirror,
    }
    assert offers("mirrorback restore drive --overwrite ", drive) == {
        "if-changed",
        "if-newer",
        "never",
        "always",
    }
    assert offers("mirrorback config ", drive) == {"show", "check", "edit"}
    assert offers("mirrorback backup --keep-daily ", drive) == set()
    assert "drive/" in {o.rstrip("/") + "/" for o in offers("mirrorback backup source ", drive)}
    nowhere = f"mirrorback run --config {drive.folder}/none.toml "
    assert offers(nowhere, drive) == set()


def test_the_configuration_in_the_line_counts(drive: Drive, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(f'[backup.other]\nsource = "/s"\nrepository = "{drive.repository}"\n')
    for offers in OFFERS.values():
        assert offers(f"mirrorback run --config {other} ", drive) == {"other"}
        found = offers(f"mirrorback ls --config {other} other D", drive)
        assert found == {"Documents/"}


# --- real shells, on a terminal ------------------------------------------------------------


@pytest.fixture(params=SHELLS)
def typed(request: pytest.FixtureRequest, drive: Drive, tmp_path: Path) -> Iterator[Shell]:
    with shell(request.param, tmp_path, drive.env, drive.folder) as found:
        yield found


def test_tab_completes(typed: Shell, drive: Drive) -> None:
    first = drive.names[0]
    for line, wanted in (
        ("mirrorback vers", "mirrorback versions "),
        ("mirrorback backup --one-f", "mirrorback backup --one-file-system "),
        ("mirrorback run --config c.toml ph", "mirrorback run --config c.toml photos "),
        (
            "mirrorback ls --config c.toml homework Doc",
            "mirrorback ls --config c.toml homework Documents/",
        ),
        ("mirrorback ls drive Documents/le", "mirrorback ls drive Documents/letters/"),
        ("mirrorback cat drive Documents/rep", "mirrorback cat drive Documents/report.odt "),
        ("mirrorback versions drive rem", "mirrorback versions drive removed.txt "),
        (
            f"mirrorback cat drive --at {first} rem",
            f"mirrorback cat drive --at {first} removed.txt ",
        ),
        (
            f"mirrorback cat drive --at={first} rem",
            f"mirrorback cat drive --at={first} removed.txt ",
        ),
        (f"mirrorback delete drive {first[:-1]}", f"mirrorback delete drive {first} "),
        ("mirrorback ls drive --at=lat", "mirrorback ls drive --at=latest "),
        ("mirrorback ls drive --at lat", "mirrorback ls drive --at latest "),
        (
            "mirrorback restore drive --overwrite if-n",
            "mirrorback restore drive --overwrite if-newer ",
        ),
        ("mirrorback mount drive sou", "mirrorback mount drive source/"),
        ("mirrorback config che", "mirrorback config check "),
        ("mirrorback find drive Doc", "mirrorback find drive Doc"),
    ):
        assert typed.completed(line) == wanted, typed.printed


def test_tab_is_fast(typed: Shell) -> None:
    typed.completed("mirrorback ls --config c.toml homework Doc")  # all is read once
    began = time.monotonic()
    typed.completed("mirrorback ls --config c.toml homework Doc")
    assert time.monotonic() - began < 1


@pytest.fixture(params=SHELLS)
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Shell, Path]]:
    """A shell beside a repository that holds odd names."""
    source = tmp_path / "source"
    source.mkdir()
    for name in (*ODD, *EVIL):
        (source / os.fsencode(name).decode("utf-8", "surrogateescape")).write_text("x")
    (source / "fo lder").mkdir()
    (source / "fo lder" / "in it").write_text("x")
    run("backup", "--init", source, tmp_path / "drive")
    path = f"{Path(PROGRAM).parent}:{os.environ['PATH']}"
    with shell(request.param, tmp_path, environment(PATH=path), tmp_path) as found:
        yield found, tmp_path


def test_odd_names_are_quoted_and_nothing_of_them_is_run(odd: tuple[Shell, Path]) -> None:
    typed, folder = odd
    for begin, name in (
        ("with", "with space"),
        ("quo", "quote's"),
        ("doub", 'double"quote'),
        ("\\$\\(", "$(touch PWNED)"),
        ("\\`", "`touch PWNED`;x"),
        ("üm", "ümläut"),
        ("a", "a*b"),
        ("fo\\ lder/i", "fo lder/in it"),
        ("'fo lder/i", "fo lder/in it"),
    ):
        line = typed.completed(f"mirrorback cat drive {begin}")
        # What bash, zsh and fish quote with, a POSIX shell reads alike.
        assert shlex.split(line) == ["mirrorback", "cat", "drive", name], (line, typed.printed)
    assert not (folder / "PWNED").exists()


def test_what_a_terminal_would_obey_is_not_offered(odd: tuple[Shell, Path]) -> None:
    typed, _folder = odd
    typed.printed = b""
    for begin in ("", "new", "esc", "bell", "rtl", "tab"):
        line = typed.completed(f"mirrorback cat drive {begin}")
        if begin:
            assert line == f"mirrorback cat drive {begin}"
    assert b"\x1b]0;title" not in typed.printed
    assert "\u202e".encode() not in typed.printed


# --- the program's answers -----------------------------------------------------------------


def test_the_answers(drive: Drive) -> None:
    assert drive.asked("names", "", str(drive.config)) == ["homework", "photos"]
    assert drive.asked("names", "h", str(drive.config)) == ["homework"]
    newest_first = [drive.mirror, *reversed(drive.names)]
    assert drive.asked("moments", "", str(drive.config), "homework") == ["latest", *newest_first]
    assert drive.asked("paths", "Doc", "", str(drive.repository)) == ["Documents/"]
    assert drive.asked("paths", "rem", "", str(drive.repository), drive.names[0]) == ["removed.txt"]
    assert drive.asked("ever", "", "", str(drive.repository)) == ["Documents/", "removed.txt"]


def test_where_nothing_can_be_told_nothing_is_said(drive: Drive, tmp_path: Path) -> None:
    for words in (
        [],
        ["nonsense"],
        ["names", "", str(tmp_path / "none.toml")],
        ["paths", "", "", str(tmp_path)],
        ["paths", "../", "", str(drive.repository)],
        ["paths", "no/such/", "", str(drive.repository)],
        ["paths", "", "", str(drive.repository), "never"],
        ["snapshots", "", "", "no-such-name"],
    ):
        done = run("__complete", *words, env=drive.env)
        assert (done.out, done.err) == ("", ""), words


def test_a_name_that_is_no_path_is_not_answered(nights: Nights, source: Path) -> None:
    (source / "good").write_text("x")
    (source / "-rf").write_text("x")
    nights.backup()
    assert run("__complete", "paths", "", "", nights.repository).out.split() == ["./-rf", "good"]
    db = sqlite3.connect(nights.repository / ".mirrorback" / "catalog.db")
    db.execute("UPDATE entry SET name = ? WHERE name = ?", (b"../evil", b"good"))
    db.execute("UPDATE snapshot SET name = ?", ("$(touch x)",))
    db.commit()
    db.close()
    for kind in ("paths", "ever", "snapshots"):
        out = run("__complete", kind, "", "", nights.repository).out
        assert "evil" not in out and "$" not in out


def test_a_drive_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    """A fifo in the place of a folder's settings would be waited for without end."""
    inner = tmp_path / "drive" / ".mirrorback"
    inner.mkdir(parents=True)
    os.mkfifo(inner / "config.toml")
    began = time.monotonic()
    done = run("__complete", "names", "", str(inner / "config.toml"))
    assert done.out == ""
    assert time.monotonic() - began < 5


def test_a_person_is_not_told_of_it() -> None:
    assert "__complete" not in run("--help").out
    assert shutil.which("bash")
