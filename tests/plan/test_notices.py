"""What a person is told of, and how often."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mirrorback.plan.notices import AGAIN, Notice, is_new, of_overdue, of_run

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("result", "code", "pinned", "subject"),
    [
        ("ok", 0, [], None),
        ("incomplete", 3, [], None),
        ("failed", 1, [], "backup home failed"),
        ("failed", 4, [], "backup home is damaged"),
        ("failed", 1, ["2026-11-24-020000"], "backup home failed"),
        (
            *("ok", 0, ["2026-11-24-020000"]),
            "backup home: more than half of the files were removed or changed",
        ),
    ],
)
def test_only_what_matters_is_told(
    result: str, code: int, pinned: list[str], subject: str | None
) -> None:
    notice = of_run("home", result, code, "why", pinned)
    assert (notice.subject if notice else None) == subject


def test_what_to_do_about_several_pins() -> None:
    notice = of_run("home", "ok", 0, "", ["a", "b"])
    assert notice is not None
    assert "`mirrorback diff home a`" in notice.text
    assert "`mirrorback unpin home a b`" in notice.text


def test_what_is_overdue_says_since_when() -> None:
    assert "has never been made" in of_overdue("home", None, "the drive is not there").text
    assert "on 2026-11-25 12:00" in of_overdue("home", NOW, "the drive is not there").text


def test_the_same_is_told_once_a_day() -> None:
    notice = Notice("s", "t")
    assert is_new(notice, None, None, NOW)
    assert not is_new(notice, NOW, "s", NOW + AGAIN - timedelta(seconds=1))
    assert is_new(notice, NOW, "s", NOW + AGAIN)
    assert is_new(notice, NOW, "another", NOW)
    assert is_new(notice, NOW + timedelta(days=365), "s", NOW)  # the clock was set back
