"""Whom to tell of what came of a run, and that it is told once."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from mirrorback.engine.night import telling
from mirrorback.engine.night.account import Account
from mirrorback.engine.night.configuration import Configured
from mirrorback.engine.night.diary import Page, moment
from mirrorback.engine.night.outcome import NOT_DUE, Outcome
from mirrorback.plan import notices, overdue
from mirrorback.plan.notices import Notice
from mirrorback.store import settings


def notify(
    backup: Configured, outcome: Outcome, before: Page, account: Account, now: datetime
) -> None:
    """Tell a person of what came of a run, where it matters or they want to hear of each;
    `before` is the page as it was.  What cannot be told is a warning."""
    if outcome.interrupted:
        return
    notice = _notice(backup, outcome, before, account.page, now)
    if notice is None:
        if outcome.result == "ok":
            account.update(lambda page: replace(page, told=None, told_of=None))
        if outcome.result != "skipped" and backup.mail_on == "always":
            _mail(backup, notices.of_all(backup.name, outcome.result, outcome.message), account)
        return
    new = notices.is_new(notice, moment(before.told, now), before.told_of, now)
    if new and backup.notify:
        telling.desktop(notice)
    if new or (backup.mail_on == "always" and outcome.result != "skipped"):
        _mail(backup, notice, account)
    if new:
        subject = notice.subject
        account.update(lambda page: replace(page, told=now.isoformat(), told_of=subject))


def notify_of_configuration(mistake: str) -> None:
    """Show that a run could not begin for a mistake in the configuration, which may be that of
    where mail is to go."""
    telling.desktop(Notice("backups are not made", mistake))


def _notice(
    backup: Configured, outcome: Outcome, before: Page, after: Page, now: datetime
) -> Notice | None:
    if outcome.message == NOT_DUE:
        return None  # what is wrong has been told when it was due
    if outcome.result == "skipped":
        last = overdue.newest(
            (moment(p, now) for p in (before.last_success, before.last_check)), now
        )
        if not overdue.is_overdue(backup, last, now):
            return None
        return notices.of_overdue(backup.name, last, outcome.message)
    pinned = [name for name in after.pinned if name not in before.pinned]
    return notices.of_run(backup.name, outcome.result, outcome.code, outcome.message, pinned)


def _mail(backup: Configured, notice: Notice, account: Account) -> None:
    if not backup.mail_to:
        return
    log = "\n".join(account.tail)
    text = f"{notice.text}\n\n{log}" if log else notice.text
    try:
        telling.mail(backup.mail_to, replace(notice, text=text), settings.local_host())
    except telling.NotTold as error:
        account.warning(f"no mail was sent: {error}")
