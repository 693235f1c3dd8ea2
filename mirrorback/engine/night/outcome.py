"""What came of a run of one backup, and of several."""

from __future__ import annotations

from dataclasses import dataclass

from mirrorback.errors import MirrorbackError
from mirrorback.model import Summary

INCOMPLETE = 3
SIGNALS = 128  # exit codes beyond are of signals
NOT_DUE = "is not due yet"
# From the least to the worst: the worst code of all backups is that of the run.
SEVERITY = (0, INCOMPLETE, 11, 10, 5, 12, 2, 1, 4, 129, 130, 143)


@dataclass(frozen=True)
class Outcome:
    """What came of one backup: `result` is ok, incomplete, failed or skipped."""

    name: str
    result: str
    code: int
    message: str
    summary: Summary | None = None

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended it: someone meant that, or the machine went down."""
        return self.code > SIGNALS


def skipped(name: str, why: str) -> Outcome:
    """Nothing was to be done."""
    return Outcome(name, "skipped", 0, why)


def failed(name: str, error: Exception, summary: Summary | None = None) -> Outcome:
    """What an error comes to; `summary` is of a backup that has been made all the same."""
    if isinstance(error, MirrorbackError):
        return Outcome(name, "failed", error.exit_code, str(error), summary)
    said = f"internal error: {type(error).__name__}: {error}"
    return Outcome(name, "failed", MirrorbackError.exit_code, said, summary)


def made(name: str, summary: Summary) -> Outcome:
    """What a backup comes to that has ended."""
    if summary.errors:
        said = f"{summary.errors:,} could not be read: the snapshot is incomplete"
        return Outcome(name, "incomplete", INCOMPLETE, said, summary)
    said = "nothing changed" if summary.unchanged else f"made {summary.snapshot}"
    return Outcome(name, "ok", 0, said, summary)


def counted(summary: Summary) -> list[str]:
    """A summary as lines of a log."""
    counts = (
        *((summary.files_new, "new"), (summary.files_changed, "changed")),
        *((summary.files_metadata, "with other metadata"), (summary.files_moved, "moved")),
        *((summary.files_removed, "removed"), (summary.files_unmodified, "unmodified")),
        (summary.files_stale, "that could not be read and stay as they were"),
    )
    told = ", ".join(f"{count:,} {what}" for count, what in counts if count)
    lines = [
        f"files: {told or 'none'}",
        f"{summary.bytes_copied:,} bytes copied, {summary.bytes_written:,} written in"
        f" {summary.duration_s:,.1f} s",
    ]
    if summary.snapshots_removed:
        names = ", ".join(summary.snapshots_removed)
        lines.append(f"removed by the policy, {summary.bytes_freed:,} bytes freed: {names}")
    return lines


def worst(codes: list[int]) -> int:
    """The exit code of a run of several backups."""
    known = [code if code in SEVERITY else 1 for code in codes]
    return max(known, key=SEVERITY.index, default=0)
