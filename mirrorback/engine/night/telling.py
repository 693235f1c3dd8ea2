"""Being told: a notice on the desktop, and mail through the sendmail of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO

from mirrorback.engine.night import limited
from mirrorback.errors import MirrorbackError
from mirrorback.plan.notices import Notice

MAIL_S = 60.0
DESKTOP_S = 10.0
SHOWN = 1000  # characters of a text that fit a desktop
MAILED = 64 << 10  # characters of a text that are mailed
SENDMAIL_IN = "/usr/sbin:/usr/lib:/sbin"  # besides PATH
RUN = "/run/user"  # where the sessions of users have their buses


class NotTold(MirrorbackError):
    """Nobody could be told."""


def can_mail() -> bool:
    """Whether this machine has a sendmail."""
    return _sendmail() is not None


def can_show() -> bool:
    """Whether there is a desktop that shows notices, if somebody is logged in."""
    return command(Notice("", "")) is not None


def _sendmail() -> str | None:
    return shutil.which("sendmail", path=f"{os.environ.get('PATH', '')}:{SENDMAIL_IN}")


def mail(to: Sequence[str], notice: Notice, host: str) -> None:
    """Mail a notice.  Raises NotTold where there is no sendmail, or it does not take it."""
    program = _sendmail()
    if program is None:
        raise NotTold("there is no sendmail on this machine: mail-to needs one")
    try:
        with tempfile.TemporaryFile() as letter:  # not a pipe, which could fill
            letter.write(_letter(to, notice, host))
            letter.seek(0)
            code = _run([program, "-i", "-t"], MAIL_S, letter)
    except OSError as error:
        raise NotTold(f"the letter cannot be written: {error.strerror or error}") from error
    if code is None:
        raise NotTold("sendmail took too long, and was ended")
    if code:
        raise NotTold(f"sendmail ended with {code}")


def _letter(to: Sequence[str], notice: Notice, host: str) -> bytes:
    from email.message import EmailMessage

    letter = EmailMessage()
    letter["To"] = ", ".join(to)
    letter["Subject"] = _one_line(f"{notice.subject} ({host})")
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content(_shown(notice.text[:MAILED]) + "\n", cte="quoted-printable")
    return letter.as_bytes()


def desktop(notice: Notice) -> bool:
    """Show a notice, where there is a desktop; whether there is."""
    wanted = command(notice)
    if wanted is None:
        return False
    with contextlib.suppress(NotTold):
        return _run(wanted, DESKTOP_S) == 0
    return False


def command(notice: Notice) -> list[str] | None:
    """The command that shows a notice; None where there is no desktop."""
    subject, text = _one_line(notice.subject), _shown(notice.text[:SHOWN])
    if sys.platform == "darwin":
        script = (
            "on run argv",
            "display notification (item 2 of argv) with title (item 1 of argv)",
            "end run",
        )
        words = [word for line in script for word in ("-e", line)]
        return ["osascript", *words, "--", subject, text]
    if not _bus():
        return None
    marked = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if shutil.which("notify-send"):
        options = ["--app-name=mirrorback", "--urgency=critical", "--icon=drive-harddisk"]
        return ["notify-send", *options, "--", subject, marked]
    if shutil.which("gdbus"):
        # The call of the Desktop Notifications Specification.
        where = "org.freedesktop.Notifications"
        call = ["--dest", where, "--object-path", "/org/freedesktop/Notifications"]
        call += ["--method", f"{where}.Notify", "--", _variant("mirrorback"), "uint32 0"]
        call += [_variant(word) for word in ("drive-harddisk", subject, marked)]
        call += ["@as []", "@a{sv} {'urgency': <byte 2>}", "int32 -1"]
        return ["gdbus", "call", "--session", *call]
    return None


def _bus() -> str | None:
    """Where the session of this person can be spoken to."""
    named = os.environ.get("DBUS_SESSION_BUS_ADDRESS")
    path = f"{RUN}/{os.geteuid()}/bus"
    return named or (f"unix:path={path}" if os.path.exists(path) else None)


def _variant(text: str) -> str:
    """Text as GVariant's text format has it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _run(command: list[str], limit_s: float, given: IO[bytes] | None = None) -> int | None:
    environment = dict(os.environ)
    if (bus := _bus()) is not None:
        environment["DBUS_SESSION_BUS_ADDRESS"] = bus
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if given is None else given,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise NotTold(f"{command[0]} cannot be started: {error}") from error
    return limited.wait(process, limit_s)


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _shown(text: str) -> str:
    """Text of several lines, without what would do more than be read."""
    return "\n".join(map(_one_line, text.splitlines()))
