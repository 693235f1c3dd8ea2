"""Helper processes that fill directories.

Threads of one Python process wait for each other whenever they do anything
but a system call, and copying or linking a small file is half and half.
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Sequence
from typing import Any

from mirrorback.errors import Trouble
from mirrorback.store.copier import Copied, Copier, Filled, Progress, Roots, Work
from mirrorback.store.node import Dress
from mirrorback.store.process import Process, serve


class Helper:
    """A process that fills directories (`copier.Filling`).  Not for several threads at once."""

    def __init__(self, roots: Roots) -> None:
        mirror = () if roots.mirror is None else (roots.mirror,)
        fds = (roots.source, roots.incoming, *mirror, *roots.salvage)
        self._process = Process(__name__, [str(len(mirror)), *map(str, fds)], fds)

    def fill(self, works: Sequence[Work], progress: Progress) -> list[Filled]:
        """See `copier.Filling.fill`."""
        self._process.ask(tuple(_pack_work(work) for work in works))
        answers = self._process.answer(progress)
        return [
            Filled(refused, [_unpack(row) for row in copied], missed)
            for refused, copied, missed in answers
        ]

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.close()


class Helpers:
    """Some of them, for several threads: each takes one that is free, or waits for one."""

    def __init__(self, roots: Roots, count: int) -> None:
        self._all = [Helper(roots) for _ in range(count)]
        self._free: queue.SimpleQueue[Helper] = queue.SimpleQueue()
        for helper in self._all:
            self._free.put(helper)

    def fill(self, works: Sequence[Work], progress: Progress) -> list[Filled]:
        """See `copier.Filling.fill`."""
        helper = self._free.get()
        try:
            return helper.fill(works, progress)
        finally:
            self._free.put(helper)

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        for helper in self._all:
            helper.close()


def _pack_work(work: Work) -> tuple[Any, ...]:
    return tuple(work) if work.dress is None else (*work[:-1], tuple(work.dress))


def _unpack_work(row: tuple[Any, ...]) -> Work:
    return Work._make(row if row[-1] is None else (*row[:-1], Dress._make(row[-1])))


def _pack(result: Copied | Trouble) -> tuple[Any, ...]:
    if isinstance(result, Trouble):
        return (result.reason, result.vanished)
    return tuple(result)


def _unpack(row: tuple[Any, ...]) -> Copied | Trouble:
    return Trouble(row[0], vanished=row[1]) if len(row) == 2 else Copied._make(row)


def main() -> None:
    """The helper itself; its arguments: whether there is a mirror, the roots' descriptors."""
    has_mirror, source, incoming, *others = (int(word) for word in sys.argv[1:])
    mirror, salvage = (others[0], others[1:]) if has_mirror else (None, others)
    copier = Copier(Roots(source, mirror, incoming, tuple(salvage)))

    def respond(question: tuple[Any, ...], progress: Progress) -> Any:
        filled = copier.fill([_unpack_work(row) for row in question], progress)
        return [(refused, [_pack(one) for one in cs], missed) for refused, cs, missed in filled]

    serve(respond)


if __name__ == "__main__":
    main()
