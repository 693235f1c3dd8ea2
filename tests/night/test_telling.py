"""Being told: by mail and on the desktop, of what matters, once, and never at the run's cost."""

from __future__ import annotations

import email
import email.policy
import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from homes import Home
from program import run

from mirrorback.engine.backup import BackupResult, backup
from mirrorback.engine.night import telling
from mirrorback.engine.night.configuration import load
from mirrorback.engine.night.notifying import notify_of_configuration
from mirrorback.engine.night.schedule import unheard
from mirrorback.plan.notices import AGAIN, Notice

ODD = Notice("backup home failed", 'it\'s "odd" \\ <b>&x\x1b[2J\n\tsecond ü line')
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="its desktops speak by D-Bus")


class Told:
    """What reached a person."""

    def __init__(self, top: Path) -> None:
        self.folder = top / "bin"
        self.folder.mkdir()
        self.letters, self.desktop = top / "letters", top / "desktop"
        self.letters.mkdir()
        self.program("sendmail", f'echo "$*" >"{top}/args"; cat >"$(mktemp {self.letters}/XXXXXX)"')
        self.program(
            "notify-send", f'printf "%s|" "$@" >>"{self.desktop}"; echo >>"{self.desktop}"'
        )

    def program(self, name: str, text: str) -> None:
        """A program of the machine."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def mails(self) -> list[EmailMessage]:
        """The letters, oldest first."""
        found = sorted(self.letters.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        return [
            email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
            for path in found
        ]

    def notices(self) -> list[str]:
        """What the desktop showed."""
        return self.desktop.read_text().splitlines() if self.desktop.exists() else []


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    found = Told(tmp_path)
    monkeypatch.setenv("PATH", f"{found.folder}:{os.environ['PATH']}")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
    return found


@pytest.fixture
def home(tmp_path: Path, told: Told) -> Home:
    made = Home(tmp_path)
    made.add('mail-to = ["alice@example.org", "root"]')
    return made


@on_linux
def test_a_failure_is_told_with_the_log(home: Home, told: Told) -> None:
    home.add("before = 'echo there is no disk; exit 7'")
    assert home.night().result == "failed"
    (letter,) = told.mails()
    assert letter["To"] == "alice@example.org, root"
    assert letter["Subject"] == f"backup home failed ({os.uname().nodename})"
    assert letter["Auto-Submitted"] == "auto-generated"
    text = letter.get_content()
    assert text.startswith("before ended with 7: there is no disk\n")
    assert "before says:\nthere is no disk\n" in text
    assert (home.top / "args").read_text() == "-i -t\n"
    (notice,) = told.notices()
    assert "|backup home failed|before ended with 7: there is no disk|" in notice


def test_all_is_well_and_nobody_hears_of_it(home: Home, told: Told) -> None:
    assert home.night().result == "ok"
    (home.source / "locked").symlink_to("/nowhere")
    assert home.night().result == "ok"
    assert home.night(if_due=True).result == "ok"
    assert (told.mails(), told.notices()) == ([], [])


@on_linux
def test_what_goes_on_is_told_once_a_day_and_again_after_it_was_well(
    home: Home, told: Told
) -> None:
    repository = home.repository.rename(home.top / "unplugged")
    for _ in range(5):
        home.now += timedelta(hours=1)
        assert home.again().result == "failed"
    assert len(told.mails()) == len(told.notices()) == 1
    home.now += AGAIN
    home.again()
    assert len(told.mails()) == 2
    repository.rename(home.repository)
    home.again()
    home.repository.rename(repository)
    home.again()
    assert len(told.mails()) == len(told.notices()) == 3


@on_linux
def test_a_drive_that_is_away_is_told_when_the_backup_is_overdue(home: Home, told: Told) -> None:
    assert home.night().result == "ok"
    home.repository.rename(home.top / "unplugged")
    for _ in range(3):
        assert home.night(if_present=True).result == "skipped"
    assert told.mails() == []
    assert home.night(if_present=True).result == "skipped"
    home.now += timedelta(hours=1)
    assert home.again(if_present=True).result == "skipped"
    (letter,) = told.mails()
    assert letter["Subject"].startswith("backup home is overdue")
    assert "was last made on 2026-11-26 02:00; now the drive is not there" in letter.get_content()
    assert len(told.notices()) == 1


def test_what_is_not_due_yet_is_not_overdue(home: Home, told: Told) -> None:
    home.add("schedule = 'yearly'")
    assert home.night().result == "ok"
    home.now += timedelta(days=300)
    assert home.again(if_due=True, if_present=True).result == "ok"
    assert home.again(if_due=True, if_present=True).result == "skipped"
    assert told.mails() == []


@on_linux
def test_a_failure_that_goes_on_is_not_told_as_overdue_besides(home: Home, told: Told) -> None:
    home.add("schedule = 'daily'\nbefore = 'false'\noverdue-after = '1h'")
    assert home.night(if_due=True).result == "failed"
    home.now += timedelta(hours=3)
    assert home.again(if_due=True).result == "skipped"
    assert len(told.mails()) == len(told.notices()) == 1


def test_a_backup_that_would_fail_unheard_is_told_when_it_is_scheduled(
    home: Home, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.add("schedule = 'daily'\nnotify = false")

    def notes() -> list[str]:
        return unheard(load(str(home.file), home.now))

    assert notes() == []
    (told.folder / "sendmail").unlink()
    monkeypatch.setattr(telling, "SENDMAIL_IN", "")
    monkeypatch.setenv("PATH", str(told.folder))
    unmailed, note = notes()
    assert "of home nothing is mailed" in unmailed and "if home failed" in note
    home.file.write_text(home.file.read_text().replace("mail-to", "exclude"))
    home.file.write_text(home.file.read_text().replace("notify = false", "on-failure = 'x'"))
    assert notes() == []
    home.file.write_text(home.file.read_text().replace("on-failure = 'x'", "notify = true"))
    assert notes() == ([] if sys.platform == "linux" else [note])
    monkeypatch.setattr(telling, "_bus", lambda: None)
    assert notes() == [note]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_text(file.read_text() + "keep-dayly = 3"),
        lambda file: file.write_text("[backup.home"),
        lambda file: file.unlink(),
        lambda file: file.chmod(0o666),
    ],
)
def test_a_configuration_that_is_spoilt_is_mailed_to_whom_it_named(
    home: Home, told: Told, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    monkeypatch.setenv("MIRRORBACK_STATE_DIR", str(home.state))
    assert home.night().result == "ok"
    kept = home.file.read_text()
    spoil(home.file)
    refused = home.file.exists() and kept == home.file.read_text()
    code = 5 if refused else 2
    for _ in range(2):
        run("run", "home", "--config", home.file, code=code)
    (letter,) = told.mails()
    assert letter["To"] == "alice@example.org, root"
    assert letter["Subject"].startswith("backups are not made")
    assert "config.toml" in letter.get_content()
    run("run", "../other", "--config", home.file, code=code)
    assert sorted(path.name for path in home.state.glob("*.json")) == ["home.json"]
    home.file.unlink(missing_ok=True)
    home.file.write_text(kept)
    assert home.night().result == "ok"
    assert len(told.mails()) == 1


def test_no_odd_address_of_a_diary_is_mailed_to(home: Home, told: Told) -> None:
    home.state.mkdir()
    (home.state / "home.json").write_text('{"mail_to": ["-oQ/tmp", "a@b\\nBcc: c@d", 3, "root"]}')
    notify_of_configuration("a mistake", [], str(home.state), home.now)
    (letter,) = told.mails()
    assert letter["To"] == "root" and letter["Bcc"] is None


@on_linux
def test_what_reached_nobody_is_told_when_somebody_is_there(
    home: Home, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At night nobody is logged in; by day a look for what was missed finds them."""
    home.file.write_text(home.file.read_text().replace("mail-to", "exclude"))
    home.add("schedule = 'daily'\nbefore = 'echo no disk; false'")
    with monkeypatch.context() as nobody:
        nobody.delenv("DBUS_SESSION_BUS_ADDRESS")
        nobody.setattr(telling, "RUN", "/nonexistent")
        assert home.night(if_due=True).result == "failed"
        home.now += timedelta(hours=1)
        assert home.again(if_due=True).result == "skipped"
    assert told.notices() == []
    for _ in range(3):
        home.now += timedelta(hours=1)
        assert home.again(if_due=True).result == "skipped"
    (notice,) = told.notices()
    assert "|backup home failed|before ended with 1: no disk|" in notice


