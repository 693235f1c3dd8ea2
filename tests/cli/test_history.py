"""The commands that look back: what they print, for people and for scripts."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from program import PROGRAM, complaint, run
from runs import Nights


@pytest.fixture
def four(nights: Nights) -> Nights:
    """Four nights: a file that comes, changes, moves with its folder, and goes."""
    source = nights.source
    (source / "keep").write_text("k")
    (source / "d").mkdir()
    (source / "d" / "f").write_text("one")
    time.sleep(0.03)
    nights.backup()
    (source / "d" / "f").write_text("second")
    (source / "d").chmod(0o700)
    nights.backup()
    time.sleep(0.03)
    (source / "d").rename(source / "e")
    (source / "keep").chmod(0o600)
    nights.backup()
    (source / "e" / "f").unlink()
    (source / "e" / "f").symlink_to("keep")
    (source / "plus").write_text("p")
    nights.backup()
    return nights


def rows(nights: Nights, command: str, *rest: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run(command, nights.repository, *rest, "--json").json
    return found


NAMES = [f"2026-11-0{day}-020000" for day in (2, 3, 4, 5)]


def test_snapshots(four: Nights) -> None:
    found = rows(four, "snapshots")
    assert [s["name"] for s in found] == NAMES
    assert [s["current"] for s in found] == [False, False, False, True]
    assert found[0]["time"] == "2026-11-02T02:00:00+00:00"
    assert found[0]["path"] == str(four.repository / NAMES[0])
    assert found[-1]["path"] == str(four.current)
    assert [(s["files"], s["bytes"]) for s in found] == [(2, 4), (2, 7), (2, 7), (3, 2)]


def test_versions(four: Nights) -> None:
    found = rows(four, "versions", "d/f")
    assert [(v["first_snapshot"], v["last_snapshot"], v["size"]) for v in found] == [
        (NAMES[0], NAMES[0], 3),
        (NAMES[1], NAMES[1], 6),
    ]
    assert [Path(v["location"]).read_text() for v in found] == ["one", "second"]
    assert all(v["digest"].startswith("blake3:") and v["stored"] == "whole" for v in found)


def test_versions_follow_a_move(four: Nights) -> None:
    found = rows(four, "versions", "e/f")
    assert [(v["type"], v.get("moved_from")) for v in found] == [
        ("file", "d/f"),
        ("symlink", None),
    ]
    followed = rows(four, "versions", "e/f", "--follow")
    assert [v["path"] for v in followed] == ["d/f", "d/f", "e/f", "e/f"]


def test_versions_follow_over_deleted_snapshots(nights: Nights) -> None:
    """Moved with its folder and by itself, changed, and none but the ends are left."""
    (nights.source / "a").mkdir()
    (nights.source / "a" / "f").write_text("one")
    (nights.source / "other").write_text("other")
    time.sleep(0.03)
    nights.backup()
    (nights.source / "a").rename(nights.source / "b")
    nights.backup()
    (nights.source / "b" / "f").rename(nights.source / "g")
    nights.backup()
    time.sleep(0.03)
    (nights.source / "g").write_text("second")
    nights.backup()
    whole = [(v["path"], v["size"]) for v in rows(nights, "versions", "g", "--follow")]
    assert whole == [("a/f", 3), ("b/f", 3), ("g", 3), ("g", 6)]
    nights.delete(NAMES[1])
    found = [(v["path"], v["size"]) for v in rows(nights, "versions", "g", "--follow")]
    assert found == [("a/f", 3), ("g", 3), ("g", 6)]
    nights.delete(NAMES[2])
    found = [(v["path"], v["size"]) for v in rows(nights, "versions", "g", "--follow")]
    assert found == [("a/f", 3), ("g", 6)]
    assert [v["path"] for v in rows(nights, "versions", "g")] == ["g"]


def test_versions_follow_a_move_there_and_back(nights: Nights) -> None:
    (nights.source / "f").write_text("one")
    (nights.source / "other").write_text("other")
    time.sleep(0.03)
    nights.backup()
    (nights.source / "f").rename(nights.source / "g")
    nights.backup()
    (nights.source / "g").rename(nights.source / "f")
    nights.backup()
    assert [v["path"] for v in rows(nights, "versions", "f", "--follow")] == ["f", "g", "f"]
    time.sleep(0.03)
    (nights.source / "f").write_text("second")
    nights.backup()
    nights.delete(NAMES[2])
    assert [v["path"] for v in rows(nights, "versions", "f", "--follow")] == ["f", "g", "f"]
    nights.delete(NAMES[1])
    assert [v["path"] for v in rows(nights, "versions", "f", "--follow")] == ["f", "f"]


def test_versions_follow_no_other_file(nights: Nights) -> None:
    """What was at the path before, and what came to the old one, are other files."""
    (nights.source / "f").write_text("one")
    time.sleep(0.03)
    nights.backup()
    (nights.source / "f").rename(nights.source / "g")
    nights.backup()
    (nights.source / "f").write_text("not that file")
    (nights.source / "g").unlink()
    nights.backup()
    (nights.source / "g").write_text("again another one")
    nights.backup()
    nights.delete(NAMES[1])
    assert [v["size"] for v in rows(nights, "versions", "g", "--follow")] == [17]


def test_versions_of_a_folder_ignore_its_time(four: Nights) -> None:
    (four.source / "e" / "more").write_text("x")
    four.backup()
    found = rows(four, "versions", "e")
    assert len(found) == 1 and found[0]["moved_from"] == "d"
    assert [v["mode"] for v in rows(four, "versions", "d")] == ["0755", "0700"]


def test_removed_and_made_again_is_two_rows(four: Nights) -> None:
    (four.source / "plus").unlink()
    four.backup()
    (four.source / "plus").write_text("p")
    four.backup()
    found = rows(four, "versions", "plus")
    assert [(v["first_snapshot"], v["last_snapshot"]) for v in found] == [
        (NAMES[3], NAMES[3]),
        ("2026-11-07-020000", "2026-11-07-020000"),
    ]


def test_find(four: Nights) -> None:
    assert [(v["path"], v["first_snapshot"]) for v in rows(four, "find", "f")] == [
        ("d/f", NAMES[0]),
        ("d/f", NAMES[1]),
        ("e/f", NAMES[2]),
        ("e/f", NAMES[3]),
    ]
    assert {v["path"] for v in rows(four, "find", "d/*")} == {"d/f"}
    assert rows(four, "find", "KEEP") == []
    assert {v["path"] for v in rows(four, "find", "-i", "KEEP")} == {"keep"}
    assert "no such" not in run("find", four.repository, "nothing").err


def test_diff(four: Nights) -> None:
    def changes(*which: str) -> list[tuple[str, str, str | None]]:
        return [(c["path"], c["change"], c["from"]) for c in rows(four, "diff", *which)]

    assert changes(NAMES[0], NAMES[1]) == [("d", "metadata", None), ("d/f", "modified", None)]
    assert changes(NAMES[1], NAMES[2]) == [
        ("e", "moved", "d"),
        ("e/f", "moved", "d/f"),
        ("keep", "metadata", None),
    ]
    assert changes(NAMES[2]) == [("e/f", "retyped", None), ("plus", "added", None)]
    assert changes(NAMES[3]) == []
    assert ("plus", "removed", None) in changes(NAMES[3], NAMES[0])


def test_ls(four: Nights) -> None:
    assert [e["path"] for e in rows(four, "ls")] == ["e", "keep", "plus"]
    assert [e["path"] for e in rows(four, "ls", "-R")] == ["e", "e/f", "keep", "plus"]
    assert [e["path"] for e in rows(four, "ls", "d", "--at", "3B")] == ["d/f"]
    entry = rows(four, "ls", "keep", "--at", NAMES[0])[0]
    assert (entry["type"], entry["size"], entry["mode"], entry["stored"]) == (
        "file",
        1,
        "0644",
        "whole",
    )
    plain = run("ls", four.repository).out.splitlines()
    assert plain[0].startswith("drwx------") and plain[0].endswith(" e")
    assert plain[1].startswith("-rw-------")


WHENS = {
    "latest": 3,
    "now": 3,
    "0B": 3,
    "3B": 0,
    NAMES[1]: 1,
    "2026-11-03": 1,
    "2026-11-04T02:00": 2,
    "2026-11-04T01:59:59": 1,
    "2026-11-04T03:00+01:00": 2,
    "2026-11-03T02:00:00+00:00": 1,
    "1d": 3,
}


@pytest.mark.parametrize("when", WHENS)
def test_when(four: Nights, when: str) -> None:
    shown = run(
        "ls", four.repository, "--at", when, "--json", "-R", env=dict(os.environ, TZ="UTC")
    ).json
    names = {entry["path"] for entry in shown}
    expected = [{"d", "d/f", "keep"}, {"d", "d/f", "keep"}, {"e", "e/f", "keep"}]
    assert names == [*expected, {"e", "e/f", "keep", "plus"}][WHENS[when]]


@pytest.mark.parametrize(
    ("when", "code"), [("2020-01-01", 1), ("9B", 1), ("yesterday", 2), ("2026-13-01", 2), ("", 2)]
)
def test_a_when_that_is_none(four: Nights, when: str, code: int) -> None:
    said = complaint("ls", four.repository, "--at", when, code=code)
    if when == "2020-01-01":
        assert NAMES[0] in said


def test_paths_in_all_their_forms(four: Nights) -> None:
    forms: list[tuple[str | Path, Path | None]] = [
        ("keep", None),
        ("./keep", None),
        ("e/../keep", None),
        (four.source / "keep", None),
        (four.current / "keep", None),
        (four.repository / NAMES[0] / "keep", None),
        ("current/keep", four.repository),
        (f"{NAMES[0]}/keep", four.repository),
        ("keep", four.repository / NAMES[1]),
    ]
    for path, cwd in forms:
        assert run("cat", four.repository, path, cwd=cwd).out == "k", path
    assert run("cat", four.repository, four.repository / NAMES[0] / "d" / "f").out == "one"
    assert run("cat", four.repository, four.source / "d" / "f", "--at", NAMES[1]).out == "second"
    complaint("cat", four.repository, four.current / "keep", "--at", NAMES[0], code=2)
    complaint("cat", four.repository, "never", code=1)
    complaint("cat", four.repository, "e", code=1)
    complaint("cat", four.repository, "/etc/passwd", code=2)
    complaint("versions", four.repository, "never/was", code=1)


def test_cat_gives_the_bytes(nights: Nights) -> None:
    content = os.urandom(3_000_000) + b"\x1b[31m\n\0"
    (nights.source / "f").write_bytes(content)
    nights.backup()
    out = subprocess.run(
        [PROGRAM, "cat", nights.repository, "f"], capture_output=True, check=True
    ).stdout
    assert out == content


@pytest.mark.parametrize("pattern", ["[", "[a", "[!", "x[a-"])
def test_a_pattern_that_does_not_parse(four: Nights, pattern: str) -> None:
    complaint("find", four.repository, pattern, code=2)


def test_sizes_that_are_none(four: Nights) -> None:
    for option in ("--exclude-larger-than", "--delta-min-size"):
        complaint("backup", four.source, four.repository, option, "lots", code=2)
    complaint("backup", four.source, four.repository, "--exclude-from", "/nowhere", code=2)
    complaint("backup", four.source, four.repository, "--no-such-option", code=2)
    complaint("backup", four.source, four.repository, "--large-files", "magic", code=2)


@pytest.mark.parametrize("size", [0, 10, 100, 5000])
def test_a_catalog_cut_short(four: Nights, size: int) -> None:
    os.truncate(four.repository / ".mirrorback" / "catalog.db", size)
    for command in (["snapshots"], ["ls"], ["verify"]):
        assert "rebuild" in complaint(command[0], four.repository, code=4)
    assert "rebuild" in complaint("backup", four.source, four.repository, code=4)
    assert (four.repository / NAMES[0] / "d" / "f").read_text() == "one"


def test_a_catalog_that_is_gone_or_garbage(four: Nights) -> None:
    path = four.repository / ".mirrorback" / "catalog.db"
    path.write_bytes(os.urandom(50_000))
    assert "rebuild" in complaint("ls", four.repository, code=4)
    path.unlink()
    assert "rebuild" in complaint("ls", four.repository, code=4)
    assert "rebuild" in complaint("backup", four.source, four.repository, code=4)
    assert not path.exists()


def test_a_flipped_bit_in_a_row_of_the_catalog_is_found(four: Nights) -> None:
    """SQLite does not see a flipped bit in a payload."""
    path = four.repository / ".mirrorback" / "catalog.db"
    whole = path.read_bytes()
    at = whole.index(b"keep")
    path.write_bytes(whole[:at] + b"kEep" + whole[at + 4 :])
    assert run("verify", four.repository, "--json", code=4).json != []
    path.write_bytes(whole)
    assert run("verify", four.repository, "--json").json == []


def test_json_is_the_only_thing_on_standard_output(four: Nights) -> None:
    for command in (
        ["snapshots"],
        ["ls"],
        ["versions", "keep"],
        ["find", "*"],
        ["diff", "1B"],
        ["verify"],
        ["doctor"],
    ):
        done = run(command[0], four.repository, *command[1:], "--json")
        json.loads(done.out)
        assert done.err == ""


def test_quiet_says_nothing_when_all_is_well(four: Nights, tmp_path: Path) -> None:
    for arguments in (
        ["backup", four.source, four.repository],
        ["verify", four.repository],
        ["doctor", four.repository],
        ["restore", four.repository, "--to", tmp_path / "out"],
        ["delete", four.repository, NAMES[0]],
    ):
        done = run(*arguments, "-q")
        assert (done.out, done.err) == ("", "")


def test_names_reach_no_terminal_raw(nights: Nights) -> None:
    evil = b"\x1b[31mred\x07[bold]x[bold]\xff\xe2\x80\xae"
    with open(os.path.join(os.fsencode(nights.source), evil), "wb") as file:
        file.write(b"x")
    nights.backup()
    for command in (["ls"], ["find", "*"], ["diff", "0B"], ["versions", evil]):
        done = run(command[0], nights.repository, *command[1:])
        assert "\x1b" not in done.out and "\x07" not in done.out and "\u202e" not in done.out
        if command[0] != "diff":
            assert "[bold]x[bold]" in done.out
    found = run("ls", nights.repository, "--json").json
    assert os.fsencode(found[0]["path"]) == evil
