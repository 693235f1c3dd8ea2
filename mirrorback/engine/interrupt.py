"""Signals: SIGINT and SIGTERM end a run like any other error."""

from __future__ import annotations

import signal
from types import FrameType

from mirrorback.errors import Interrupted


def install() -> None:
    """From now on the first SIGINT, SIGTERM or SIGHUP raises Interrupted in the main
    thread; later ones are ignored, since the run is ending already."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for other in _SIGNALS:
        # Not SIG_IGN: what is started from now on, a hook to clean up, would ignore them too.
        signal.signal(other, _heard)
    raise Interrupted(number)


def _heard(_number: int, _frame: FrameType | None) -> None:
    """The run is ending already."""


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
