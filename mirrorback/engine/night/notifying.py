"""Whom to tell of what came of a run, and that it is told once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from mirrorback.engine.night import diary, telling
from mirrorback.engine.night.account import Account
from mirrorback.engine.night.configuration import Configured
from mirrorback.engine.night.diary import Page, moment
from mirrorback.engine.night.outcome import NOT_DUE, Outcome
from mirrorback.plan import notices, overdue
from mirrorback.plan.configuration import is_address
from mirrorback.plan.notices import Notice
from mirrorback.store import settings


def notify(
    backup: Configured, outcome: Outcome, before: Page, account: Account, now: datetime
) -> None:
    """Tell a person of what came of a run, where it matters or they want to hear of each;
    `before` is the page as it was.  What reached nobody, such as a desktop to which nobody was
    logged in, is told by a later run.  What cannot be told is a warning."""
    if backup.mail_to != before.mail_to:
        account.update(lambda page: replace(page, mail_to=backup.mail_to))
    if outcome.interrupted:
        return
    after = account.page
    every = backup.mail_on == "always" and outcome.result != "skipped"
    notice = _notice(backup, outcome, before, after, now)
    if notice is None:
        if outcome.result == "ok":
            account.update(_well)
        if every:
            _mail(backup, notices.of_all(backup.name, outcome.result, outcome.message), account)
        late = _late(account.page)
        if late is not None and _tell(backup, late, account):
            account.update(_told)
    elif notices.is_new(notice, moment(before.told, now), before.told_of, now):
        _tell_first(backup, notice, account, now)
    elif every:
        _mail(backup, notice, account)


def _tell_first(backup: Configured, notice: Notice, account: Account, now: datetime) -> None:
    """Tell what is new, and remember that, or that nobody heard of it."""
    subject, text = notice.subject, notice.text
    if _tell(backup, notice, account):
        account.update(lambda page: _told_of(_told(page), notice, now))
    else:
        account.update(lambda page: replace(page, untold=subject, untold_text=text))


def _told(page: Page) -> Page:
    return replace(page, untold=None, untold_text=None)


def _tell(backup: Configured, notice: Notice, account: Account) -> bool:
    """Show and mail it, as is configured; whether it reached anybody."""
    shown = backup.notify and telling.desktop(notice)
    return _mail(backup, notice, account) or shown


def _well(page: Page) -> Page:
    """After a run that ended well nothing is told late but a mass change, which goes on."""
    page = replace(page, told=None, told_of=None)
    return page if page.pinned else _told(page)


def _late(page: Page) -> Notice | None:
    if page.untold is None:
        return None
    return Notice(page.untold, page.untold_text or "")


def deaf(backups: Iterable[Configured]) -> list[str]:
    """Those of which nobody would hear that they fail: no desktop, no mail, no hook."""
    shows, mails = telling.can_show(), telling.can_mail()
    return [
        backup.name
        for backup in backups
        if backup.on_failure is None
        and not (backup.notify and shows)
        and not (backup.mail_to and mails)
    ]


def unmailed(backups: Iterable[Configured]) -> list[str]:
    """Those of which mail is wanted, that nothing here sends."""
    return [] if telling.can_mail() else [backup.name for backup in backups if backup.mail_to]


def notify_of_configuration(
    mistake: str, names: Sequence[str], where: str | None, now: datetime
) -> None:
    """Tell that backups could not begin, all or those of some names, for a mistake in the
    configuration; so mail goes to where it was to go when that could be read, by the diary in the
    folder `where`."""
    notice = Notice("backups are not made", mistake)
    known = [] if where is None else diary.names(where)
    chosen = [name for name in known if not names or name in names]
    pages = [diary.read(str(where), name) for name in chosen]
    fresh = [p for p in pages if notices.is_new(notice, moment(p.told, now), p.told_of, now)]
    if pages and not fresh:
        return
    told = telling.desktop(notice)
    to = sorted({address for page in fresh for address in page.mail_to if is_address(address)})
    if to:
        try:
            telling.mail(to, notice, settings.local_host())
            told = True
        except telling.NotTold:
            pass  # a later run tries again
    for page in fresh if told else ():
        with contextlib.suppress(OSError):
            diary.update(str(where), page.name, lambda page: _told_of(page, notice, now))


def _told_of(page: Page, notice: Notice, now: datetime) -> Page:
    return replace(page, told=now.isoformat(), told_of=notice.subject)


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
    result = outcome.result
    if result == "incomplete" == before.last_result and not pinned:
        return notices.of_incomplete(backup.name, outcome.message)
    return notices.of_run(backup.name, result, outcome.code, outcome.message, pinned)


def _mail(backup: Configured, notice: Notice, account: Account) -> bool:
    """Mail it where that is configured; whether it was sent."""
    if not backup.mail_to:
        return False
    log = "\n".join(account.tail)
    text = f"{notice.text}\n\n{log}" if log else notice.text
    try:
        telling.mail(backup.mail_to, replace(notice, text=text), settings.local_host())
    except telling.NotTold as error:
        account.warning(f"no mail was sent: {error}")
        return False
    return True
