"""Processes that remove files: threads of one would wait for each other more than for the
drive."""

from __future__ import annotations

import errno
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mirrorback.store import tree
from mirrorback.store.clearing import Alone, Crew, Order
from mirrorback.store.process import Process, Tell, serve

COUNT = 2
AHEAD = 2  # orders that each has been given, at most


class Helpers:
    """Some such processes.  Not for several threads at once; to be closed."""

    def __init__(self, trash: int, count: int = COUNT) -> None:
        """They work on folders in an open one."""
        self._processes = [Process(__name__, [str(trash)], [trash]) for _ in range(count)]
        self._turn = 0

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        for process in self._processes:
            process.close()

    def on(self, folder: bytes) -> Crew:
        """Them, for the folder that has a name now."""
        self._turn += 1
        return _Crew(self._processes, self._turn, folder)


class _Crew:
    def __init__(self, processes: Sequence[Process], turn: int, folder: bytes) -> None:
        self._processes = processes
        self._turn = turn
        self._folder = folder

    def unlink(self, orders: Iterable[Order]) -> Iterator[tuple[Order, int]]:
        """See `clearing.Crew`."""
        given: deque[tuple[Process, Order]] = deque()
        for number, order in enumerate(orders):
            process = self._processes[number % len(self._processes)]
            if len(given) == AHEAD * len(self._processes):
                yield self._answered(given)
            while not process.ask_ahead((self._turn, self._folder, order.files)):
                yield self._answered(given)
            given.append((process, order))
        while given:
            yield self._answered(given)

    def _answered(self, given: deque[tuple[Process, Order]]) -> tuple[Order, int]:
        process, order = given.popleft()
        turn = None
        while turn != self._turn:  # else it is left of a turn that was given up
            turn, count, failure = process.answer(lambda count: None)
        if failure:
            raise OSError(failure, os.strerror(failure))
        return order, count


class _Worker:
    """What such a process knows."""

    def __init__(self, trash: int) -> None:
        self._trash = trash
        self._turn = 0
        self._top = -1
        self._alone: Alone | None = None

    def unlink(self, question: tuple[Any, ...], _tell: Tell) -> tuple[int, int, int]:
        """Remove some files: the turn, how many went, and the number of an error."""
        turn, folder, files = question
        try:
            return turn, self._on(turn, folder).unlink_all(files), 0
        except OSError as error:
            return turn, 0, error.errno or errno.EIO

    def _on(self, turn: int, folder: bytes) -> Alone:
        if self._alone is None or turn != self._turn:
            if self._alone is not None:
                self._alone.close()
                self._alone = None
                os.close(self._top)
            self._top = os.open(folder, tree.DIRECTORY_FLAGS, dir_fd=self._trash)
            self._alone = Alone(self._top)
            self._turn = turn
        return self._alone


def main() -> None:
    """The helper itself; its argument is the descriptor of the folder that holds folders."""
    serve(_Worker(int(sys.argv[1])).unlink)


if __name__ == "__main__":
    main()
