"""How a command may end: every exception becomes one line and an exit code."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

from mirrorback.cli.escape import plain
from mirrorback.cli.output import OutputClosed, complain
from mirrorback.cli.session import Session
from mirrorback.errors import Interrupted, MirrorbackError, NoSpace

INTERRUPTED = 130


def ended(session: Session, body: Callable[[], int], *, stream: bool, reads: bool) -> int:
    """Run a command's body; the exit code.

    `stream`: its JSON is a line per message, so that an error is one, too.
    `reads`: it changes nothing, and being interrupted costs nothing.
    """
    try:
        code = body()
        session.out.finish()
    except OutputClosed as error:
        return error.exit_code
    except BaseException as error:
        if isinstance(error, SystemExit | GeneratorExit):
            raise
        message, code = told(error)
        if isinstance(error, Interrupted) and reads:
            message = "interrupted"
        _print_trace(session, error)
        complain(message)
        if stream and session.json:
            _tell(session, message, code)
    return code


def told(error: BaseException) -> tuple[str, int]:
    """The line that tells of an exception, and the exit code."""
    if isinstance(error, MirrorbackError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return _os_error(error), NoSpace.exit_code if full else 1
    if type(error).__module__ == "sqlite3":  # not imported for this alone
        full = getattr(error, "sqlite_errorname", None) == "SQLITE_FULL"
        return f"the catalog cannot be used: {error}", NoSpace.exit_code if full else 1
    return f"internal error: {type(error).__name__}: {error} (-vv shows where)", 1


def _os_error(error: OSError) -> str:
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    if error.filename is None or isinstance(error.filename, int):
        return reason
    from mirrorback.cli.escape import escape

    return f"{escape(error.filename)}: {reason}"


def _tell(session: Session, message: str, code: int) -> None:
    from mirrorback.cli import shapes

    try:
        session.out.json(shapes.message("error", message, None) | {"exit_code": code})
        session.out.flush()
    except MirrorbackError:
        pass  # it stands on standard error


def _print_trace(session: Session, error: BaseException) -> None:
    if session.verbose < 2 or sys.stderr is None:
        return
    import traceback

    for block in traceback.format_exception(error):
        for line in block.splitlines():
            sys.stderr.write(plain(line) + "\n")
