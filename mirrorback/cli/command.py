"""What every command shares: its common options, its session, and its end."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from mirrorback.cli.ending import ended
from mirrorback.cli.options import Repo
from mirrorback.cli.output import Output
from mirrorback.cli.session import Session


def print_version(asked: bool) -> None:
    """Print the version and end, where that was asked for."""
    if asked:
        from mirrorback import __version__

        print(f"mirrorback {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", help="Print the version.", is_eager=True, callback=print_version),
]
COMMON = {
    "json_": Annotated[bool, typer.Option("--json", help="Machine output on standard output.")],
    "verbose": Annotated[
        int,
        typer.Option(
            "-v", "--verbose", count=True, show_default=False, help="Say more; twice: even more."
        ),
    ],
    "quiet": Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing when all is well.")],
    "no_progress": Annotated[bool, typer.Option("--no-progress", help="No progress bars.")],
    "config": Annotated[
        str | None,
        typer.Option("--config", metavar="FILE", help="The configuration.", show_default=False),
    ],
    "version": Version,
}
DEFAULTS = {"verbose": 0, "config": None}


class _AsTyped:
    """Takes values as the parser gives them: all of ours are text, numbers of flags, or
    lists of text, and what they mean is settled by the commands."""

    def coerce(self, value: Any, param: object, ctx: object) -> Any:
        """The value itself; lists that were not given are empty."""
        return value


def _taken_as_typed(params: list[Any]) -> list[Any]:
    """Spare the parameters pydantic, the import of which takes longer than that of all
    else; a typer that works otherwise is not disturbed."""
    for param in params:
        param._runtime_param = _AsTyped()
    return params


class Command(TyperCommand):
    """A command that starts fast."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, with that for help."""
        return _taken_as_typed(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The line of usage, with arguments as manuals write them."""
        pieces = super().collect_usage_pieces(ctx)
        return [piece.strip("{}").replace("}...", "...") for piece in pieces]


class Group(TyperGroup):
    """A program that starts fast."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, with that for help."""
        return _taken_as_typed(super().get_params(ctx))


def add(
    app: typer.Typer,
    name: str,
    body: Callable[..., int],
    *,
    stream: bool = False,
    reads: bool = True,
) -> None:
    """Make `body(session, ...)`, which returns the exit code, a command of `app`.

    Its parameters after the session are annotated as typer wants them, its docstring
    is the help.  `stream`: with --json it writes a line per message.  `reads`: it
    changes nothing; others go on when standard output is closed.  What is given as `Repo`
    may be the name of a configured backup; the body gets the path.  A parameter that is a
    dataclass stands for its fields, options that several commands have.
    """

    def run(**values: Any) -> None:
        values.pop("version", None)
        session = Session(
            json=values.pop("json_"),
            verbose=values.pop("verbose"),
            quiet=values.pop("quiet"),
            progress=not values.pop("no_progress"),
            config=values.pop("config"),
            out=Output(persistent=not reads),
        )
        for name, group in groups.items():
            fields = [field.name for field in dataclasses.fields(group)]
            values[name] = group(**{field: values.pop(field) for field in fields})

        def resolved() -> int:
            for name in repositories:
                values[name] = session.repository(values[name])
            return body(session, **values)

        raise typer.Exit(ended(session, resolved, stream=stream, reads=reads))

    own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
    repositories = [parameter.name for parameter in own if parameter.annotation == Repo]
    groups: dict[str, type[Any]] = {
        p.name: p.annotation
        for p in own
        if isinstance(p.annotation, type) and dataclasses.is_dataclass(p.annotation)
    }
    common = [
        inspect.Parameter(
            key,
            inspect.Parameter.KEYWORD_ONLY,
            default=DEFAULTS.get(key, False),
            annotation=annotation,
        )
        for key, annotation in COMMON.items()
    ]
    keyword = [
        one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in own
        for one in (_fields(groups[parameter.name]) if parameter.name in groups else [parameter])
    ]
    run.__signature__ = inspect.Signature([*keyword, *common])  # type: ignore[attr-defined]
    run.__annotations__ = {}
    app.command(name, cls=Command, help=inspect.getdoc(body))(run)


def _fields(group: type[Any]) -> list[inspect.Parameter]:
    """The fields of a dataclass as the parameters of its constructor."""
    return list(inspect.signature(group, eval_str=True).parameters.values())
