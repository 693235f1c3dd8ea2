"""Tables: fitted to the terminal's width there, plain columns elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from mirrorback.cli.output import Output

BATCH = 1000
LEAST = 16  # columns of the screen for a name
GAP = 2


def show(
    out: Output, headers: Sequence[str], rows: Iterable[Sequence[str]], right: str = ""
) -> None:
    """Print rows of escaped text.  `right` holds, for each column, `>` where numbers
    are set to the right.  Headers are for terminals only: elsewhere a line is a row."""
    if out.is_terminal:
        _fitted(out, headers, list(rows), right)
    else:
        columns(out, rows, right)


def columns(
    out: Output,
    rows: Iterable[Sequence[str]],
    right: str = "",
    widths: Sequence[int] = (),
    gap: str = "  ",
) -> None:
    """Print plain columns, the last one as it is.  Rows are taken a batch at a time,
    so that any number will do; columns grow where they must."""
    found = list(widths)
    source = iter(rows)
    while batch := list(islice(source, BATCH)):
        for row in batch:
            found += [0] * (len(row) - len(found))
            for index, cell in enumerate(row):
                found[index] = max(found[index], len(cell))
        for row in batch:
            cells = [
                cell.rjust(found[index])
                if right[index : index + 1] == ">"
                else cell.ljust(found[index])
                if index < len(row) - 1
                else cell
                for index, cell in enumerate(row)
            ]
            out.line(gap.join(cells).rstrip(" ") if not row[-1] else gap.join(cells))


def _fitted(out: Output, headers: Sequence[str], rows: Sequence[Sequence[str]], right: str) -> None:
    import io

    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Only the last column may be folded; nothing is ever cut off.
    table = Table(box=None, show_edge=False, pad_edge=False, header_style="bold")
    fixed = 0
    for index, header in enumerate(headers):
        last = index == len(headers) - 1
        width = max(cell_len(cell) for cell in (header, *(row[index] for row in rows)))
        fixed += min(width, LEAST) if last else width + GAP
        table.add_column(
            Text(header),
            justify="right" if right[index : index + 1] == ">" else "left",
            overflow="fold",
            no_wrap=not last,
            min_width=min(width, LEAST) if last else width,
        )
    for row in rows:
        table.add_row(*map(Text, row))
    screen = Console(highlight=False)
    if fixed > screen.width:
        for row in rows:
            _stacked(out, row, screen.width)
        return
    page = io.StringIO()
    Console(
        file=page,
        width=screen.width,
        force_terminal=True,
        no_color=screen.no_color,
        color_system="standard",
        highlight=False,
    ).print(table)
    for line in page.getvalue().splitlines():
        out.line(line.rstrip(" "))


def _stacked(out: Output, row: Sequence[str], width: int) -> None:
    """A row on a terminal too narrow for the table: the name, and all else below it."""
    from rich.cells import cell_len, chop_cells

    *rest, name = row
    for line in chop_cells(name, width) if name else ():
        out.line(line)
    line = ""
    for cell in filter(None, rest):
        if line and cell_len(line) + GAP + cell_len(cell) > width:
            out.line(line)
            line = ""
        for part in chop_cells(cell, width - GAP):
            if line.strip(" ") and cell_len(line) + GAP + cell_len(part) > width:
                out.line(line)
                line = ""
            line += " " * GAP + part
    if line:
        out.line(line)
