"""Processes of our own that answer questions, one at a time.

Messages are marshalled tuples, each behind its length in 4 bytes.  A process ends when
its input does, and gives up long work when its parent is gone.
"""

from __future__ import annotations

import marshal
import os
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import mirrorback
from mirrorback.errors import MirrorbackError

_LENGTH = struct.Struct("<I")
TELL_EVERY = 4 << 20  # bytes between two words of progress
WAIT_S = 10  # for a process that has been told to end

Tell = Callable[[int], None]


class Process:
    """The parent's end of one.  Not for several threads at once."""

    def __init__(self, module: str, words: Sequence[str], fds: Sequence[int]) -> None:
        """Start a module with these arguments, and these descriptors open."""
        home = os.path.dirname(os.path.dirname(os.path.abspath(mirrorback.__file__)))
        path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=fds,
            env=os.environ | {"PYTHONPATH": path},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to: BinaryIO = self._process.stdin  # type: ignore[assignment]
        self._from: BinaryIO = self._process.stdout  # type: ignore[assignment]

    def ask(self, question: tuple[Any, ...]) -> None:
        """Send a question; `answer` is to be called for it.  Raises MirrorbackError where
        the process was killed."""
        try:
            _send(self._to, question)
        except BrokenPipeError:
            raise _killed() from None

    def answered(self) -> bool:
        """Whether something has come back."""
        return bool(select.select([self._from], [], [], 0)[0])

    def answer(self, progress: Tell) -> Any:
        """The answer, when it has come; the bytes done are told to `progress`.  Raises
        OSError for what the drive does, MirrorbackError where the process was killed."""
        while True:
            message = _receive(self._from)
            if message is None:
                raise _killed()
            kind, value = message
            if kind == "progress":
                progress(value)
            elif kind == "done":
                return value
            elif kind == "drive":
                raise OSError(value, os.strerror(value))
            else:
                raise RuntimeError(value)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait(WAIT_S)
        for pipe in (self._to, self._from):
            try:
                pipe.close()
            except BrokenPipeError:
                pass


def serve(respond: Callable[[tuple[Any, ...], Tell], Any]) -> None:
    """The life of such a process: respond to questions until there are no more.  `respond`
    gets each with a function to tell the bytes done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    try:
        _Server(respond).run()
    except BrokenPipeError:
        os._exit(1)


class _Server:
    def __init__(self, respond: Callable[[tuple[Any, ...], Tell], Any]) -> None:
        self._respond = respond
        self._questions, self._answers = sys.stdin.buffer, sys.stdout.buffer
        self._parent = os.getppid()
        self._untold = 0

    def run(self) -> None:
        while (question := _receive(self._questions)) is not None:
            answer: tuple[str, Any]
            try:
                answer = ("done", self._respond(question, self._tell))
            except OSError as error:
                answer = ("drive", error.errno or 0)
            except Exception as error:
                answer = ("failed", f"{type(error).__name__}: {error}")
            if self._untold:
                _write(self._answers, ("progress", self._untold))
                self._untold = 0
            _send(self._answers, answer)

    def _tell(self, count: int) -> None:
        self._untold += count
        if self._untold >= TELL_EVERY:
            if os.getppid() != self._parent:
                os._exit(1)  # nobody wants it any more
            _send(self._answers, ("progress", self._untold))
            self._untold = 0


def _killed() -> MirrorbackError:
    return MirrorbackError("a helper process was killed; run it again")


def _write(pipe: BinaryIO, message: tuple[Any, ...]) -> None:
    data = marshal.dumps(message)
    pipe.write(_LENGTH.pack(len(data)) + data)


def _send(pipe: BinaryIO, message: tuple[Any, ...]) -> None:
    _write(pipe, message)
    pipe.flush()


def _receive(pipe: BinaryIO) -> Any:
    """The next message; None at the end."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    data = pipe.read(_LENGTH.unpack(head)[0])
    return marshal.loads(data) if len(data) == _LENGTH.unpack(head)[0] else None
