"""A process that compares directories with what should be there, and reads what is in them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from mirrorback.engine.jobs import Found, Job, Top
from mirrorback.engine.structure import Checker
from mirrorback.plan.likeness import Holds
from mirrorback.store.process import Process, Tell, serve
from mirrorback.store.standing import Wanted, WantedFolder


class Helper:
    """Such a process, for `Checker.check`.  Not for several threads at once."""

    def __init__(self, repository: int, tops: dict[int, Top], holds: Holds, plain: bool) -> None:
        fds = [repository, *(top.fd for top in tops.values() if top.fd is not None)]
        self._process = Process(__name__, [str(repository)], fds)
        self._first: tuple[Any, ...] | None = (
            [(number, *top) for number, top in tops.items()],
            tuple(holds),
            plain,
        )

    def check(self, snapshots: Sequence[int], jobs: Sequence[Job], tell: Tell) -> list[Found]:
        """Have some jobs done.  Raises OSError, MirrorbackError."""
        packed = [(job.path, *_packed(job), *job[3:]) for job in jobs]
        self._process.ask((self._first, list(snapshots), packed))
        self._first = None
        return [Found._make(row) for row in self._process.answer(tell)]

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.close()


def _packed(job: Job) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    return [tuple(row) for row in job.rows], [tuple(row) for row in job.folder]


def _unpacked(row: tuple[Any, ...]) -> Job:
    path, rows, folder, *rest = row
    return Job(
        path,
        [Wanted._make(one) for one in rows],
        [WantedFolder._make(one) for one in folder],
        *rest,
    )


def main() -> None:
    """The helper itself; its argument is the repository's descriptor."""
    repository = int(sys.argv[1])
    checker: Checker | None = None

    def respond(question: tuple[Any, ...], tell: Callable[[int], None]) -> Any:
        nonlocal checker
        first, snapshots, jobs = question
        if first is not None:
            tops, holds, plain = first
            found = {number: Top(fd, name) for number, fd, name in tops}
            checker = Checker(repository, found, Holds._make(holds), plain)
        assert checker is not None
        return [tuple(checker.check(snapshots, _unpacked(job), tell)) for job in jobs]

    serve(respond)


if __name__ == "__main__":
    main()