@on_linux
def test_what_reached_nobody_is_not_told_after_all_is_well(
    home: Home, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.file.write_text(home.file.read_text().replace("mail-to", "exclude"))
    home.add(f"before = 'test -e {home.top}/well'")
    with monkeypatch.context() as nobody:
        nobody.setattr(telling, "_bus", lambda: None)
        assert home.night().result == "failed"
        (home.top / "well").touch()
        assert home.night().result == "ok"
    assert home.night().result == "ok"
    assert told.notices() == []


def test_a_letter_that_was_not_taken_is_sent_later(home: Home, told: Told) -> None:
    home.add("before = 'false'\nnotify = false\nschedule = 'daily'")
    working = (told.folder / "sendmail").read_text()
    told.program("sendmail", "exit 75")
    assert home.night(if_due=True).result == "failed"
    (told.folder / "sendmail").write_text(working)
    home.now += timedelta(hours=1)
    for _ in range(2):
        assert home.again(if_due=True).result == "skipped"
    (letter,) = told.mails()
    assert letter["Subject"].startswith("backup home failed")


def test_files_that_cannot_be_read_night_after_night_are_told_once_a_week(
    home: Home, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*arguments: Any) -> BackupResult:
        result = backup(*arguments)
        result.summary.errors = 1
        return result

    home.add("notify = false")
    monkeypatch.setattr("mirrorback.engine.night.nightly.backup", unreadable)
    assert home.night().result == "incomplete"
    assert told.mails() == []  # it may be by chance
    for _ in range(7):
        assert home.night().result == "incomplete"
    (letter,) = told.mails()
    assert letter["Subject"].startswith("backup home: files cannot be read, again")
    assert "`mirrorback log home`" in letter.get_content()
    assert home.night().result == "incomplete"
    assert len(told.mails()) == 2


def test_a_mass_change_is_told_even_where_the_run_failed_besides(home: Home, told: Told) -> None:
    for number in range(1000):
        (home.source / str(number)).write_text("x")
    assert home.night().result == "ok"
    for number in range(600):
        (home.source / str(number)).unlink()
    home.add("after = 'false'")
    assert home.night().result == "failed"
    (letter,) = told.mails()
    assert "mirrorback unpin home" in " ".join(letter.get_content().split())


def test_a_mass_change_is_told_with_what_to_do(home: Home, told: Told) -> None:
    for number in range(1000):
        (home.source / str(number)).write_text("x")
    first = home.night().summary
    assert first is not None
    for number in range(600):
        (home.source / str(number)).unlink()
    assert home.night().result == "ok"
    (letter,) = told.mails()
    text = " ".join(letter.get_content().split())
    assert f"`mirrorback diff home {first.snapshot}`" in text
    assert f"`mirrorback unpin home {first.snapshot}`" in text
    home.night()
    assert len(told.mails()) == 1


def test_damage_is_told_as_damage(home: Home, told: Told) -> None:
    home.add("verify = '10s'")
    home.night()
    (home.repository / "current" / "a").write_text("an edit by hand")
    assert home.night().code == 4
    (letter,) = told.mails()
    assert letter["Subject"].startswith("backup home is damaged")
    assert "mirrorback repair home" in letter.get_content()


def test_who_wants_to_hear_of_each_run_does(home: Home, told: Told) -> None:
    home.add(
        "mail-on = 'always'\nnotify = false\nbefore = '! test -e fail'".replace(
            "fail'", f"{home.top}/fail'"
        )
    )
    home.night()
    (home.top / "fail").touch()
    home.night()
    home.again()
    home.repository.rename(home.top / "unplugged")
    home.again(if_present=True)
    said = [letter["Subject"].split(" (")[0] for letter in told.mails()]
    assert said == ["backup home: ok", "backup home failed", "backup home failed"]
    assert told.notices() == []


@on_linux
def test_no_notice_where_it_is_not_wanted_or_there_is_no_desktop(
    home: Home, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS")
    monkeypatch.setattr(telling, "RUN", "/nonexistent")
    home.add("before = 'false'")
    home.night()
    assert told.notices() == [] and len(told.mails()) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exit 75", "no mail was sent: sendmail ended with 75"),
        ("kill -9 $$", "no mail was sent: sendmail ended with -9"),
        ("exec 0<&-; trap '' TERM; sleep 1000", "no mail was sent: sendmail took too long"),
    ],
)
def test_a_mail_that_cannot_be_sent_is_a_warning(
    home: Home, told: Told, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.setattr(telling, "MAIL_S", 1.0)
    told.program("sendmail", text)
    home.add("before = 'false'")
    began = time.monotonic()
    outcome = home.night()
    assert (outcome.code, outcome.message) == (1, "before ended with 1")
    assert time.monotonic() - began < 30
    assert any(message.startswith(said) for message, _path in home.heard.warnings)


def test_without_a_sendmail(home: Home, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    (told.folder / "sendmail").unlink()
    monkeypatch.setattr(telling, "SENDMAIL_IN", "")
    monkeypatch.setenv("PATH", "/nonexistent")
    home.add("before = 'false'")
    assert home.night().code == 1
    assert any("there is no sendmail" in message for message, _path in home.heard.warnings)


def test_no_room_for_a_letter(home: Home, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(telling.tempfile, "TemporaryFile", full)
    home.add("before = 'false'")
    assert home.night().code == 1
    (said,) = [m for m, _path in home.heard.warnings if m.startswith("no mail")]
    assert said == "no mail was sent: the letter cannot be written: No space left on device"


def test_nothing_gets_out_of_its_place_in_a_letter(told: Told) -> None:
    notice = Notice("a\nBcc: eve@example.org\r\nX: y\x00", "body\n.\n\x1b]0;title\x07\nFrom me\r\n")
    telling.mail(["alice@example.org"], notice, "host\nCc: eve@example.org")
    (letter,) = told.mails()
    assert sorted(letter.keys()) == sorted(
        [
            "To",
            "Subject",
            "Auto-Submitted",
            "Content-Type",
            "Content-Transfer-Encoding",
            "MIME-Version",
        ]
    )
    assert letter["Subject"] == "a?Bcc: eve@example.org??X: y? (host?Cc: eve@example.org)"
    assert letter.get_content() == "body\n.\n?]0;title?\nFrom me\n"


def test_a_text_as_long_as_a_log_is_sent_in_part(told: Told) -> None:
    telling.mail(["root"], Notice("s", "ü" * (10 << 20)), "host")
    (letter,) = told.mails()
    assert len(letter.get_content()) < 70_000


@on_linux
def test_a_real_bus_is_spoken_to_as_its_specification_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without notify-send: the types are those of Notify in the Desktop Notifications
    Specification, also where nobody is there to say so."""
    which = shutil.which
    if not all(map(which, ("dbus-run-session", "dbus-monitor", "gdbus"))):
        pytest.skip("dbus is not installed")
    monkeypatch.setattr(
        shutil, "which", lambda name: None if name == "notify-send" else which(name)
    )
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/somewhere")
    command = telling.command(ODD)
    assert command is not None and command[0] == "gdbus"
    said = tmp_path / "said"
    script = (
        'dbus-monitor --session "member=Notify" >"$0" & monitor=$!;'
        ' until grep -q NameAcquired "$0"; do sleep 0.1; done;'
        ' "$@"; sleep 0.5; kill $monitor'
    )
    environ = {k: v for k, v in os.environ.items() if k != "DBUS_SESSION_BUS_ADDRESS"}
    subprocess.run(
        ["dbus-run-session", "--", "sh", "-c", script, said, *command],
        capture_output=True,
        timeout=60,
        env=environ,
    )
    lines = said.read_text().split("member=Notify\n")[1].splitlines()
    lines = lines[: next(n for n, line in enumerate(lines) if line.startswith("   int32")) + 1]
    top = [line.split()[0] for line in lines if line.startswith("   ") and line[3] not in " ])"]
    assert top == ["string", "uint32", "string", "string", "string", "array", "array", "int32"]
    text = "\n".join(lines)
    assert 'string "backup home failed"' in text
    assert 'it\'s "odd" \\ &lt;b&gt;&amp;x?[2J\n?second ü line' in text
