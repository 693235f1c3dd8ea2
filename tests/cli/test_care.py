"""verify, delete, doctor and init, as a person meets them."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from program import complaint, run
from runs import Nights


@pytest.fixture
def three(nights: Nights) -> Nights:
    """Three nights; `f` changes each time, `same` never."""
    (nights.source / "d").mkdir()
    (nights.source / "d" / "same").write_text("the same")
    for night in ("one", "two", "three"):
        (nights.source / "f").write_text(night)
        time.sleep(0.03)
        nights.backup()
    return nights


NAMES = [f"2026-11-0{day}-020000" for day in (2, 3, 4)]


def flip(path: Path) -> None:
    """A bit that rots: no time stamp tells."""
    st = path.stat()
    with path.open("r+b") as file:
        byte = file.read(1)[0]
        file.seek(0)
        file.write(bytes([byte ^ 8]))
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


def test_verify_finds_a_flipped_bit_once_and_names_who_shows_it(three: Nights) -> None:
    assert run("verify", three.repository, "--json").json == []
    flip(three.current / "d" / "same")
    flip(three.repository / NAMES[0] / "f")
    found = {p["path"]: p for p in run("verify", three.repository, "--json", code=4).json}
    assert set(found) == {"d/same", "f"}
    assert found["d/same"]["snapshots"] == NAMES
    assert found["f"]["snapshots"] == NAMES[:1]
    assert found["d/same"]["repairable"] is True
    assert found["f"]["repairable"] is False
    assert Path(found["f"]["location"]).read_bytes()
    plain = run("verify", three.repository, code=4)
    assert "d/same" in plain.out + plain.err


def test_verify_finds_what_is_missing_or_something_else(three: Nights) -> None:
    (three.repository / NAMES[1] / "f").unlink()
    (three.current / "f").unlink()
    (three.current / "f").mkdir()
    found = run("verify", three.repository, "--json", code=4).json
    assert sorted((p["path"], p["snapshots"]) for p in found) == [
        ("f", [NAMES[1]]),
        ("f", [NAMES[2]]),
    ]


def test_delete_frees_and_forgets(three: Nights) -> None:
    done = run("delete", three.repository, NAMES[1], "--json")
    (fate,) = done.json
    assert (fate["name"], fate["keep"]) == (NAMES[1], False)
    assert not (three.repository / NAMES[1]).exists()
    assert [s["name"] for s in run("snapshots", three.repository, "--json").json] == [
        NAMES[0],
        NAMES[2],
    ]
    assert (three.repository / NAMES[0] / "f").read_text() == "one"
    assert run("verify", three.repository, "--json").json == []
    versions = run("versions", three.repository, "f", "--json").json
    assert [Path(v["location"]).read_text() for v in versions] == ["one", "three"]


def test_delete_says_what_it_would_do(three: Nights) -> None:
    done = run("delete", three.repository, "-n", NAMES[0], NAMES[1], "--json")
    assert {fate["name"]: fate["keep"] for fate in done.json} == {NAMES[0]: False, NAMES[1]: False}
    assert (three.repository / NAMES[0]).exists()


def test_what_delete_refuses(three: Nights) -> None:
    complaint("delete", three.repository, NAMES[2], code=5)
    complaint("delete", three.repository, "latest", code=5)
    complaint("delete", three.repository, "2001-01-01-000000", code=1)
    complaint("delete", three.repository, code=2)
    complaint("delete", three.repository, NAMES[0], NAMES[2], code=5)
    assert (three.repository / NAMES[0]).exists()


def test_the_last_version_of_a_file_goes_with_its_last_snapshot(three: Nights) -> None:
    run("delete", three.repository, *NAMES[:2])
    assert len(run("versions", three.repository, "f", "--json").json) == 1
    assert len(run("find", three.repository, "same", "--json").json) == 1


def test_doctor(three: Nights) -> None:
    findings = {f["subject"]: f for f in run("doctor", three.repository, "--json").json}
    for subject in ("hard links", "reflinks", "free space", "names", "times", "mount"):
        assert findings[subject]["found"] and findings[subject]["follows"]
    assert [p.name for p in three.repository.iterdir() if p.name.startswith(".mirrorback-")] == []


def test_doctor_sees_an_open_door(three: Nights) -> None:
    three.repository.chmod(0o755)
    done = run("doctor", three.repository)
    assert "0755" in done.out


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_doctor_reads_the_mount_options(three: Nights, ext4: Path) -> None:
    subprocess.run(["mount", "--bind", ext4, ext4], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,nosuid,nodev", ext4], check=True)
        run("init", ext4 / "drive", "--source", three.source)
        findings = {f["subject"]: f for f in run("doctor", ext4 / "drive", "--json").json}
        assert findings["mount"]["level"] == "good"
    finally:
        subprocess.run(["umount", ext4], check=True)


def test_init(source: Path, repository: Path) -> None:
    run("init", repository, "--source", source)
    assert oct(repository.stat().st_mode & 0o7777) == "0o700"
    assert (repository / "README.txt").read_text()
    assert run("snapshots", repository, "--json").json == []
    complaint("ls", repository, code=1)
    complaint("init", repository, "--source", source, code=5)
    (source / "f").write_text("x")
    run("backup", source, repository)


def test_init_needs_a_source(repository: Path, source: Path) -> None:
    complaint("init", repository, code=2)
    complaint("init", repository, "--source", source / "none", code=1)
    assert not repository.exists()


def test_a_mode_that_was_asked_for(source: Path, repository: Path) -> None:
    run("init", repository, "--source", source, "--mode", "0750")
    assert oct(repository.stat().st_mode & 0o7777) == "0o750"
    complaint("init", repository.with_name("other"), "--source", source, "--mode", "rwx", code=2)


def test_the_readme_on_the_drive_tells_how_to_go_without_us(three: Nights) -> None:
    text = (three.repository / "README.txt").read_text()
    assert "cp -a" in text and "current" in text
