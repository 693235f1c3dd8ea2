"""Makes a repository of many snapshots, in one process.

Run by the interpreter that mirrorback is installed for: past.py SOURCE REPO COUNT
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from pathlib import Path

from mirrorback.engine.backup import backup
from mirrorback.engine.backup_options import BackupOptions
from mirrorback.engine.events import Events

FILES = 20
STEP = timedelta(hours=1)


def main(source: str, repository: str, count: int) -> None:
    """One file of a small source is changed before each backup, in turn."""
    folder = Path(source)
    folder.mkdir()
    for number in range(FILES):
        (folder / f"file-{number:02}").write_text("night 0\n")
    now = datetime.now().astimezone() - count * STEP
    for night in range(count):
        changed = folder / f"file-{night % FILES:02}"
        changed.write_text(f"night {night}\n" * (1 + night % 7))
        backup(source, repository, BackupOptions(init=True), now + night * STEP, Events())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
