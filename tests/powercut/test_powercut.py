"""A sample of the power cuts of `make powercut`, and that these find what is to be found."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from powercut import cuts, devices
from powercut.able import require_disks
from powercut.cuts import Fingerprint, Write
from powercut.disk import Served, served

HERE = Path(__file__).parent
LONGEST_S = 300
PAGE = cuts.TORN


@pytest.fixture
def able() -> None:
    """Skip where disks of our own cannot be mounted."""
    require_disks()


def started(tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, HERE / "run.py", "--jobs", "1", "--work", tmp_path, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(tmp_path: Path, *options: str, code: int = 0) -> str:
    process = started(tmp_path, *options)
    try:
        text, _nothing = process.communicate(timeout=LONGEST_S)
    finally:
        process.kill()
    assert process.returncode == code, text
    return text


SAMPLE = [
    ("ext4", "Night", "1"),
    ("ext4-noauto", "Large", "0"),
    ("xfs", "LargePrune", "0"),
    ("btrfs", "Restore", "0"),
]


@pytest.mark.parametrize(("kind", "scenario", "recoveries"), SAMPLE)
def test_a_sample_of_cuts(
    able: None, tmp_path: Path, kind: str, scenario: str, recoveries: str
) -> None:
    options = ["--fs", kind, "--scenario", scenario, "--most", "8", "--recoveries", recoveries]
    told = run(tmp_path, *options)
    assert "0 problems" in told
    checked = int(told.splitlines()[-1].split()[0])
    assert checked >= 8, told
    assert list(tmp_path.iterdir()) == []  # nothing is left


def test_what_is_not_synced_is_found(able: None, tmp_path: Path) -> None:
    options = ["--fs", "ext4-noauto", "--scenario", "Night", "--most", "20", "--without-sync"]
    told = run(tmp_path, *options, "--recoveries", "0", "--keep", str(tmp_path / "kept"), code=1)
    assert "PROBLEM ext4-noauto Night" in told
    assert " 0 problems" not in told.splitlines()[-1]
    kept = list((tmp_path / "kept").iterdir())
    assert kept and (kept[0] / "image").stat().st_size == devices.KINDS["ext4"].size


def test_stopped_it_says_what_it_has_checked(able: None, tmp_path: Path) -> None:
    process = started(tmp_path, "--fs", "ext4", "--scenario", "Delete", "--minutes", "9")
    time.sleep(6)
    process.send_signal(signal.SIGTERM)
    text, _nothing = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, text
    assert "cuts checked" in text.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_scenario_that_cannot_be_recorded_is_a_problem(able: None, tmp_path: Path) -> None:
    """Nothing to mount: what is not checked must not look well."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mkfs.ext4").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "mkfs.ext4").chmod(0o755)
    done = subprocess.run(
        [
            sys.executable,
            HERE / "run.py",
            "--fs",
            "ext4",
            "--scenario",
            "First",
            "--work",
            tmp_path,
        ],
        env=os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
    )
    assert done.returncode == 1
    assert "mkfs.ext4" in done.stdout


# --- the model ---------------------------------------------------------------------------


def page(number: int, value: int, pages: int = 1) -> Write:
    return Write(number * PAGE, pages * PAGE, bytes([value]) * PAGE * pages)


def test_any_part_of_what_was_not_flushed_may_be_left() -> None:
    epoch: cuts.Epoch = [page(0, 1), page(1, 2), "promise", page(2, 3)]
    found = list(cuts.possible(epoch, random.Random(1), 0))
    left = [tuple(write.offset // PAGE for write in cut.writes) for cut in found]
    assert sorted(left) == [(), (0,), (0, 1), (0, 1, 2), (0, 2), (1,), (1, 2), (2,)]
    assert all(cut.promised == ["promise"] for cut in found)


def test_what_comes_after_a_cut_is_not_left() -> None:
    """A promise counts only where it came before; then also what followed it may be lost."""
    epoch: cuts.Epoch = [page(0, 1), page(1, 1), page(2, 1), page(3, 1), "promise", page(4, 1)]
    for cut in cuts.possible(epoch, random.Random(2), 500):
        if not cut.promised:
            assert page(4, 1) not in cut.writes
        assert cut.writes == sorted(cut.writes)
    assert any(page(4, 1) in cut.writes for cut in cuts.possible(epoch, random.Random(2), 500))


def test_a_write_is_torn_between_pages() -> None:
    epoch: cuts.Epoch = [page(0, 1, pages=4), page(9, 1), page(10, 1), page(11, 1)]
    found = cuts.possible(epoch, random.Random(3), 500)
    sizes = {write.length for cut in found for write in cut.writes if write.offset == 0}
    assert sizes == {PAGE, 2 * PAGE, 3 * PAGE, 4 * PAGE}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(bytes([7]) * PAGE + bytes(15 * PAGE))
    return path


def test_images_with_the_same_bytes_have_one_fingerprint(image: Path) -> None:
    prints = Fingerprint(image)
    nothing = prints.after([])
    assert prints.after([page(0, 7)]) == nothing  # what is there already
    assert prints.after([Write(PAGE, 9 * PAGE, None)]) == nothing  # zeros on zeros
    assert prints.after([page(3, 1), page(3, 0)]) == nothing
    assert prints.after([page(3, 1)]) != prints.after([page(4, 1)]) != nothing
    assert prints.after([page(3, 1), page(4, 2)]) == prints.after([page(4, 2), page(3, 1)])
    one, two = Write(512, 512, b"x" * 512), Write(512, 1024, b"x" * 512 + bytes([7]) * 512)
    assert prints.after([one]) == prints.after([two]) != nothing
    prints.advance([page(3, 1)])
    with image.open("r+b") as file:
        cuts.apply(file.fileno(), [page(3, 1)])
    assert prints.after([page(3, 0)]) == nothing
    prints.close()


def test_a_log_is_parted_at_its_flushes(tmp_path: Path, image: Path, able: None) -> None:
    with served(image, tmp_path / "log", tmp_path / "disk") as disk:
        _use(disk)
    epochs = cuts.read_log(tmp_path / "log")
    assert epochs == [[page(0, 1)], ["one", Write(2 * PAGE, PAGE, None)], [page(1, 2)]]
    assert image.read_bytes()[:PAGE] == bytes([1]) * PAGE


def _use(disk: Served) -> None:
    fd = os.open(disk.block_file, os.O_RDWR)
    try:
        os.pwrite(fd, bytes([1]) * PAGE, 0)
        os.fsync(fd)
        disk.mark("one")
        devices_punch(fd)
        os.fsync(fd)
        os.pwrite(fd, bytes([2]) * PAGE, PAGE)
        disk.mark(cuts.END)
        os.pwrite(fd, bytes([3]) * PAGE, PAGE)
    finally:
        os.close(fd)


def devices_punch(fd: int) -> None:
    from powercut.disk import punch

    punch(fd, 2 * PAGE, PAGE)


def test_a_disk_can_be_pulled_and_come_back(tmp_path: Path, image: Path, able: None) -> None:
    with served(image, tmp_path / "log", tmp_path / "disk") as disk:
        fd = os.open(disk.block_file, os.O_RDWR | os.O_DIRECT)
        disk.fail(errno.EIO, after=1)
        with pytest.raises(OSError) as caught:
            for _ in range(2):
                os.fsync(fd)
        assert caught.value.errno == errno.EIO
        disk.recover()
        os.fsync(fd)
        os.close(fd)
