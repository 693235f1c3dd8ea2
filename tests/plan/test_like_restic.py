"""Retention compared with what restic itself keeps, of the same snapshots by the same rules."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from mirrorback.model import Snapshot
from mirrorback.plan.retention import Policy, fates, read_policy
from mirrorback.plan.spans import instant

ZONE = "Europe/Berlin"
BERLIN = ZoneInfo(ZONE)
COUNT = 27
TAGS = 5
POLICIES = 6  # for each tag
HOURS = [0, 0.2, 0.5, 1, 2, 7, 12, 24, 25, 24 * 7, 24 * 10, 24 * 35, 24 * 200]
RULES = ["last", "hourly", "daily", "weekly", "monthly", "yearly"]


def restic(top: Path, *arguments: str) -> Any:
    """The lists that restic prints as JSON."""
    done = subprocess.run(
        ["restic", "--no-cache", "--repo", top / "repository", "--json", *arguments],
        capture_output=True,
        check=True,
        timeout=60,
        env=os.environ | {"TZ": ZONE, "RESTIC_PASSWORD": "x", "HOME": str(top)},
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line[:1] == b"["]


def moments(chance: random.Random) -> list[datetime]:
    """Local times over some years, the changes of the clocks among them, the last two yet to
    come; none that the clocks show twice, since restic could not be told which is meant."""
    found = [datetime(2019, 1, 5, 12, tzinfo=BERLIN), datetime(2019, 1, 6, 12, tzinfo=BERLIN)]
    for start in (datetime(2019, 12, 28), datetime(2021, 3, 27, 20), datetime(2022, 10, 29, 20)):
        at = start
        for _ in range(COUNT // 3):
            at += timedelta(hours=chance.choice(HOURS))
            found.append(at.replace(tzinfo=BERLIN))
    found[-2:] = [datetime(2091, 1, 1, 0, tzinfo=BERLIN), datetime(2091, 1, 2, 9, tzinfo=BERLIN)]
    return [m for m in sorted(found) if m.utcoffset() == m.replace(fold=1).utcoffset()]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of restic's, each snapshot with some tags."""
    if shutil.which("restic") is None:
        pytest.skip("restic is not installed")
    top = tmp_path_factory.mktemp("restic")
    (top / "source").mkdir()
    restic(top, "init")
    chance = random.Random(7)
    for moment in moments(chance):
        tags = [f"tag{n}" for n in range(TAGS) if chance.random() < (n + 1) / TAGS]
        more = [word for tag in tags for word in ("--tag", tag)]
        restic(top, "backup", "--time", f"{moment:%Y-%m-%d %H:%M:%S}", *more, str(top / "source"))
    return top


def keeps_the_oldest(top: Path) -> bool:
    """Whether this restic lets history grow: those before 0.17 do not."""
    [[group]] = restic(top, "forget", "--dry-run", "--group-by", "", "--keep-yearly", "1000")
    return min(one["time"] for one in group["keep"]).startswith("2019-01-05")


def random_policy(chance: random.Random) -> list[str]:
    """Some rules, as they are typed."""
    typed = []
    for rule in chance.sample(RULES, chance.choice([0, 1, 1, 2, 3])):
        typed += [f"--keep-{rule}", f"{chance.choice([1, 2, 3, 5, 9, 40])}"]
    if not typed or chance.random() < 0.3:
        spans = ["1h", "26h", "3d", "8d5h", "1m", "2m20d", "1y", "1y6m", "3y1m2d3h"]
        typed += ["--keep-within", chance.choice(spans)]
    return typed


def policy_of(typed: Sequence[str]) -> Policy:
    words = {
        option.removeprefix("--").replace("-", "_"): value
        for option, value in zip(typed[::2], typed[1::2], strict=True)
    }
    policy = read_policy(**words)
    assert policy is not None
    return policy


@pytest.mark.parametrize("tag", [f"tag{n}" for n in range(TAGS)])
def test_what_restic_keeps(repository: Path, tag: str) -> None:
    [found] = restic(repository, "snapshots", "--tag", tag)
    assert len(found) > 2
    times = sorted(datetime.fromisoformat(one["time"]) for one in found)
    snapshots = [
        Snapshot(id=n, name=f"{n}", time=instant(time), offset=0, current=n == len(times))
        for n, time in enumerate(times, 1)
    ]
    chance = random.Random(tag)
    growing = keeps_the_oldest(repository)
    for _ in range(POLICIES):
        typed = random_policy(chance)
        [[group]] = restic(
            repository, "forget", "--dry-run", "--group-by", "", "--tag", tag, *typed
        )
        theirs = {instant(datetime.fromisoformat(one["time"])) for one in group["keep"] or []}
        ours = fates(snapshots, policy_of(typed), BERLIN, instant(datetime.now(UTC)))
        if not growing:
            ours = [f for f in ours if not all(r.startswith("oldest ") for r in f.reasons)]
        assert {fate.snapshot.time for fate in ours if fate.keep} == theirs, typed
