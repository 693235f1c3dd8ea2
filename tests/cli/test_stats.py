"""`stats` as a person and a script see it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from filesystems import mounted, require_root
from program import NOBODY, complaint, environment, run
from runs import LargeNights, Nights, change_pages, noise
from terminals import CONTROL, lines, on_terminal

from mirrorback.cli import chart
from mirrorback.engine.stats import Statistics

MIB = 1 << 20


def furnish(nights: Nights, count: int = 4) -> list[str]:
    """So many nights with a new file, and one that changes; the snapshots' names."""
    for night in range(count):
        (nights.source / f"new-{night}").write_bytes(noise(MIB, night))
        (nights.source / "changed").write_bytes(noise(2 * MIB, 100 + night))
        time.sleep(0.03)
        nights.backup()
    with nights.history() as history:
        return [snapshot.name for snapshot in history.snapshots()]


def require_integers(value: Any, where: str = "") -> None:
    """Bytes and counts are whole numbers."""
    if isinstance(value, dict):
        for key, inner in value.items():
            require_integers(inner, key)
    elif isinstance(value, list):
        for inner in value:
            require_integers(inner, where)
    elif isinstance(value, float):
        assert where == "ratio"


def test_json(nights: Nights) -> None:
    names = furnish(nights)
    found = run("stats", nights.repository, "--json").json
    assert list(found) == [
        "snapshots",
        "together",
        "totals",
        "growth",
        "largest",
        "most_changed",
    ]
    require_integers(found)
    assert [row["name"] for row in found["snapshots"]] == names
    assert found["together"] is None
    *older, mirror = found["snapshots"]
    for row in older:
        assert 2 * MIB <= row["exclusive"] < 2 * MIB + 16_384
        assert row["exclusive"] <= row["frees"] <= row["exclusive"] + 4096
        assert datetime.fromisoformat(row["time"]).tzinfo is not None
    assert (mirror["current"], mirror["frees"]) == (True, None)
    assert 3 * MIB <= mirror["exclusive"] < 3 * MIB + 16_384
    totals = found["totals"]
    assert (totals["snapshots"], totals["versions"]) == (4, 8)
    assert totals["logical_bytes"] == sum(row["bytes"] for row in found["snapshots"]) == 18 * MIB
    assert 12 * MIB <= totals["files_bytes"] < 13 * MIB
    parts = totals["files_bytes"] + totals["folders_bytes"] + totals["catalog_bytes"]
    assert totals["drive_bytes"] == parts + sum(totals["other_bytes"].values())
    assert totals["ratio"] == round(totals["logical_bytes"] / totals["drive_bytes"], 3)
    assert totals["other_bytes"]["reserve"] >= 4 * MIB
    assert totals["bytes_per_day"] is totals["full_at"] is None
    assert [row["name"] for row in found["growth"]] == names
    assert found["growth"][-1]["total"] == totals["files_bytes"] + totals["folders_bytes"]
    for row in found["growth"]:
        assert 3 * MIB <= row["added"] < 4 * MIB
    assert found["largest"][0]["path"] == "changed"
    assert found["largest"][0]["versions"] == 4
    assert 8 * MIB <= found["largest"][0]["bytes"] < 9 * MIB
    assert found["most_changed"] == found["largest"][:1]


