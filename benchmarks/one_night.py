"""One night at a time of our own choice: a backup, and thinning as `run` does it after one.

Run by the interpreter that mirrorback is installed for: one_night.py SOURCE REPO TIME LARGE
"""

from __future__ import annotations

import sys
from datetime import datetime

from mirrorback.engine.backup import backup
from mirrorback.engine.backup_options import BackupOptions
from mirrorback.engine.events import Events
from mirrorback.engine.prune import prune
from mirrorback.plan.retention import Policy

POLICY = Policy(daily=7, weekly=4, monthly=12)


def main(source: str, repository: str, time: str, large: int) -> None:
    """`time` is in the form of ISO 8601, with a zone; files are large from `large` bytes on."""
    now = datetime.fromisoformat(time).astimezone()
    options = BackupOptions(init=True, delta_min_size=large, large_files="delta")
    result = backup(source, repository, options, now, Events())
    if result.summary.errors:
        sys.exit(f"{result.summary.errors} errors")
    thinned = prune(repository, POLICY, dry_run=False, now=now, events=Events())
    if thinned.damage:
        sys.exit(f"damage: {thinned.damage}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
