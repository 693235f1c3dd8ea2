"""Arguments and options that several commands have, as typer wants them."""

from __future__ import annotations

from typing import Annotated

import typer

Repo = Annotated[str, typer.Argument(metavar="REPO", help="The repository.", show_default=False)]
At = Annotated[
    str | None,
    typer.Option("--at", metavar="WHEN", help="The snapshot: a name, a date, `3d` ago, `2B`."),
]
DryRun = Annotated[bool, typer.Option("-n", "--dry-run", help="Say what would be; write nothing.")]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Make the repository in a folder that is not empty, or inside another one."
    ),
]
Mode = Annotated[
    str | None,
    typer.Option("--mode", metavar="OCTAL", help="Permissions of the repository (0700)."),
]
DeltaMinSize = Annotated[
    str | None,
    typer.Option(
        "--delta-min-size", metavar="SIZE", help="Files are large from here on (32M); kept."
    ),
]
LargeFiles = Annotated[
    str | None,
    typer.Option(
        "--large-files",
        metavar="auto|delta|reflink|whole",
        help="How large files are stored; kept.",
    ),
]
