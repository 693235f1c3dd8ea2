"""Processes of our own that answer questions, one at a time.

Messages are marshalled tuples, each behind its length in 4 bytes.  A process ends when
its input does, and gives up long work when its parent is gone.
"""

from __future__ import annotations

import fcntl
import gc
import io
import marshal
import os
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import mirrorback
from mirrorback.errors import MirrorbackError

_LENGTH = struct.Struct("<I")
TELL_EVERY = 4 << 20  # bytes between two words of progress
WAIT_S = 10  # for a process that has been told to end
RARELY = 50_000  # more things than before, until cycles among them are looked for

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
            bufsize=0,  # or a read ahead would hide from `answered` what has come
            pass_fds=fds,
            env=os.environ | {"PYTHONPATH": path},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to = cast(io.FileIO, self._process.stdin)
        self._from = cast(io.FileIO, self._process.stdout)
        self._unanswered = 0

    def ask(self, question: tuple[Any, ...]) -> None:
        """Send a question; `answer` is to be called for it.  Raises MirrorbackError where
        the process was killed."""
        self._ask(_packed(question))

    def ask_ahead(self, question: tuple[Any, ...]) -> bool:
        """Send a question behind others that are not answered yet, unless it would fill the
        pipe: both processes might wait for each other then.  Returns whether it was sent."""
        data = _packed(question)
        if self._unanswered and len(data) > _room(self._to.fileno()):
            return False
        self._ask(data)
        return True

    def _ask(self, data: bytes) -> None:
        self._unanswered += 1
        try:
            _write(self._to, data)
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
                continue
            self._unanswered -= 1
            if kind == "done":
                return value
            if kind == "drive":
                raise OSError(value, os.strerror(value))
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
    gc.set_threshold(RARELY)  # an answer is many things, and hardly a cycle among them
    try:
        _Server(respond).run()
    except BrokenPipeError:
        os._exit(1)


class _Server:
    def __init__(self, respond: Callable[[tuple[Any, ...], Tell], Any]) -> None:
        self._respond = respond
        self._questions = io.FileIO(sys.stdin.fileno(), closefd=False)
        self._answers = io.FileIO(sys.stdout.fileno(), "w", closefd=False)
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
                _write(self._answers, _packed(("progress", self._untold)))
                self._untold = 0
            _write(self._answers, _packed(answer))

    def _tell(self, count: int) -> None:
        self._untold += count
        if self._untold >= TELL_EVERY:
            if os.getppid() != self._parent:
                os._exit(1)  # nobody wants it any more
            _write(self._answers, _packed(("progress", self._untold)))
            self._untold = 0


def _killed() -> MirrorbackError:
    return MirrorbackError("a helper process was killed; run it again")


def _room(pipe: int) -> int:
    """The bytes that an empty pipe takes before its writer has to wait."""
    known = getattr(fcntl, "F_GETPIPE_SZ", None)
    return select.PIPE_BUF if known is None else fcntl.fcntl(pipe, known)


def _packed(message: tuple[Any, ...]) -> bytes:
    data = marshal.dumps(message)
    return _LENGTH.pack(len(data)) + data


def _write(pipe: io.FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[pipe.write(rest) :]


def _read(pipe: io.FileIO, size: int) -> bytes:
    """So many bytes; fewer at the end."""
    data = pipe.read(size) or b""
    if len(data) == size or not data:
        return data
    parts = [data]
    while (missing := size - sum(map(len, parts))) and (data := pipe.read(missing) or b""):
        parts.append(data)
    return b"".join(parts)


def _receive(pipe: io.FileIO) -> Any:
    """The next message; None at the end."""
    head = _read(pipe, _LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(head)
    data = _read(pipe, size)
    return marshal.loads(data) if len(data) == size else None
