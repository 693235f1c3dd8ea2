"""Helper processes that fill directories.

Threads of one Python process wait for each other whenever they do anything
but a system call, and copying or linking a small file is half and half.  Messages are
marshalled tuples, each behind its length in 4 bytes; a helper ends when its
input does, or when its parent is gone.
"""

from __future__ import annotations

import marshal
import os
import signal
import struct
import subprocess
import sys
import threading
from typing import Any, BinaryIO

import mirrorback
from mirrorback.errors import MirrorbackError, Trouble
from mirrorback.store.copier import Copied, Copier, Filled, Progress, Roots, Work

_LENGTH = struct.Struct("<I")
TELL_EVERY = 4 << 20  # bytes copied between two words of progress
WAIT_S = 10  # for a helper that has been told to end


class Helper:
    """A process that fills directories (`copier.Filling`); several threads may take turns."""

    def __init__(self, roots: Roots) -> None:
        mirror = () if roots.mirror is None else (roots.mirror,)
        fds = (roots.source, roots.incoming, *mirror, *roots.salvage)
        home = os.path.dirname(os.path.dirname(os.path.abspath(mirrorback.__file__)))
        path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(len(mirror)), *map(str, fds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=fds,
            env=os.environ | {"PYTHONPATH": path},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to: BinaryIO = self._process.stdin  # type: ignore[assignment]
        self._from: BinaryIO = self._process.stdout  # type: ignore[assignment]

    def fill(self, folder: bytes, work: Work, progress: Progress) -> Filled:
        """See `copier.Filling.fill`."""
        dress = None if work.dress is None else tuple(work.dress)
        question = (folder, work.folders, work.links, work.copies, dress)
        untold, refused, copied, missed = self._ask(question, progress)
        if untold:
            progress(untold)
        return Filled(refused, [_unpack(row) for row in copied], missed)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait(WAIT_S)
        for pipe in (self._to, self._from):
            try:
                pipe.close()
            except BrokenPipeError:
                pass

    def _ask(self, question: tuple[Any, ...], progress: Progress) -> Any:
        with self._lock:
            try:
                _send(self._to, question)
                while True:
                    answer = _receive(self._from)
                    if answer is None:
                        raise MirrorbackError("a helper process was killed; run it again")
                    if answer[0] != "progress":
                        break
                    progress(answer[1])
            except BrokenPipeError:
                raise MirrorbackError("a helper process was killed; run it again") from None
        if answer[0] == "done":
            return answer[1]
        if answer[0] == "drive":
            raise OSError(answer[1], os.strerror(answer[1]))
        raise RuntimeError(answer[1])


def _send(pipe: BinaryIO, message: tuple[Any, ...]) -> None:
    data = marshal.dumps(message)
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def _receive(pipe: BinaryIO) -> Any:
    """The next message; None at the end."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    data = pipe.read(_LENGTH.unpack(head)[0])
    return marshal.loads(data) if len(data) == _LENGTH.unpack(head)[0] else None


def _pack(result: Copied | Trouble) -> tuple[Any, ...]:
    if isinstance(result, Trouble):
        return (result.reason, result.vanished)
    return tuple(result)


def _unpack(row: tuple[Any, ...]) -> Copied | Trouble:
    return Trouble(row[0], vanished=row[1]) if len(row) == 2 else Copied._make(row)


def _serve(roots: Roots, questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer until there are no more questions."""
    copier = Copier(roots)
    parent = os.getppid()
    untold = 0

    def progress(count: int) -> None:
        nonlocal untold
        untold += count
        if untold >= TELL_EVERY:
            if os.getppid() != parent:
                os._exit(1)  # nobody wants it any more
            _send(answers, ("progress", untold))
            untold = 0

    while (question := _receive(questions)) is not None:
        answer: tuple[Any, ...]
        try:
            folder, *work = question
            refused, copied, missed = copier.fill(folder, Work(*work), progress)
            answer = ("done", (untold, refused, [_pack(one) for one in copied], missed))
        except OSError as error:
            answer = ("drive", error.errno or 0)
        except Exception as error:
            answer = ("failed", f"{type(error).__name__}: {error}")
        untold = 0
        _send(answers, answer)


def main() -> None:
    """The helper itself; its arguments: whether there is a mirror, the roots' descriptors."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    has_mirror, source, incoming, *others = (int(word) for word in sys.argv[1:])
    mirror, salvage = (others[0], others[1:]) if has_mirror else (None, others)
    roots = Roots(source, mirror, incoming, tuple(salvage))
    try:
        _serve(roots, sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main()
