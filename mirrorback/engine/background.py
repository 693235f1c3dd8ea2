"""Going on in the background once all is well, with no error lost before that."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from mirrorback.errors import Interrupted, MirrorbackError

READY, FAILED = b"r", b"f"
FIRST_FREE = 3  # descriptor behind the standard ones


class BackgroundFailed(MirrorbackError):
    """What ended the process in the background before it was ready."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self._exit_code = exit_code

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """As it would have been in the foreground."""
        return self._exit_code


def in_background(
    work: Callable[[Callable[[], None]], None], told: Callable[[BaseException], tuple[str, int]]
) -> None:
    """Run `work` in a process of its own, and return when it calls the function it is given.

    Raises BackgroundFailed where it ends before, with what `told` makes of its error: a
    sentence and an exit code.  The process has its own session, `/` as its folder, and no
    descriptor of ours; its standard ones lead nowhere once it is ready.  To be called
    before anything is opened or any thread is started.
    """
    ours, theirs = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    child = os.fork()
    if child == 0:
        os._exit(_child(work, told, theirs))
    os.close(theirs)
    try:
        answer = _read(ours)
    except BaseException as error:
        os.kill(child, signal.SIGTERM)
        if isinstance(error, Interrupted):
            raise BackgroundFailed("interrupted", error.exit_code) from None
        raise
    finally:
        os.close(ours)
    if answer[:1] == READY:
        return
    os.waitpid(child, 0)
    code, _, message = answer[1:].partition(b" ")
    if answer[:1] != FAILED:
        raise BackgroundFailed("the process in the background was killed", 1)
    raise BackgroundFailed(message.decode("utf-8", "surrogateescape"), int(code))


def _read(pipe: int) -> bytes:
    """All until the other end is closed."""
    found = b""
    while data := os.read(pipe, 4096):
        found += data
    return found


def _child(
    work: Callable[[Callable[[], None]], None],
    told: Callable[[BaseException], tuple[str, int]],
    pipe: int,
) -> int:
    """The process itself; its exit code."""
    state = _State(pipe)
    try:
        os.setsid()
        os.chdir("/")
        state.close_others()
        work(state.ready)
        if not state.told:
            raise MirrorbackError("the work ended before it was ready")
    except BaseException as error:
        message, code = told(error)
        state.failed(message, code)
        return code
    return 0


class _State:
    """What the parent is told, once."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self.told = False

    def close_others(self) -> None:
        """Close what was inherited, but for the standard descriptors and the pipe."""
        highest = os.sysconf("SC_OPEN_MAX")
        os.closerange(FIRST_FREE, self._pipe)
        os.closerange(self._pipe + 1, max(highest, self._pipe + 1))

    def ready(self) -> None:
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(FIRST_FREE):
            os.dup2(null, standard)
        os.close(null)
        self._tell(READY)

    def failed(self, message: str, code: int) -> None:
        if not self.told:
            self._tell(FAILED + b"%d " % code + message.encode("utf-8", "surrogateescape"))

    def _tell(self, what: bytes) -> None:
        self.told = True
        try:
            os.write(self._pipe, what)
        except BrokenPipeError:
            pass  # the parent was killed
        os.close(self._pipe)
