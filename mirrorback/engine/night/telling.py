"""Telling a person what came of a run: on the desktop, where there is one, and by mail."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from email.message import EmailMessage

WAIT_S = 30
SENDMAIL = ("/usr/sbin/sendmail", "/usr/lib/sendmail")


def notify(title: str, text: str) -> bool:
    """Show a notification on the desktop of who runs this; whether there is one."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        bus = f"/run/user/{os.geteuid()}/bus"
        if os.geteuid() == 0 or not os.path.exists(bus):
            return False
    program = shutil.which("notify-send")
    if program is None:
        return False
    command = [program, "--app-name=mirrorback", "--urgency=critical", "--", title, text]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, timeout=WAIT_S, check=False)
        return done.returncode == 0
    return False


def mail(address: str, subject: str, text: str) -> str | None:
    """Hand a mail to the local sendmail; why that failed, None where it did not."""
    program = shutil.which("sendmail") or next(filter(os.path.exists, SENDMAIL), None)
    if program is None:
        return "there is no sendmail"
    message = EmailMessage()
    message["To"] = address
    message["Subject"] = " ".join(subject.split())
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    try:
        done = subprocess.run(
            [program, "-i", "-t"],
            input=message.as_bytes(),
            capture_output=True,
            timeout=WAIT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"sendmail: {error}"
    return None if done.returncode == 0 else f"sendmail ended with {done.returncode}"
