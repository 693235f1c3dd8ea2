"""Answers to a shell that completes a command line: names of backups, snapshots, paths.

`mirrorback __complete KIND PREFIX [CONFIG [REPO [WHEN]]]` prints what may stand there, a line
each, and is quick.  It is for the scripts in `completions/`, not for people: nothing is ever
complained of, since what it printed would stand in the line that is being typed.  A name that
holds anything a terminal might obey is left out.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from mirrorback.cli.escape import plain
from mirrorback.errors import MirrorbackError

if TYPE_CHECKING:
    from mirrorback.engine.history import History

WORD = "__complete"
LIMIT_S = 0.9  # nobody waits for longer, for instance for a drive that sleeps
_SNAPSHOT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9]{6}(-[0-9]+)?", re.ASCII)
MOST = 2000  # candidates: no person looks through more


class Asked:
    """What a shell asks for, and what of the line it has told."""

    def __init__(self, words: Sequence[str]) -> None:
        padded = [*words, "", "", "", "", ""]
        self.kind, self.prefix, self._config, self._repo, self._when = padded[:5]

    def history(self) -> History:
        """The history of the repository in the line.  Raises MirrorbackError."""
        from mirrorback.cli.session import Session

        session = Session(config=self._config or None)
        repository = session.repository(os.path.expanduser(self._repo))
        return session.history(repository, needs_folders=True)

    def names(self) -> Iterable[str]:
        """The names of configured backups.  Raises MirrorbackError."""
        from mirrorback.cli import clock
        from mirrorback.engine.night import configuration

        found = configuration.in_use(self._config or None, clock.now())
        return [backup.name for backup in found.backups]

    def snapshots(self, *, mirror: bool = True, pinned: bool = False) -> Iterable[str]:
        """The names of snapshots, newest first.  Raises MirrorbackError."""
        with self.history() as history:
            return [
                one.name
                for one in reversed(history.snapshots())
                if _SNAPSHOT.fullmatch(one.name)  # what a shell would run is no name of ours
                and (mirror or not one.current)
                and (one.pinned or not pinned)
            ]

    def moments(self) -> Iterable[str]:
        """What may stand for WHEN.  Raises MirrorbackError."""
        return ["latest", *self.snapshots()]

    def paths(self, *, ever: bool = False) -> Iterable[str]:
        """Paths in a snapshot, or that `ever` were in history; folders end with a slash.
        Raises MirrorbackError."""
        from mirrorback.engine import candidates

        head, slash, name = self.prefix.rpartition("/")
        folder, begin = os.fsencode(head or "."), os.fsencode(name)
        with self.history() as history:
            when = self._when or None
            names = candidates.names(history, folder, begin, when, ever=ever, most=MOST)
        for found, is_folder in names:
            path = head + slash + os.fsdecode(found) + ("/" if is_folder else "")
            yield f"./{path}" if path.startswith("-") else path


_KINDS: dict[str, Callable[[Asked], Iterable[str]]] = {
    "names": Asked.names,
    "snapshots": Asked.snapshots,
    "dated": lambda asked: asked.snapshots(mirror=False),
    "pinned": lambda asked: asked.snapshots(pinned=True),
    "moments": Asked.moments,
    "paths": Asked.paths,
    "ever": lambda asked: asked.paths(ever=True),
}
KINDS = tuple(_KINDS)


def answer(words: Sequence[str]) -> list[str]:
    """What may stand where the words say; nothing where it cannot be told."""
    asked = Asked(words)
    if asked.kind not in _KINDS:
        return []
    try:
        found = _KINDS[asked.kind](asked)
        return [one for one in found if one.startswith(asked.prefix) and is_plain(one)]
    except (MirrorbackError, OSError, UnicodeError):
        return []


def is_plain(text: str) -> bool:
    """Whether text does nothing to a terminal, and is one line that UTF-8 can tell."""
    return plain(text) == text


def main(words: Sequence[str]) -> int:
    """Print the answer; the exit code, always 0."""
    signal.signal(signal.SIGALRM, lambda number, frame: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write("".join(f"{line}\n" for line in answer(words)))
        sys.stdout.flush()
    signal.setitimer(signal.ITIMER_REAL, 0)  # Python lets go of the handler before it ends
    return 0
