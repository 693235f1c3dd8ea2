"""The options of a retention policy, declared once for every command that has them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mirrorback.engine.thinning import Policy


def _count(option: str, what: str) -> object:
    return typer.Option(option, metavar="N", help=what, show_default=False)


@dataclass(frozen=True)
class Keep:
    """What is to stay, as it was typed."""

    keep_last: Annotated[str | None, _count("--keep-last", "Keep the last N snapshots.")] = None
    keep_hourly: Annotated[str | None, _count("--keep-hourly", "The last of N hours.")] = None
    keep_daily: Annotated[str | None, _count("--keep-daily", "The last of N days.")] = None
    keep_weekly: Annotated[str | None, _count("--keep-weekly", "The last of N weeks.")] = None
    keep_monthly: Annotated[str | None, _count("--keep-monthly", "The last of N months.")] = None
    keep_yearly: Annotated[str | None, _count("--keep-yearly", "The last of N years.")] = None
    keep_within: Annotated[
        str | None,
        typer.Option(
            "--keep-within", metavar="DURATION", help="All of the last 2y5m7d3h, say (m: months)."
        ),
    ] = None
    time_machine: Annotated[
        bool,
        typer.Option(
            "--time-machine", help="All of 24 hours, daily for a month, weekly beyond that."
        ),
    ] = False
    keep_none: Annotated[
        bool, typer.Option("--keep-none", help="Keep nothing that does not always stay.")
    ] = False
    min_free: Annotated[
        str | None,
        typer.Option(
            "--min-free",
            metavar="SIZE|PERCENT",
            help="Then delete the oldest until so much is free.",
        ),
    ] = None

    def typed(self) -> dict[str, str | int | bool]:
        """The rules that were given, as they stand in a configuration."""
        return {
            key.replace("_", "-"): int(value) if str(value).isdecimal() else value
            for key, value in dataclasses.asdict(self).items()
            if value not in (None, False)
        }

    def policy(self) -> Policy | None:
        """The policy; None where there is no rule.  Raises UsageError."""
        if self == Keep():
            return None
        from mirrorback.engine.thinning import read_policy

        return read_policy(**dataclasses.asdict(self))
