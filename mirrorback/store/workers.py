"""A few threads that work through a tree, newest task first.

Last in, first out keeps the number of waiting tasks near the depth of the tree
times its width, however many directories it has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Task = TypeVar("Task")
Tools = TypeVar("Tools")


class Abandoned(Exception):
    """Raised in a thread whose work nobody wants any more; it goes no further."""


class Stack(Generic[Task]):
    """The tasks still to be done, shared by the threads."""

    def __init__(self) -> None:
        self._tasks: list[Task] = []
        self._busy = 0
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def push(self, *tasks: Task) -> None:
        """Add tasks; the last is done first."""
        with self._changed:
            self._tasks.extend(tasks)
            self._changed.notify(len(tasks))

    def pop(self) -> Task | None:
        """The next task; None when all are done or one has failed."""
        with self._changed:
            while not self._tasks and self._busy and self._failure is None:
                self._changed.wait()
            if self._failure is not None or not self._tasks:
                self._changed.notify_all()
                return None
            self._busy += 1
            return self._tasks.pop()

    def done(self) -> None:
        """A task that was popped has ended."""
        with self._changed:
            self._busy -= 1
            if not self._busy and not self._tasks:
                self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Stop everything; the first error is the one that is raised."""
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    @property
    def failure(self) -> BaseException | None:
        """Why work stopped, if it did."""
        return self._failure


def work_through(
    first: list[Task],
    process: Callable[[Task, Tools, Callable[..., None]], None],
    *,
    threads: int,
    tools: Callable[[], Tools],
    put_away: Callable[[Tools], None],
    stop: Callable[[], None] = lambda: None,
) -> None:
    """Call `process(task, tools, push)` for every task, in `threads` threads.

    `push` adds tasks.  Each thread has tools of its own.  The first exception
    stops the others after the task they are at, and is raised here; so is an
    exception that a signal raises in the calling thread.  `stop` is called then, to
    make tasks that take long end sooner; what they raise is forgotten.
    """
    stack: Stack[Task] = Stack()
    stack.push(*first)

    def loop() -> None:
        mine = tools()
        try:
            while (task := stack.pop()) is not None:
                try:
                    process(task, mine, stack.push)
                finally:
                    stack.done()
        except BaseException as error:
            stack.fail(error)
            stop()
        finally:
            put_away(mine)

    if threads <= 1:
        loop()
    else:

        def interrupted(error: BaseException) -> None:
            stack.fail(error)
            stop()

        _run_all(loop, threads, interrupted)
    if stack.failure is not None:
        raise stack.failure


def _run_all(
    loop: Callable[[], None], threads: int, interrupted: Callable[[BaseException], None]
) -> None:
    """Run `loop` in so many threads to its end, also where an exception comes in between."""
    crew: list[tuple[threading.Thread, threading.Event]] = []

    def run(ended: threading.Event) -> None:
        try:
            loop()
        finally:
            ended.set()

    def wait() -> None:
        # Thread.join takes a thread for dead when a signal's handler raises in it
        # (Python 3.11), and a wait without end would not let the handler run.
        for thread, ended in crew:
            while thread.ident is not None and not ended.wait(0.2):
                pass

    try:
        for _ in range(threads):
            ended = threading.Event()
            thread = threading.Thread(target=run, args=(ended,), daemon=True)
            crew.append((thread, ended))
            thread.start()
        wait()
    except BaseException as error:
        interrupted(error)
        wait()
        raise
