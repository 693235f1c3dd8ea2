"""What happens to one backup at night whose drive is there: hooks, the backup, a slice of
verification."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime

from mirrorback.engine.backup import backup
from mirrorback.engine.night.account import Account, about
from mirrorback.engine.night.configuration import Configured, expanded
from mirrorback.engine.night.hooks import run_hook
from mirrorback.engine.night.options import options
from mirrorback.engine.night.outcome import INCOMPLETE, Outcome, failed, made
from mirrorback.engine.verify import verify
from mirrorback.errors import Damaged, Interrupted, MirrorbackError
from mirrorback.model import Summary
from mirrorback.plan.verifying import Budget
from mirrorback.store.repository import Repository

LAST = 200  # characters of a hook's last line, which may say why it failed
HURRY_S = 30.0  # for a hook after an interruption: the machine may be going down

Clock = Callable[[], datetime]


class HookFailed(MirrorbackError):
    """A hook did not end well."""


class Night:
    """One run of one backup.  What ends it is an outcome, also where that is a signal:
    `interrupted` has it then."""

    def __init__(self, backup: Configured, clock: Clock, account: Account) -> None:
        self._backup = backup
        self._clock = clock
        self._account = account
        self._summary: Summary | None = None
        self.interrupted: Interrupted | None = None

    def run(self, repo: Repository) -> Outcome:
        """Before, backup, thin, verify, after."""
        path = os.fsdecode(repo.path)
        stopped = self._guarded(lambda: self._hook("before", self._backup.before, None))
        if stopped is not None:
            return stopped
        outcome = self._guarded(lambda: self._backed_up(path, repo.settings.id))
        assert outcome is not None
        wrong = self._guarded(lambda: self._hook("after", self._backup.after, outcome))
        return wrong if wrong is not None and outcome.code in (0, INCOMPLETE) else outcome

    def tell_failure(self, outcome: Outcome) -> None:
        """Let the person's hook know of a failure."""
        self._guarded(lambda: self._hook("on-failure", self._backup.on_failure, outcome))

    def _guarded(self, step: Callable[[], Outcome | None]) -> Outcome | None:
        """What a step comes to; what it raises is a failure."""
        try:
            return step()
        except Interrupted as error:
            self.interrupted = error
            return failed(self._backup.name, error, self._summary)
        except Exception as error:  # also of ours: other backups are to have their night
            return failed(self._backup.name, error, self._summary)

    def _backed_up(self, path: str, identity: str) -> Outcome:
        name, source = self._backup.name, expanded(self._backup.source)
        chosen = options(self._backup, identity)
        result = backup(source, path, chosen, self._clock(), self._account)
        self._summary = result.summary
        count, first = self._verified(path, identity)
        if count:
            raise Damaged(
                f"{count:,} damaged: `mirrorback verify {name}` tells, and"
                f" `mirrorback repair {name}` mends: {first}"
            )
        return made(name, result.summary)

    def _verified(self, path: str, identity: str) -> tuple[int, str]:
        """Read a slice of the repository, the longest unverified first: how much is wrong, and
        the first of it."""
        count, first = 0, ""
        if self._backup.verify is None:
            return count, first
        part = Budget(max(1, int(self._backup.verify.total_seconds())))
        found = verify(path, self._clock(), self._account, part, repository_id=identity)
        for problem in found:
            line = about(problem.problem, problem.path)
            self._account.note(line)
            count, first = count + 1, first or line
        return count, first

    def _hook(self, key: str, command: str | None, outcome: Outcome | None) -> None:
        """Run a hook of the person's.  Raises HookFailed."""
        if command is None:
            return
        summary = None if outcome is None else outcome.summary
        values = {
            "MIRRORBACK_NAME": self._backup.name,
            "MIRRORBACK_RESULT": "" if outcome is None else outcome.result,
            "MIRRORBACK_MESSAGE": "" if outcome is None else outcome.message,
            "MIRRORBACK_SUMMARY": "" if summary is None else json.dumps(asdict(summary)),
        }
        limit = self._backup.hook_timeout.total_seconds()
        ended = run_hook(command, values, limit if self.interrupted is None else HURRY_S)
        if ended.output:
            self._account.note(f"{key} says:\n{ended.output}")
        if ended.failed is not None:
            self._account.warning(f"{key} {ended.failed}")
            last = (ended.output.strip().splitlines() or [""])[-1][:LAST]
            raise HookFailed(f"{key} {ended.failed}" + (f": {last}" if last else ""))
