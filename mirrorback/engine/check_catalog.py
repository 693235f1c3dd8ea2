"""Checking the catalog: what SQLite finds, and what the catalog's own digests find."""

from __future__ import annotations

from collections.abc import Iterator

from mirrorback.engine.history import History
from mirrorback.model import Problem
from mirrorback.store import encoding, schema
from mirrorback.store.repository import CATALOG


def check(history: History) -> Iterator[Problem]:
    """SQLite's own check, and the check of every row, which SQLite has not."""
    catalog = history.catalog
    location = history.repo.inner_path(CATALOG)
    names = tuple(snapshot.name for snapshot in history.snapshots())

    def problem(what: str) -> Problem:
        return Problem(b".mirrorback/catalog.db", names, what, location, False)

    answer = catalog.db.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if answer != "ok":
        yield problem(f"the catalog is damaged: {answer}")
        return
    for table, columns in (("object", schema.OBJECT), ("entry", schema.ENTRY)):
        listed = ", ".join(columns)
        bad = catalog.db.execute(
            f"SELECT count(*) FROM {table} WHERE digest_of_row != row_check({listed})"
        ).fetchone()[0]
        if bad:
            yield problem(f"{bad} rows of the catalog's table {table} are damaged")
    for digest, value in catalog.db.execute("SELECT digest, value FROM attributes"):
        if encoding.attributes_key(value) != digest:
            yield problem("attributes in the catalog are damaged")
            return
