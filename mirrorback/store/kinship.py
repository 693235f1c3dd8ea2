"""How runs of names hang together: which file moved, and which goes on under its name.

Told by inodes alone: one that has another name in the next snapshot, where the name before has
gone or shows something else, has moved.  A directory has no inode of its own in common with the
snapshot before: it has moved when it is new, and most of what moved into it under the same name
comes from one that has gone.  What else it holds under the same names as that one has moved with
it, changed on the way.  (`engine.resolve` decides so for a backup, where the source's
inodes tell it for directories too.)
"""

from __future__ import annotations

import sqlite3


def settle(db: sqlite3.Connection, snapshots: int) -> None:
    """Fill `moved`, `before`, `lineage` and `entry` of the table `runs.run`."""
    for number in range(2, snapshots + 1):
        _files(db, number)
        while _folders(db, number) or _inside(db, number):
            pass
    # What stood at the same place goes on there, unless it has moved away.
    db.execute(
        "UPDATE runs.run SET before = coalesce(moved, (SELECT p.id FROM runs.run p"
        " WHERE p.dir = run.dir AND p.name = run.name AND p.last = run.first - 1"
        " AND NOT EXISTS (SELECT 1 FROM runs.run m WHERE m.moved = p.id)))"
    )
    # Within a line the entry that is older has the lower number.
    db.execute(
        "UPDATE runs.run SET entry = o.entry FROM (SELECT id, row_number() OVER"
        " (ORDER BY first, id) AS entry FROM runs.run) o WHERE o.id = run.id"
    )
    for number in range(1, snapshots + 1):
        db.execute(
            "UPDATE runs.run SET lineage = coalesce("
            "(SELECT p.lineage FROM runs.run p WHERE p.id = run.before), entry) WHERE first = ?",
            (number,),
        )


def _files(db: sqlite3.Connection, number: int) -> None:
    """Pair the names that a snapshot has gained with those that it has lost."""
    rows = db.execute(
        "SELECT c.object, c.id, g.id FROM runs.run c CROSS JOIN runs.run g"
        " ON g.object = c.object AND g.last = c.first - 1"
        " WHERE c.first = ? AND c.kind != 2 AND NOT (g.dir = c.dir AND g.name = c.name)"
        " ORDER BY c.object, c.id, g.name != c.name, g.id",
        (number,),
    )
    at = None
    taken: set[int] = set()
    pairs: list[tuple[int, int]] = []
    for number_of, came, gone in rows:
        if number_of != at:
            at = number_of
            taken.clear()
        if came not in taken and gone not in taken:
            # A run has one number, whether it comes or goes.
            taken.update((came, gone))
            pairs.append((gone, came))
    db.executemany("UPDATE runs.run SET moved = ? WHERE id = ?", pairs)


def _folders(db: sqlite3.Connection, number: int) -> bool:
    """Pair directories that are new with directories that have gone, by what moved from one to
    the other; whether any were found."""
    rows = db.execute(
        "SELECT d.id, g.id, count(*) FROM runs.run c CROSS JOIN runs.run o ON o.id = c.moved"
        " CROSS JOIN runs.run d ON d.folder = c.dir AND d.first = c.first AND d.moved IS NULL"
        " CROSS JOIN runs.run g ON g.folder = o.dir AND g.last = c.first - 1"
        " WHERE c.first = ?1 AND c.moved IS NOT NULL AND c.name = o.name"
        " AND NOT EXISTS (SELECT 1 FROM runs.run p"
        "  WHERE p.dir = d.dir AND p.name = d.name AND p.last = ?1 - 1 AND p.kind = 2)"
        " AND NOT EXISTS (SELECT 1 FROM runs.run n"
        "  WHERE n.dir = g.dir AND n.name = g.name AND n.first = ?1 AND n.kind = 2)"
        " AND NOT EXISTS (SELECT 1 FROM runs.run m WHERE m.moved = g.id)"
        " GROUP BY d.id, g.id ORDER BY count(*) DESC, d.id, g.id",
        (number,),
    ).fetchall()
    taken: set[tuple[str, int]] = set()
    pairs = []
    for came, gone, _count in rows:
        if ("new", came) not in taken and ("old", gone) not in taken:
            taken.update((("new", came), ("old", gone)))
            pairs.append((gone, came))
    db.executemany("UPDATE runs.run SET moved = ? WHERE id = ?", pairs)
    return bool(pairs)


def _inside(db: sqlite3.Connection, number: int) -> bool:
    """Pair what a directory that moved holds with what had the same name in it before; whether
    there was any."""
    return (
        db.execute(
            "UPDATE runs.run SET moved = p.gone FROM (SELECT c.id AS came, min(o.id) AS gone"
            "  FROM runs.run d CROSS JOIN runs.run g ON g.id = d.moved"
            "  CROSS JOIN runs.run c ON c.dir = d.folder AND c.first = ?1 AND c.moved IS NULL"
            "  CROSS JOIN runs.run o ON o.dir = g.folder AND o.name = c.name AND o.last = ?1 - 1"
            "   AND o.kind = c.kind"
            "  WHERE d.first = ?1 AND d.kind = 2 AND d.moved IS NOT NULL AND NOT EXISTS"
            "   (SELECT 1 FROM runs.run m WHERE m.moved = o.id)"
            "  GROUP BY c.id) p WHERE p.came = run.id",
            (number,),
        ).rowcount
        > 0
    )
