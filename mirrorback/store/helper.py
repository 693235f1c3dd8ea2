"""Helper processes that copy.

Threads of one Python process wait for each other whenever they do anything
but a system call, and copying a small file is half and half.  Messages are
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
from collections.abc import Sequence
from typing import Any, BinaryIO

import mirrorback
from mirrorback.errors import MirrorbackError, Trouble
from mirrorback.model import Digest, Kind, Metadata
from mirrorback.store import owners
from mirrorback.store.copier import Copied, Copier, Progress, Roots
from mirrorback.store.reading import Seen

_LENGTH = struct.Struct("<I")
TELL_EVERY = 4 << 20  # bytes copied between two words of progress
WAIT_S = 10  # for a helper that has been told to end


class Helper:
    """A process that copies (`copier.Copying`); several threads may take turns."""

    def __init__(self, roots: Roots) -> None:
        fds = (roots.source, roots.incoming, *roots.salvage)
        home = os.path.dirname(os.path.dirname(os.path.abspath(mirrorback.__file__)))
        path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, *map(str, fds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=fds,
            env=os.environ | {"PYTHONPATH": path},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to: BinaryIO = self._process.stdin  # type: ignore[assignment]
        self._from: BinaryIO = self._process.stdout  # type: ignore[assignment]

    def copy(
        self, folder: bytes, names: Sequence[bytes], progress: Progress
    ) -> list[Copied | Trouble]:
        """See `copier.Copying.copy`."""
        return [_unpack(row) for row in self._ask((folder, names), progress)]

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
    seen, m = result.seen, result.seen.metadata
    digest = seen.digest
    assert digest is not None
    return (
        (m.mode, m.owner.uid, m.owner.gid, m.mtime, m.size, m.xattrs, m.flags, m.btime),
        (digest.value, digest.sparse),
        (seen.ino, seen.ctime, seen.nlink, seen.read_at, seen.torn),
        result.missed,
    )


def _unpack(row: tuple[Any, ...]) -> Copied | Trouble:
    if len(row) == 2:
        return Trouble(row[0], vanished=row[1])
    (mode, uid, gid, mtime, size, attributes, flags, btime), digest, inode, missed = row
    metadata = Metadata(
        kind=Kind.FILE,
        mode=mode,
        owner=owners.named(uid, gid),
        mtime=mtime,
        size=size,
        xattrs=attributes,
        flags=flags,
        btime=btime,
    )
    return Copied(Seen(metadata, Digest(*digest), *inode), missed)


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
        folder, names = question
        answer: tuple[Any, ...]
        try:
            answer = ("done", [_pack(result) for result in copier.copy(folder, names, progress)])
        except OSError as error:
            answer = ("drive", error.errno or 0)
        except Exception as error:
            answer = ("failed", f"{type(error).__name__}: {error}")
        if untold:
            _send(answers, ("progress", untold))
            untold = 0
        _send(answers, answer)


def main() -> None:
    """The helper itself; its arguments are the descriptors of the roots."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    source, incoming, *salvage = (int(word) for word in sys.argv[1:])
    roots = Roots(source, None, incoming, tuple(salvage))
    try:
        _serve(roots, sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main()
