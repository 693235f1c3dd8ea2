"""Changes of a configuration that keep its comments, by the program and in an editor."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import tomllib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from mirrorback.engine.night.configuration import ConfigurationError, Configured, load, read
from mirrorback.errors import (
    DriveError,
    Interrupted,
    MirrorbackError,
    NoRepository,
    NoSpace,
    UsageError,
)
from mirrorback.plan import configuration as plan
from mirrorback.store import durable, tree, turn
from mirrorback.store.repository import Repository, drive_errors

EXAMPLE = """\
# What mirrorback backs up, and when: see `man mirrorback.toml`.
#
# [backup.home]
# source = "/home/alice"
# repository = "/media/alice/Backup/home"
# exclude = [".cache/", "*.tmp"]
# exclude-caches = true
# keep-hourly = 24
# keep-daily = 30
# keep-weekly = 52
# schedule = "daily 02:00"
# overdue-after = "3d"
"""
HEAD = "# What mirrorback backs up: see `man mirrorback.toml`.\n"


Wishes = Mapping[str, str | int | bool]


def add_made(
    file: str, name: str, source: str, repository: str, now: datetime, wishes: Wishes
) -> None:
    """Write an entry for a repository that has just been made, with more keys of it.  Raises
    MirrorbackError."""
    path = os.path.abspath(repository)
    with drive_errors():
        repo = Repository.open(os.fsencode(path))
        identity = repo.settings.id
        repo.close()
    place = {"source": os.path.realpath(source), "repository": path, "repository-id": identity}
    entry: Wishes = {**place, **wishes}
    try:
        _require_free(file, name, now)
        _put(file, name, entry, now)
    except Interrupted:
        raise
    except MirrorbackError as error:
        shown = ", ".join(f"{key} = {json.dumps(value)}" for key, value in entry.items())
        raise type(error)(
            f"the repository is made, but {error}; write it yourself: [backup.{name}] {shown}"
        ) from error


def is_made(source: str, repository: str) -> bool:
    """Whether there is a repository already, and of this source: such as after a crash between
    making it and writing the entry, or on a machine that was set up anew."""
    try:
        with drive_errors():
            repo = Repository.open(os.path.abspath(os.fsencode(repository)))
    except NoRepository:
        return False
    with contextlib.closing(repo):
        return repo.settings.source == os.path.realpath(os.fsencode(source))


def require_addable(
    file: str, name: str, source: str, repository: str, now: datetime, wishes: Wishes
) -> None:
    """Raises UsageError where no entry of that name can be written: the configuration has one,
    or one at that place, or mistakes, or is read-only; the name is none, a path is not UTF-8,
    or one of the other keys has no such value."""
    _require_free(file, name, now)
    document = tomllib.loads(read(file) or "")
    place = {"source": os.path.realpath(source), "repository": os.path.abspath(repository)}
    entry = {**place, "repository-id": secrets.token_hex(16), **wishes}
    document.setdefault("backup", {})[name] = entry
    _found, mistakes = plan.read(document, now, os.path.expanduser)
    if mistakes:
        raise UsageError(mistakes[0].message)
    for key, value in (("source", os.path.realpath(source)), ("repository", repository)):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"the path of the {key} is not UTF-8: TOML cannot hold it") from error
    if not _is_writable(os.path.realpath(file)):
        raise UsageError(f"{file} is read-only: allow yourself to write it, or give --config FILE")


def _is_writable(place: str) -> bool:
    """Whether a file can be exchanged for another, or made with its folder."""
    at = os.path.dirname(place)
    while not os.path.lexists(at):
        at = os.path.dirname(at)
    return os.access(at, os.W_OK) and (not os.path.lexists(place) or os.access(place, os.W_OK))


def _require_free(file: str, name: str, now: datetime) -> None:
    if not plan.NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name: give letters, digits, `_`, `-` and `.`")
    found = load(file, now)
    found.require_sound()
    if found.named(name) is not None:
        raise UsageError(f"{file} has a backup named {name} already: choose another name")


def fill_in_id(file: str, backup: Configured, identity: str, now: datetime) -> None:
    """Write the repository's id into an entry that has none.  Raises UsageError where that is
    impossible, which says what to write."""
    try:
        if not plan.ID.fullmatch(identity):
            raise UsageError("the repository has an odd id")
        _put(file, backup.name, {"repository-id": identity}, now)
    except Interrupted:
        raise
    except MirrorbackError as error:
        raise type(error)(
            f"{error}; write repository-id = {json.dumps(identity)} into [backup.{backup.name}]"
            " yourself, so that another drive is refused"
        ) from error


def _put(file: str, name: str, values: Wishes, now: datetime) -> None:
    """Write keys into the table of a backup, and change nothing else.  Raises UsageError."""
    place = os.fsencode(os.path.realpath(file))  # a link, such as to one's dotfiles, stays one
    with _folder(file, os.path.dirname(place)) as folder:
        before = read(file)
        try:
            text = _changed(HEAD if before is None else before, name, values)
        except ValueError as error:
            load(file, now).require_sound()
            raise ConfigurationError(f"{file} cannot be changed: {error}") from error
        durable.replace(folder, os.path.basename(place), text.encode(), keep=True)


def _changed(text: str, name: str, values: Wishes) -> str:
    """A configuration with more keys in the table of a backup, which need not be there yet.
    Raises ValueError where tomlkit cannot do it, or would change something else."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    wanted = tomllib.loads(text)
    try:
        document = tomlkit.parse(text)
        if "backup" not in document:
            document.add("backup", tomlkit.table(is_super_table=True))
        backups: Any = document["backup"]
        entry = backups[name] if name in backups else tomlkit.table()
        for key, value in values.items():
            entry.add(key, value)
        if name not in backups:
            backups.append(name, entry)
        changed = tomlkit.dumps(document)
    except (TOMLKitError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error
    wanted.setdefault("backup", {}).setdefault(name, {}).update(values)
    if tomllib.loads(changed) != wanted:
        raise ValueError("something else in it would change")
    return changed


@contextlib.contextmanager
def _folder(file: str, path: bytes) -> Iterator[int]:
    """The folder of a configuration, made where there is none, and nobody else's meanwhile.  Raises
    UsageError, and where the disk fails DriveError, NoSpace."""
    try:
        tree.make_private(path, 0o700 if os.geteuid() else 0o755)
        if os.path.exists(file) and not os.access(file, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        folder = os.open(path, tree.DIRECTORY_FLAGS)
        try:
            with turn.alone(folder):
                yield folder
        finally:
            os.close(folder)
    except OSError as error:
        kind: type[MirrorbackError] = UsageError
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            kind = NoSpace
        elif error.errno in (errno.EIO, errno.EROFS, errno.ENOMEM):
            kind = DriveError
        raise kind(f"{file} cannot be written: {error.strerror or error}") from error


EDITORS = ("sensible-editor", "nano", "vi")


def edit(file: str) -> None:
    """Open a configuration in the person's editor (VISUAL, EDITOR), and return when that has
    ended.  A new one begins with an example.  Raises UsageError."""
    import shlex
    import shutil
    import subprocess

    if read(file) is None:
        place = os.fsencode(os.path.realpath(file))
        with _folder(file, os.path.dirname(place)) as folder:
            durable.replace(folder, os.path.basename(place), EXAMPLE.encode())
    asked = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    try:
        command = shlex.split(asked) if asked else []
    except ValueError:
        command = []
    if not command:
        command = [found for found in EDITORS if shutil.which(found)][:1]
    if not command:
        raise UsageError(f"there is no editor: set EDITOR, or change {file} yourself")
    try:
        code = subprocess.run([*command, file], check=False).returncode
    except OSError as error:
        raise UsageError(f"{command[0]} cannot be started: {error.strerror}") from error
    if code:
        raise UsageError(f"{command[0]} ended with {code}")
