"""Which part of a repository is read back: all of it, a share, or what a time allows."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from mirrorback.errors import UsageError

LONGEST_S = 366 * 86400  # of a budget; whoever types more has mistyped
MOST_PARTS = 1_000_000
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_TIME = re.compile(
    r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?", re.ASCII
)
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)%", re.ASCII)
_SLICE = re.compile(r"([0-9]{1,9})/([0-9]{1,9})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Everything:
    """All there is."""


@dataclass(frozen=True, slots=True)
class Share:
    """So many percent of it, by chance."""

    percent: Decimal

    def count(self, total: int) -> int:
        """How many of `total` that are: one at least, where there is one."""
        return min(total, max(1, round(total * self.percent / 100)))


@dataclass(frozen=True, slots=True)
class Slice:
    """The n-th of m parts, always the same; together the m parts are all."""

    number: int  # from 1 on
    of: int

    def holds(self, object_number: int) -> bool:
        """Whether an object belongs to it."""
        return object_number % self.of == self.number - 1


@dataclass(frozen=True, slots=True)
class Budget:
    """What can be read in so many seconds, the longest unverified first."""

    seconds: int


Part = Everything | Share | Slice | Budget
ALL = Everything()


def parse_part(subset: str | None, budget: str | None) -> Part:
    """What the two options ask for; neither is all.  Raises UsageError."""
    if subset is not None and budget is not None:
        raise UsageError("--subset and --budget exclude each other: give one of them")
    if subset is not None:
        return parse_subset(subset)
    return ALL if budget is None else Budget(parse_budget(budget))


def parse_subset(text: str) -> Share | Slice:
    """`5%`, `2.5%` or `1/7`, as in restic.  Raises UsageError."""
    if match := _PERCENT.fullmatch(text.strip()):
        percent = Decimal(match[1])
        if 0 < percent <= 100:
            return Share(percent)
        raise UsageError(f"--subset {text!r}: a percentage is more than 0 and no more than 100")
    if match := _SLICE.fullmatch(text.strip()):
        number, of = int(match[1]), int(match[2])
        if 1 <= number <= of <= MOST_PARTS:
            return Slice(number, of)
        raise UsageError(f"--subset {text!r}: n/m is one of m parts, from 1/m to m/m")
    raise UsageError(f"--subset {text!r}: give a percentage such as 5%, or a part such as 1/7")


def parse_budget(text: str) -> int:
    """`30m`, `90s`, `1h30m`, `2d` in seconds.  Raises UsageError."""
    match = _TIME.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise UsageError(f"--budget {text!r}: give a time such as 30m, 90s or 1h30m")
    counts = zip(match.groups(), _UNITS.values(), strict=True)
    seconds = sum(int(count or 0) * unit for count, unit in counts)
    if not 0 < seconds <= LONGEST_S:
        raise UsageError(f"--budget {text!r}: give more than nothing, and no more than a year")
    return seconds


class Sample:
    """Chooses exactly so many of a number of things that come one after the other, each set
    of them as likely as any other (Knuth, The Art of Computer Programming 2, 3.4.2, S)."""

    def __init__(self, chosen: int, total: int, chance: random.Random) -> None:
        self._wanted = chosen
        self._left = total
        self._chance = chance

    def takes(self) -> bool:
        """Whether the next one is chosen.  To be asked `total` times."""
        if self._left <= 0:  # more have come than there were
            return False
        taken = self._chance.random() * self._left < self._wanted
        self._left -= 1
        self._wanted -= taken
        return taken


@dataclass(frozen=True, slots=True)
class Candidate:
    """An inode that stands where one object should."""

    sound: bool  # it has the object's content
    names: int  # so many of them show it


def true_one(candidates: Sequence[Candidate]) -> int | None:
    """Of several inodes where there should be one, which is the object: a sound one, that the
    most names show, and of these the first.  Its index; None where none is sound."""
    sound = [index for index, one in enumerate(candidates) if one.sound]
    if not sound:
        return None
    return max(sound, key=lambda index: (candidates[index].names, -index))
