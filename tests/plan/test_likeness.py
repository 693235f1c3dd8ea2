"""What a drive may make of metadata, and what only somebody can have changed."""

from __future__ import annotations

import pytest

from mirrorback.model import Kind
from mirrorback.plan.likeness import Given, Holds, differences, same_attributes, same_time

ALL = Holds(modes=True, owners=True, uid=0, gid=0)
MINE = Holds(modes=True, owners=False, uid=1000, gid=1000)
NOTHING = Holds(modes=False, owners=False, uid=1000, gid=1000)
SECOND = 1_000_000_000
TIME = 1_700_000_000 * SECOND + 123_456_789


@pytest.mark.parametrize("grain", [1, 100, 1_000, 1_000_000, 10_000_000, SECOND, 2 * SECOND])
def test_coarse_times_are_the_same(grain: int) -> None:
    assert same_time(TIME, TIME - TIME % grain)


@pytest.mark.parametrize("off", [1, -1, SECOND, -SECOND, 5, 500])
def test_other_times_are_not(off: int) -> None:
    assert not same_time(TIME, TIME + off)


@pytest.mark.parametrize("time", [-(2**31) * SECOND - 1, 2**31 * SECOND, 2**40 * SECOND])
def test_times_beyond_what_all_can_hold_are_not_compared(time: int) -> None:
    assert same_time(time, 0)


def test_before_1970() -> None:
    assert same_time(-1, -SECOND) and not same_time(-1, 0)


def words(wanted: Given, found: Given, holds: Holds, kind: Kind = Kind.FILE) -> list[str]:
    return differences(wanted, found, kind, holds)


def test_what_root_has_given_stays() -> None:
    wanted = Given(0o4755, 1000, 1000, TIME)
    assert words(wanted, wanted, ALL) == []
    assert words(wanted, wanted._replace(mode=0o755), ALL) == ["permissions are 0755, not 4755"]
    assert words(wanted, wanted._replace(uid=0), ALL) == ["owner is 0:1000, not 1000:1000"]
    assert words(wanted, wanted._replace(gid=5), ALL) == ["owner is 1000:5, not 1000:1000"]
    assert words(wanted, wanted._replace(mtime=TIME + 9), ALL) == ["time stamp was changed"]


def test_a_user_cannot_give_files_away() -> None:
    wanted = Given(0o6755, 0, 0, TIME)
    assert words(wanted, Given(0o755, 1000, 1000, TIME), MINE) == []
    assert words(wanted, Given(0o755, 1001, 1000, TIME), MINE) != []
    assert words(wanted, Given(0o644, 1000, 1000, TIME), MINE) != []


def test_folders_of_a_user_can_be_entered() -> None:
    wanted = Given(0o500, 1000, 1000, TIME)
    assert words(wanted, wanted._replace(mode=0o700), MINE, Kind.DIRECTORY) == []
    assert words(wanted, wanted._replace(mode=0o700), MINE) != []
    assert words(wanted, wanted._replace(mode=0o700), ALL, Kind.DIRECTORY) != []
    assert words(wanted, wanted._replace(mtime=0), ALL, Kind.DIRECTORY) == []


def test_a_drive_that_holds_neither_modes_nor_owners() -> None:
    assert words(Given(0o644, 1, 1, TIME), Given(0o777, 5, 5, TIME), NOTHING) == []
    assert words(Given(0o644, 1, 1, TIME), Given(0o777, 5, 5, 0), NOTHING) != []


def test_a_symlink_has_no_mode() -> None:
    assert words(Given(0o777, 0, 0, TIME), Given(0o755, 0, 0, TIME), ALL, Kind.SYMLINK) == []


def test_attributes() -> None:
    mine = ((b"user.a", b"1"),)
    label = ((b"security.selinux", b"x"),)
    acl = ((b"system.posix_acl_access", b"x"),)
    assert same_attributes(mine, mine, ALL)
    assert not same_attributes(mine, (), ALL) and same_attributes(mine, (), NOTHING)
    assert not same_attributes((), mine, ALL)
    assert not same_attributes(mine, ((b"user.a", b"2"),), NOTHING)
    assert same_attributes((), label, ALL) and same_attributes(label, (), ALL)
    assert not same_attributes((), acl, ALL) and same_attributes(acl, (), ALL)
    assert not same_attributes(acl, ((b"system.posix_acl_access", b"y"),), ALL)
    assert same_attributes(((b"user.big", b"1" * 4000),), (), ALL)  # not every drive has room
