"""prune, and thinning by backup, as a person and a script meet them."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from mounts import wait_for
from program import PROGRAM, complaint, environment, run, start
from runs import Nights
from terminals import lines, on_terminal

from mirrorback.store.catalog import Catalog

COUNT = 6
NAMES = [f"2026-11-{day:02}-020000" for day in range(2, 2 + COUNT)]


@pytest.fixture
def several(nights: Nights) -> Nights:
    """Six nights, each with a file of its own."""
    (nights.source / "same").write_text("the same")
    for number in range(COUNT):
        (nights.source / "f").write_bytes(bytes([number]) * 40_000)
        time.sleep(0.02)
        nights.backup()
    return nights


def left(nights: Nights) -> list[str]:
    return [s["name"] for s in run("snapshots", nights.repository, "--json").json]


def pin(nights: Nights, name: str, reason: str | None) -> None:
    catalog = Catalog.open(bytes(nights.repository / ".mirrorback" / "catalog.db"), write=True)
    with catalog.transaction() as db:
        db.execute("UPDATE snapshot SET pinned = ? WHERE name = ?", (reason, name))
    catalog.close()


@pytest.mark.parametrize("dry", [True, False])
def test_json_has_the_fate_of_every_snapshot(several: Nights, dry: bool) -> None:
    more = ["-n"] if dry else []
    found = run("prune", several.repository, "--keep-daily", "2", "--json", *more).json
    assert [list(fate) for fate in found] == [["name", "keep", "reasons", "frees"]] * COUNT
    assert [fate["name"] for fate in found] == NAMES
    assert [fate["keep"] for fate in found] == [False] * 4 + [True] * 2
    assert found[-1]["reasons"] == ["the mirror", "daily snapshot"]
    assert found[0]["reasons"] == ["no rule keeps it"] and found[0]["frees"] >= 40_000
    assert left(several) == (NAMES if dry else NAMES[4:])
    assert len(several.folders()) == (5 if dry else 1)


def test_a_dry_run_is_a_line_a_snapshot(several: Nights) -> None:
    out = run("prune", several.repository, "--keep-last", "2", "--keep-within", "1d", "-n").out
    rows = [line.split(None, 2) for line in out.splitlines()]
    assert [row[0] for row in rows] == NAMES
    assert [row[1] for row in rows] == ["remove"] * 4 + ["keep"] * 2
    assert rows[-1][2] == "the mirror, last snapshot, within 1d"
    assert rows[0][2].endswith("no rule keeps it") and "KiB" in rows[0][2]


def test_what_was_done_is_said_in_words(several: Nights) -> None:
    out = run("prune", several.repository, "--keep-last", "4").out.splitlines()
    assert [line.split()[:2] for line in out[:2]] == [[name, "removed"] for name in NAMES[:2]]
    assert out[2].startswith("2 snapshots removed, ") and out[2].endswith("; 4 stay")
    assert len(out) == 3
    out = run("prune", several.repository, "--keep-last", "4", "-v").out.splitlines()
    assert len(out) == 5 and out[0].split()[1] == "keep"
    assert run("prune", several.repository, "--keep-last", "3", "-q").out == ""
    assert left(several) == NAMES[3:]


def test_the_table_fits_a_terminal(several: Nights) -> None:
    for width in (40, 80, 200):
        code, text = on_terminal(
            "prune", several.repository, "-n", "--keep-last", "2", "--time-machine", width=width
        )
        assert code == 0
        assert all(len(line) <= width for line in lines(text))
        assert NAMES[0] in text and "the mirror" in text.replace("\r\n", " ")
    assert "WHY" in text


def test_zones_decide_what_a_day_is(several: Nights) -> None:
    """In Honolulu these nights are the day before, all the same; an hour apart they are not."""
    for zone in ("Pacific/Honolulu", "Europe/Berlin"):
        done = run(
            "prune", several.repository, "-n", "--json", "--keep-daily", "3",
            env=environment(TZ=zone),
        )  # fmt: skip
        assert [fate["keep"] for fate in done.json] == [False] * 3 + [True] * 3


@pytest.mark.parametrize(
    "rules",
    [
        [],
        ["--keep-last", "0"],
        ["--keep-last", "-1"],
        ["--keep-last=-3"],
        ["--keep-daily", "two"],
        ["--keep-weekly", "1.5"],
        ["--keep-monthly", "99999999999999999999999"],
        ["--keep-yearly", ""],
        ["--keep-hourly", "1000001"],
        ["--keep-last"],
        ["--keep-within", "yesterday"],
        ["--keep-within", "0d"],
        ["--keep-within", "3w"],
        ["--keep-within", "-3d"],
        ["--keep-within", "5000y"],
        ["--min-free", "0"],
        ["--min-free", "0%"],
        ["--min-free", "100%"],
        ["--min-free", "-5%"],
        ["--min-free", "lots"],
        ["--min-free", "7E"],
        ["--keep-none", "--keep-last", "3"],
        ["--keep-none", "--min-free", "1%"],
        ["--keep-sometimes", "3"],
    ],
)
def test_policies_that_make_no_sense(several: Nights, rules: list[str]) -> None:
    said = complaint("prune", several.repository, *rules, code=2)
    if rules and rules != ["--keep-last"]:
        assert rules[0].split("=")[0] in said
    if rules:
        complaint("backup", several.source, several.repository, *rules, code=2)
    assert len(several.folders()) == COUNT - 1


def test_to_keep_nothing_has_to_be_said(several: Nights) -> None:
    assert "--keep-none" in complaint("prune", several.repository, "--keep-daily", "0", code=2)
    pin(several, NAMES[1], "thesis")
    run("prune", several.repository, "--keep-none")
    assert left(several) == [NAMES[1], NAMES[-1]]
    run("unpin", several.repository, NAMES[1])
    assert run("prune", several.repository, "--keep-none").out.endswith("; 1 stays\n")


def test_a_mass_change_is_refused_with_what_to_do(several: Nights) -> None:
    pin(several, NAMES[2], "mass change on 2026-11-04: 700 of 1,000 files removed, 0 changed")
    for more in ([], ["-n"]):
        said = complaint("prune", several.repository, "--keep-last", "1", *more, code=5)
        assert f"`mirrorback unpin {several.repository} {NAMES[2]}`" in said
    assert left(several) == NAMES
    done = run("backup", several.source, several.repository, "--keep-last", "1")
    assert "unpin" in done.err and left(several) == NAMES


def test_no_repository(tmp_path: Path) -> None:
    complaint("prune", tmp_path / "none", "--keep-last", "1", code=10)


def test_hostile_pins_reach_no_terminal_raw(several: Nights) -> None:
    pin(several, NAMES[0], "\x1b[2J[red]x")
    _code, text = on_terminal("prune", several.repository, "-n", "--keep-last", "1", width=200)
    assert "\x1b[2J" not in text and "[red]x" in text


def test_a_backup_tells_what_it_has_thinned(several: Nights) -> None:
    (several.source / "f").write_text("other")
    done = run("backup", several.source, several.repository, "--keep-last", "5", "-n")
    found = re.search(
        r"2 snapshots would be removed by the policy, (.*) would be freed: (.*)", done.out
    )
    assert found and found[2] == ", ".join(NAMES[:2])
    assert left(several) == NAMES
    done = run("backup", several.source, several.repository, "--keep-last", "5")
    assert f"2 snapshots removed by the policy, {found[1]} freed: {found[2]}" in done.out
    summary = run("backup", several.source, several.repository, "--keep-last", "1", "--json")
    assert summary.summary["snapshots_removed"] == left_before(several, NAMES[2:])
    assert len(left(several)) == 1
    assert run("verify", several.repository, "--json").json == []


def left_before(several: Nights, names: list[str]) -> list[str]:
    """All of the names that are gone by now."""
    now = left(several)
    return [name for name in names if name not in now]


def test_a_first_backup_may_have_a_policy(source: Path, repository: Path) -> None:
    (source / "f").write_text("x")
    done = run("backup", "--init", source, repository, "--time-machine", "--json")
    assert done.summary["snapshots_removed"] == [] and done.summary["bytes_freed"] == 0
    run("backup", source, repository, "--keep-none", "--always")
    assert len(run("snapshots", repository, "--json").json) == 1


def listens(pid: int) -> bool:
    """Whether a process has come so far that it handles SIGTERM itself."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.split("SigCgt:")[1].split()[0], 16) >> signal.SIGTERM - 1 & 1)


def test_interrupted_it_goes_on_the_next_time(several: Nights) -> None:
    process = start("prune", several.repository, "--keep-last", "1")
    wait_for(lambda: listens(process.pid) or process.poll() is not None)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode in (0, 143)
    run("prune", several.repository, "--keep-last", "1")
    assert left(several) == NAMES[-1:] and several.folders() == []
    assert run("verify", several.repository, "--json").json == []


def test_two_started_at_once(several: Nights) -> None:
    """One does the work; the other says that it is being done, or finds it done."""
    both = [start("prune", several.repository, "--keep-last", "2") for _ in range(2)]
    codes = []
    for process in both:
        _out, err = process.communicate(timeout=60)
        codes.append(process.returncode)
        assert b"Traceback" not in err
    assert 0 in codes and set(codes) <= {0, 11}
    assert left(several) == NAMES[4:]


def test_the_result_of_a_prune_that_nobody_reads(several: Nights) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$0" "$@" | :', PROGRAM, "prune", several.repository, "--keep-last", "1"],
        env=environment(),
        capture_output=True,
        timeout=60,
    )
    assert b"Traceback" not in done.stderr
    deadline = time.monotonic() + 30
    while len(left(several)) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left(several) == NAMES[-1:]