def test_the_whole_is_what_du_says(large: LargeNights) -> None:
    image = large.source / "image"
    image.write_bytes(noise(8 * MIB, 1))
    with (large.source / "hole").open("wb") as file:
        file.truncate(200 * MIB)
        file.seek(100 * MIB)
        file.write(noise(MIB, 3))
    for night in range(4):
        furnish(large, 1)
        change_pages(image, night, 50)
        os.link(large.source / "changed", large.source / f"link-{night}")
        time.sleep(0.03)
        large.backup()
    totals = run("stats", large.repository, "--json").json["totals"]
    done = subprocess.run(
        ["du", "-s", "-B1", "--exclude=README.txt", large.repository],
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = int(done.stdout.split()[0])
    assert abs(totals["drive_bytes"] - wanted) <= 3 * 4096  # the folders that hold it all


def test_several_free_more_than_each(nights: Nights) -> None:
    names = furnish(nights)
    (nights.source / "changed").write_bytes(noise(100, 1))
    (nights.source / "new-1").unlink()
    time.sleep(0.03)
    nights.backup()
    found = run("stats", nights.repository, f"{names[1]}..{names[3]}", "--json").json
    assert found["together"]["snapshots"] == names[1:4]
    assert [row["name"] for row in found["snapshots"]] == names[1:4]
    each = sum(row["frees"] for row in found["snapshots"])
    assert found["together"]["frees"] >= each + MIB
    text = run("stats", nights.repository, f"{names[1]}..", names[2]).out
    assert "deleting 3 snapshots frees " in text
    assert len(text.splitlines()) == 4
    one = run("stats", nights.repository, names[1], "--json").json
    fates = run("delete", "-n", nights.repository, names[1], "--json").json
    assert one["together"]["frees"] == fates[0]["frees"]


def test_names_that_are_none(nights: Nights) -> None:
    names = furnish(nights, 2)
    for word in ("latest", names[1], "..", f"{names[1]}..{names[0]}", "nonsense"):
        complaint("stats", nights.repository, word, code=2)
    complaint("stats", nights.repository, "1990-01-01", code=1)
    for top in ("-1", "x", "1.5", "10000000", "", "\u0662"):
        complaint("stats", nights.repository, f"--top={top}", code=2)
    complaint("stats", nights.repository / "none", code=10)


def test_an_empty_repository(source: Path, repository: Path) -> None:
    run("init", repository, "--source", source)
    found = run("stats", repository, "--json").json
    assert [found[key] for key in ("snapshots", "growth", "largest", "most_changed")] == [[]] * 4
    assert found["totals"]["snapshots"] == found["totals"]["logical_bytes"] == 0
    assert found["totals"]["ratio"] is None
    assert "0 snapshots" in run("stats", repository).out
    assert on_terminal("stats", repository)[0] == 0
    complaint("stats", repository, "latest", code=1)


@pytest.mark.parametrize("size", [0, 1, MIB])
def test_one_snapshot(nights: Nights, size: int) -> None:
    (nights.source / "f").write_bytes(noise(size, 1))
    nights.backup()
    found = run("stats", nights.repository, "--json").json
    (only,) = found["snapshots"]
    blocks = -(-size // 4096) * 4096
    assert (only["exclusive"], only["frees"], only["bytes"]) == (blocks, None, size)
    assert found["totals"]["files_bytes"] == blocks
    assert found["most_changed"] == []
    assert [row["path"] for row in found["largest"]] == ["f"]
    assert "1 snapshot, 1 version of files" in run("stats", nights.repository).out


def test_files_of_no_bytes(nights: Nights) -> None:
    for night in range(3):
        (nights.source / "f").touch()
        os.utime(nights.source / "f", (night, night))
        time.sleep(0.03)
        nights.backup()
    found = run("stats", nights.repository, "--json").json
    assert [row["exclusive"] for row in found["snapshots"]] == [0, 0, 0]
    assert found["most_changed"] == [{"path": "f", "versions": 3, "bytes": 0}]
    assert on_terminal("stats", nights.repository)[0] == 0


def test_a_snapshot_whose_folder_is_missing(nights: Nights) -> None:
    names = furnish(nights, 3)
    shutil.rmtree(nights.repository / names[0])
    found = run("stats", nights.repository, "--json").json
    assert found["snapshots"][0]["exclusive"] == 0
    assert found["snapshots"][1]["frees"] >= 2 * MIB
    run("stats", nights.repository)


def test_how_many_paths(nights: Nights) -> None:
    furnish(nights, 3)
    assert len(run("stats", nights.repository, "--json", "--top", "2").json["largest"]) == 2
    found = run("stats", nights.repository, "--json", "--top", "0").json
    assert found["largest"] == found["most_changed"] == []
    assert "Largest" not in run("stats", nights.repository, "--top", "0").out


def test_hostile_names(nights: Nights) -> None:
    evil = b"\x1b[2J[red]x\n\xff"
    with open(os.path.join(os.fsencode(nights.source), evil), "wb") as file:
        file.write(noise(MIB, 1))
    nights.backup()
    for text in (run("stats", nights.repository).out, on_terminal("stats", nights.repository)[1]):
        assert "\\x1b[2J[red]x\\n\\xff" in text
        assert "\x1b[2J" not in text
    found = run("stats", nights.repository, "--json").json
    assert os.fsencode(found["largest"][0]["path"]) == evil


def test_no_escape_codes_off_a_terminal(nights: Nights) -> None:
    furnish(nights, 3)
    text = run("stats", nights.repository).out
    assert "\x1b" not in text and "\u2588" not in text
    assert re.search(r"Added by each snapshot\n2026\S+ +3\.0 MiB +3\.0 MiB\n", text)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_chart_fits_the_width(nights: Nights, width: int) -> None:
    furnish(nights, 30)
    code, text = on_terminal("stats", nights.repository, width=width)
    assert code == 0
    shown = [line for line in lines(text) if not line.startswith("at this rate ")]
    assert max(map(len, shown)) <= width
    plot = [line for line in shown if "\u2524" in line]
    assert len(plot) == chart.HEIGHT
    assert "\u2588" in plot[0]
    assert "Added by each " in text


def test_a_terminal_too_narrow_for_a_chart(nights: Nights) -> None:
    furnish(nights, 3)
    code, text = on_terminal("stats", nights.repository, width=20)
    assert code == 0
    assert "\u2524" not in text
    assert "ADDED" in text or "MiB" in text


def test_a_terminal_without_block_characters(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    furnish(nights, 4)
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    code, text = on_terminal("stats", nights.repository)
    assert code == 0
    assert CONTROL.sub("", text).isascii()
    assert "\\u2588" not in text
    assert len(re.findall(r"\|#+", CONTROL.sub("", text).replace(" ", ""))) >= 1


def test_at_this_rate(nights: Nights) -> None:
    furnish(nights, 20)
    with nights.history() as history:
        overview = Statistics(history, nights.now).overview(10)
    leads = overview.forecast
    assert leads is not None and leads.full_in is not None
    assert leads.per_day == sum(point.added for point in overview.growth[1:]) // 19
    days = leads.full_in / (86_400 * 10**9)
    assert abs(days - overview.totals.free / leads.per_day) < 1


def test_a_drive_that_cannot_be_written(tmp_path: Path, source: Path) -> None:
    require_root()
    with mounted("ext4", tmp_path / "drive") as drive:
        nights = Nights(source, drive / "backup")
        names = furnish(nights, 3)
        wanted = run("stats", nights.repository, "--json").json["snapshots"]
        subprocess.run(["mount", "-o", "remount,ro", drive], check=True)
        assert run("stats", nights.repository, "--json").json["snapshots"] == wanted
        run("stats", nights.repository, names[0])


def test_while_another_run_holds_the_repository(nights: Nights) -> None:
    furnish(nights, 3)
    held = subprocess.Popen(
        ["flock", nights.repository / ".mirrorback" / "lock", "sleep", "30"],
        env=environment(),
    )
    try:
        time.sleep(0.3)
        run("stats", nights.repository, "--json")
    finally:
        held.kill()
        held.wait()


def test_a_folder_that_may_not_be_entered(nights: Nights, tmp_path: Path) -> None:
    """Then sizes have to do."""
    require_root()
    (nights.source / "d").mkdir()
    (nights.source / "d" / "f").write_bytes(noise(MIB, 1))
    nights.backup()
    (nights.source / "d" / "f").write_bytes(noise(10, 2))
    nights.backup()
    (nights.folders()[0] / "d").chmod(0)
    subprocess.run(["chown", "-R", str(NOBODY), nights.repository], check=True)
    for path in (tmp_path, *tmp_path.parents):
        if path != Path("/"):
            path.chmod(path.stat().st_mode | 0o005)
    found = run("stats", nights.repository, "--json", uid=NOBODY).json["snapshots"][0]
    assert (found["exclusive"], found["estimated"]) == (MIB, True)
