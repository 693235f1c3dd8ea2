"""Every mistake that a configuration can hold is told, each with its place."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.errors import UsageError
from mirrorback.plan.calendar_event import parse
from mirrorback.plan.configuration import KEYS, NAME, Configured, Mistake, read
from mirrorback.plan.durations import parse_duration
from mirrorback.plan.overdue import is_overdue

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SOUND = 'source = "/home/alice"\nrepository = "/media/drive"\n'


def mistakes(text: str) -> list[Mistake]:
    return read(tomllib.loads(text), NOW)[1]


def test_all_keys_are_understood() -> None:
    text = f"""
        [backup.home]
        {SOUND}
        repository-id = "{"0f" * 16}"
        exclude = [".cache/", "*.tmp"]
        exclude-from = "/etc/excluded"
        exclude-caches = true
        exclude-if-present = [".nobackup"]
        exclude-larger-than = "4G"
        one-file-system = true
        source-snapshot = "btrfs"
        checksum = false
        always = false
        allow-empty-source = false
        delta-min-size = "64M"
        large-files = "auto"
        keep-last = 3
        keep-hourly = 24
        keep-daily = 30
        keep-weekly = 52
        keep-monthly = 12
        keep-yearly = 10
        keep-within = "2y5m7d3h"
        time-machine = false
        min-free = "10%"
        schedule = "daily 02:00"
        overdue-after = "3d"
        verify = "30m"
        before = "true"
        after = "true"
        on-failure = "true"
        hook-timeout = "10m"
        notify = false
        mail-to = ["alice@example.org", "root"]
        mail-on = "always"
    """
    found, wrong = read(tomllib.loads(text), NOW)
    assert wrong == []
    (backup,) = found
    assert set(tomllib.loads(text)["backup"]["home"]) == set(KEYS)
    assert backup.name == "home" and backup.exclude_from == ("/etc/excluded",)
    assert backup.exclude_larger_than == 4 << 30 and backup.delta_min_size == 64 << 20
    assert backup.verify == timedelta(minutes=30) and backup.overdue_after == timedelta(days=3)
    assert backup.schedule is not None and backup.schedule.text() == "*-*-* 02:00:00"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("exclud = []", "unknown key 'exclud' (did you mean 'exclude'?)"),
        ("keep_weekly = 1", "unknown key 'keep_weekly' (did you mean 'keep-weekly'?)"),
        ("zzz = 1", "unknown key 'zzz'"),
        ("keep-daily = '3'", "keep-daily: give a whole number from 1 to 1,000,000"),
        ("keep-daily = 0", "keep-daily: give a whole number from 1 to 1,000,000"),
        ("keep-daily = -1", "keep-daily: give a whole number from 1 to 1,000,000"),
        ("keep-daily = true", "keep-daily: give a whole number from 1 to 1,000,000"),
        ("keep-daily = 1.5", "keep-daily: give a whole number from 1 to 1,000,000"),
        ("exclude-caches = 1", "exclude-caches: give true or false"),
        ("exclude = 3", 'exclude: give a list of texts, such as [".cache/", "*.tmp"]'),
        ("exclude = [3]", "exclude: give text in quotes"),
        ("exclude = ['']", "exclude: is empty"),
        ("before = ''", "before: is empty"),
        ('before = "a\\u0000b"', "before: holds a NUL"),
        ("min-free = '100%'", "min-free: '100%': give more than 0%"),
        ("min-free = '0%'", "min-free: '0%': give more than 0%"),
        ("overdue-after = '0d'", "overdue-after: '0d' is no time at all"),
        ("large-files = 'all'", "large-files: give auto, delta, reflink or whole"),
        ("schedule = '*-02-30'", "schedule: this never comes"),
        ("repository-id = 'x'", "repository-id: is not the id of a repository"),
        ("schedule = 'nightly'", "schedule: 'nightly' is no schedule"),
        ("delta-min-size = 'big'", "delta-min-size: 'big' is not a size"),
        ("delta-min-size = -5", "delta-min-size: '-5' is not a size"),
        ("keep-within = 'banana'", "keep-within: 'banana' is no span of time"),
        ("overdue-after = '999999999w'", "overdue-after: '999999999w' is longer than"),
        ("exclude = ['*.tmp', '!']", "exclude: the pattern '!' means nothing"),
        ("exclude-from = 'excluded'", "exclude-from: give the whole path, from / or ~/"),
        ("mail-on = 'never'", "mail-on: give failure or always"),
        ("mail-to = 'Alice <a@b>'", "mail-to: 'Alice <a@b>' is no address"),
        ("mail-to = '-oQ/tmp'", "mail-to: '-oQ/tmp' is no address"),
        ('mail-to = "a@b\\nBcc: c@d"', "mail-to: 'a@b\\nBcc: c@d' is no address"),
        ("hook-timeout = 5", "hook-timeout: give text in quotes"),
        ("keep-last = 'all'", "keep-last: give a whole number"),
        ("exclude-if-present = ['a/b']", "exclude-if-present: 'a/b' is no name"),
    ],
)
def test_a_mistake_in_a_value(line: str, message: str) -> None:
    (wrong,) = mistakes(f"[backup.home]\n{SOUND}{line}\n")
    assert wrong.message.startswith(message)
    assert wrong.path == ("backup", "home", line.split(" = ")[0])


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("[bakcup.home]\n" + SOUND, ("bakcup",), "unknown key 'bakcup' (did you mean 'backup'?)"),
        ("backup = 3\n", ("backup",), "is not a table: write [backup.NAME]"),
        ("[backup]\nsource = '/'\n", ("backup", "source"), "'source' is not a table (a backup"),
        ("[backup.'a b']\n" + SOUND, ("backup", "a b"), "'a b' is no name for a backup"),
        ("[backup.'../x']\n" + SOUND, ("backup", "../x"), "'../x' is no name for a backup"),
        ("[backup.x]\nsource = '/'\n", ("backup", "x"), "'x' has no repository"),
        (
            "[backup.x]\nsource='here'\nrepository='/r'\n",
            ("backup", "x", "source"),
            "source: give the whole path",
        ),
        (
            f"[backup.x]\n{SOUND}[backup.y]\nsource='/b'\nrepository='/media//drive/'\n",
            ("backup", "y", "repository"),
            "repository: 'x' has the same",
        ),
    ],
)
def test_a_mistake_of_the_whole(text: str, path: tuple[str, ...], message: str) -> None:
    (wrong,) = mistakes(text)
    assert wrong.path == path and wrong.message.startswith(message)


def test_a_backup_with_a_mistake_does_not_take_others_with_it() -> None:
    found, wrong = read(tomllib.loads(f"[backup.a]\n{SOUND}[backup.b]\n"), NOW)
    assert [backup.name for backup in found] == ["a"]
    assert len(wrong) == 2


def test_a_backup_that_would_spoil_another_is_not_among_the_backups() -> None:
    text = f"[backup.a]\n{SOUND}[backup.b]\nsource='/b'\nrepository='~/drive'\n"
    text += "[backup.c]\nsource='/c'\nrepository='/r'\nschedule='*-02-30'\n"
    found, wrong = read(tomllib.loads(text), NOW, lambda path: path.replace("~", "/media"))
    assert [one.name for one in found] == ["a"]
    assert [mistake.path[1:] for mistake in wrong] == [("b", "repository"), ("c", "schedule")]


def taking_turns(*ids: str | None) -> str:
    return "".join(
        f"[backup.b{number}]\n{SOUND}" + ("" if one is None else f"repository-id = '{one * 32}'\n")
        for number, one in enumerate(ids)
    )


def test_drives_that_take_turns_at_one_place_are_told_apart_by_their_ids() -> None:
    found, wrong = read(tomllib.loads(taking_turns("a", "b", "c")), NOW)
    assert wrong == []
    assert found[1].alternates == (("b0", "a" * 32), ("b2", "c" * 32))


@pytest.mark.parametrize("ids", [("a", "a"), ("a", None), (None, "a"), (None, None)])
def test_what_may_be_one_repository_is_not_two_backups(ids: tuple[str | None, ...]) -> None:
    found, (mistake,) = read(tomllib.loads(taking_turns(*ids)), NOW)
    assert [(one.name, one.alternates) for one in found] == [("b0", ())]
    assert mistake.path == ("backup", "b1", "repository") and "take turns" in mistake.message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), VALUES))
def test_no_value_is_too_odd_to_be_told_of(table: dict[str, object]) -> None:
    found, wrong = read({"backup": {"x": table}}, NOW)
    assert (len(found) == 1) is (wrong == [])


@given(VALUES)
def test_no_document_is_too_odd(value: object) -> None:
    read({"backup": value, "x": value}, NOW)


def test_names() -> None:
    assert all(NAME.fullmatch(name) for name in ("home", "a", "0", "my-home.2", "_x"))
    assert not any(NAME.fullmatch(name) for name in ("", "-x", ".x", "a/b", "a b", "é", "x" * 65))


@pytest.mark.parametrize(
    ("text", "span"),
    [("90s", timedelta(seconds=90)), ("30m", timedelta(minutes=30)), ("2w", timedelta(weeks=2))],
)
def test_a_span_of_time(text: str, span: timedelta) -> None:
    assert parse_duration(text) == span


@pytest.mark.parametrize(
    "text", ["", "3", "m", "-3d", "3 d", "3y", "0m", "1.5h", "٣d", "9" * 10 + "d", "999999999w"]
)
def test_what_is_no_span_of_time(text: str) -> None:
    with pytest.raises(UsageError):
        parse_duration(text)


def backup(lines: str = "") -> Configured:
    found, wrong = read(tomllib.loads(f"[backup.home]\n{SOUND}{lines}"), NOW)
    assert wrong == []
    return found[0]


@pytest.mark.parametrize(
    ("lines", "days"),
    [
        ("", 3),
        ("overdue-after = '12h'", 0.5),
        ("schedule = 'daily 02:00'", 3),
        ("schedule = 'weekly'\noverdue-after = '8d'", 8),
    ],
)
def test_from_when_on_a_backup_is_overdue(lines: str, days: float) -> None:
    configured, span = backup(lines), timedelta(days=days)
    assert not is_overdue(configured, NOW - span, NOW)
    assert is_overdue(configured, NOW - span - timedelta(seconds=1), NOW)


@pytest.mark.parametrize(
    ("schedule", "last", "until"),
    [
        # From Saturday and Sunday to Sunday is a week, though it is a day from one to the other.
        ("Sat,Sun 03:00", "2026-11-22T03:10", "2026-11-29T03:00"),
        ("Mon..Fri 02:00", "2026-11-20T02:10", "2026-11-24T02:00"),
        ("weekly", "2026-11-16T01:00", "2026-11-30T00:00"),
        ("monthly 04:00", "2026-10-01T05:00", "2026-12-01T04:00"),
        ("2026-11-02 03:00", "2026-11-01T04:00", "2026-11-04T04:00"),  # comes once more only
    ],
)
def test_a_backup_is_overdue_when_it_has_been_missed_twice(
    schedule: str, last: str, until: str
) -> None:
    configured = (
        backup(f"schedule = '{schedule}'")
        if "2026" not in schedule
        else Configured("home", "/", "/r", schedule=parse(schedule))
    )
    made, then = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (last, until))
    assert not is_overdue(configured, made, then - timedelta(seconds=1))
    assert is_overdue(configured, made, then + timedelta(seconds=1))


def test_what_never_was_is_overdue_and_so_is_what_was_in_the_future() -> None:
    assert is_overdue(backup(), None, NOW)
    assert is_overdue(backup(), NOW + timedelta(days=400), NOW)
    assert not is_overdue(backup(), NOW + timedelta(hours=1), NOW)
