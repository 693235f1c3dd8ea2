"""pin and unpin, and what a mass change has pinned."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from program import Done, complaint, environment, run
from runs import Nights
from terminals import CONTROL, on_terminal

NAMES = [f"2026-11-0{day}-020000" for day in (2, 3, 4)]


@pytest.fixture
def three(nights: Nights) -> Nights:
    for night in ("one", "two", "three"):
        (nights.source / "f").write_text(night)
        time.sleep(0.03)
        nights.backup()
    return nights


def pins(nights: Nights) -> list[str | None]:
    return [s["pinned"] for s in run("snapshots", nights.repository, "--json").json]


def test_a_pin_keeps_and_unpin_lets_go(three: Nights) -> None:
    assert pins(three) == [None, None, None]
    done = run("pin", three.repository, NAMES[0], "--reason", "before the \x1b[31mmove")
    assert "\x1b" not in done.out and "before the \\x1b[31mmove" in done.out
    assert pins(three) == ["before the \x1b[31mmove", None, None]
    shown = run("snapshots", three.repository).out
    assert "pinned: before the \\x1b[31mmove" in shown and "\x1b" not in shown
    said = complaint("delete", three.repository, NAMES[1], NAMES[0], code=5)
    assert "unpin" in said and NAMES[0] in said
    assert (three.repository / NAMES[1]).exists()
    assert complaint("delete", "-n", three.repository, NAMES[1], NAMES[0], code=5) == said
    assert run("unpin", three.repository, NAMES[0]).out == f"unpinned {NAMES[0]}\n"
    run("delete", three.repository, NAMES[0])


def test_twice(three: Nights) -> None:
    run("pin", three.repository, NAMES[0], NAMES[0], "--reason", "mine")
    assert run("pin", three.repository, NAMES[0]).out == f"still pinned {NAMES[0]}: mine\n"
    assert pins(three) == ["mine", None, None]
    run("pin", three.repository, NAMES[0], "--reason", "another")
    run("pin", three.repository, NAMES[1])
    assert pins(three) == ["another", "by hand", None]
    run("unpin", three.repository, *NAMES)
    done = run("unpin", three.repository, NAMES[0], NAMES[0])
    assert done.out == f"{NAMES[0]} was not pinned\n"
    assert pins(three) == [None] * 3


def test_json_and_quiet(three: Nights) -> None:
    done = run("pin", "--json", three.repository, NAMES[1], NAMES[0], "--reason", "x")
    assert done.json == [{"name": n, "pinned": "x"} for n in (NAMES[1], NAMES[0])]
    assert run("unpin", "--json", three.repository, NAMES[1]).json == [
        {"name": NAMES[1], "pinned": None}
    ]
    assert run("pin", "-q", three.repository, NAMES[1]).out == ""


@pytest.mark.parametrize("name", ["latest", "now", "current", NAMES[2]])
def test_the_mirror_keeps_its_pin_as_a_dated_folder(three: Nights, name: str) -> None:
    run("pin", three.repository, name)
    (three.source / "f").write_text("four")
    three.backup()
    assert pins(three) == [None, None, "by hand", None]
    complaint("delete", three.repository, NAMES[2], code=5)


def test_names_as_delete_takes_them(three: Nights) -> None:
    top = three.repository
    run("pin", top, top / NAMES[0], f"{top.name}/{NAMES[1]}/", top / "current", cwd=top.parent)
    assert pins(three) == ["by hand"] * 3
    for command in ("pin", "unpin"):
        for name in ("1B", "2026-11-02", "2001-01-01-000000", "../etc", "", "/", "."):
            complaint(command, top, name, code=1)
        assert "\x1b" not in complaint(command, top, "a\x1b[1mb\u202e", code=1)
        complaint(command, top, code=2)
        complaint(command, top / "none", NAMES[0], code=10)
    complaint("unpin", top, NAMES[0], "none", code=1)
    assert pins(three) == ["by hand"] * 3
    complaint("pin", top, NAMES[0], "--reason", " ", code=2)


def test_a_snapshot_of_another_repository_is_not_meant(three: Nights, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", three.repository, tmp_path / "other"], check=True)
    other = tmp_path / "other" / NAMES[0]
    assert "not in the repository" in complaint("delete", three.repository, other, code=1)
    complaint("pin", three.repository, other, code=1)
    assert pins(three) == [None] * 3 and (three.repository / NAMES[0]).exists()


def test_another_run_holds_the_repository(three: Nights) -> None:
    lock = os.open(three.repository / ".mirrorback" / "lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complaint("pin", three.repository, NAMES[0], code=11)
        complaint("unpin", three.repository, NAMES[0], code=11)
    finally:
        os.close(lock)


def many(folder: Path, count: int) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number}").write_text(f"{number}")


def test_a_mass_change_is_seen_and_acknowledged(nights: Nights) -> None:
    many(nights.source / "d", 1100)
    time.sleep(0.03)
    run("backup", "--init", nights.source, nights.repository)
    run("pin", nights.repository, "latest", "--reason", "mass change of my own")
    assert pins(nights) == ["by hand: mass change of my own"]
    for number in range(600):
        (nights.source / "d" / f"{number}").unlink()
    warned = run("backup", nights.source, nights.repository).err
    first, _second = (s["name"] for s in run("snapshots", nights.repository, "--json").json)
    command = f"mirrorback unpin {nights.repository} {first}"
    assert command in warned and len(warned.splitlines()) == 1
    [told, _] = run("snapshots", nights.repository).out.splitlines()
    assert "mass change on " in told and "600 of 1,100 files removed" in told
    assert command in told and "nothing is thinned" in told
    said = complaint("pin", nights.repository, first, "--reason", "harmless", code=5)
    assert "unpin" in said
    done = run("pin", nights.repository, first)
    assert done.out.startswith(f"still pinned {first}: mass change")
    done = run(*shlex.split(command)[1:])
    assert "thinning goes on" in done.out
    assert f"still pinned {first}: by hand: mass change of my own" in done.out
    assert pins(nights) == ["by hand: mass change of my own", None]
    assert "thinning" not in run("unpin", nights.repository, first).out
    assert pins(nights) == [None, None]


def test_a_person_follows_what_is_said(nights: Nights, tmp_path: Path) -> None:
    """From the night of a mass change until thinning goes on, by the commands that are told."""
    state = {"MIRRORBACK_STATE_DIR": str(tmp_path / "state")}
    file = tmp_path / "config.toml"
    file.write_text(
        f"[backup.home]\nsource = '{nights.source}'\nrepository = '{nights.repository}'\n"
        "keep-last = 1\n"
    )

    def ours(*words: str, code: int = 0) -> Done:
        return run(*words, "--config", file, code=code, env=environment(**state))

    many(nights.source / "d", 1100)
    run("backup", "--init", nights.source, nights.repository)
    for path in (nights.source / "d").iterdir():
        path.write_text("encrypted")
    time.sleep(0.03)
    assert ours("run").err.count("unpin") == 1
    first, mirror = (s["name"] for s in run("snapshots", nights.repository, "--json").json)
    assert ours("status", "--json").json[0]["pinned"] == [first]
    code, shown = on_terminal("status", "--config", file, width=60)
    assert code == 0 and "nothing is thinned" in CONTROL.sub("", shown).replace("\r\n", " ")
    told = re.findall(r"`mirrorback ([^`]*)`", ours("status").out)
    assert [command.split()[0] for command in told] == ["diff", "unpin"]
    changed = ours(*told[0].split(), "--json").json
    assert len(changed) == 1100 and {row["change"] for row in changed} == {"modified"}
    assert "unpin" in ours("run").err
    assert "thinning goes on" in ours(*told[1].split()).out
    assert ours("status", "--json").json[0]["pinned"] == []
    assert "pinned" not in run("snapshots", nights.repository).out
    ours("run")
    assert [s["name"] for s in run("snapshots", nights.repository, "--json").json] == [mirror]


def test_two_mass_changes(nights: Nights) -> None:
    names = []
    for night in range(3):
        many(nights.source / f"d{night}", 1100)
        if night:
            for path in (nights.source / f"d{night - 1}").iterdir():
                path.unlink()
        time.sleep(0.03)
        nights.backup()
    names = [s["name"] for s in run("snapshots", nights.repository, "--json").json]
    out = run("unpin", nights.repository, names[0]).out
    assert "still waits" in out and names[1] in out
    assert "goes on" in run("unpin", nights.repository, names[1]).out


def test_a_pin_completes_what_was_begun(three: Nights) -> None:
    from mirrorback.store import record
    from mirrorback.store.catalog import Catalog

    path = os.fsencode(three.repository / ".mirrorback" / "catalog.db")
    catalog = Catalog.open(path, write=True)
    record.deleting(catalog, catalog.snapshots()[0].id, ())
    catalog.close()
    complaint("pin", three.repository, NAMES[0], code=1)  # it is going
    assert not (three.repository / NAMES[0]).exists()


def test_killed_at_any_moment_all_are_pinned_or_none(three: Nights) -> None:
    code = (
        "import os, sys, mirrorback.store.record as record, mirrorback.store.catalog as c\n"
        "was = record.pin\n"
        "def pin(catalog, pins):\n"
        "    catalog.db.set_progress_handler(lambda: os._exit(9), int(os.environ['STEPS']))\n"
        "    was(catalog, pins)\n"
        "    os._exit(9)\n"
        "record.pin = pin\n"
        "from mirrorback.cli.app import main\nmain()"
    )
    seen = set()
    for steps in (1, 5, 10, 20, 30, 40, 60, 100, 10_000):
        subprocess.run(
            [sys.executable, "-c", code, "pin", three.repository, *NAMES],
            env=environment(STEPS=str(steps)),
        )
        found = pins(three)
        assert found in ([None] * 3, ["by hand"] * 3)
        seen.add(found[0])
        run("unpin", three.repository, *NAMES)
    assert seen == {None, "by hand"}
