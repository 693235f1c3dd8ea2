"""The configuration file: where it is, what it says, and changes of it that keep its comments."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mirrorback.errors import MirrorbackError, Refused, UsageError
from mirrorback.plan import configuration as plan
from mirrorback.plan.configuration import Configured as Configured
from mirrorback.store import durable, tree

SYSTEM = "/etc/mirrorback"  # root's
NAME = "config.toml"
_LINE = re.compile(r"\(at line ([0-9]+), column [0-9]+\)", re.ASCII)
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


class ConfigurationError(UsageError):
    """A mistake in a configuration; the message names file and line."""


@dataclass(frozen=True)
class Configuration:
    """A configuration as it was read; there may be no file at all."""

    file: str
    exists: bool
    backups: tuple[Configured, ...]
    mistakes: tuple[str, ...]  # each with file and line

    def require_sound(self) -> None:
        """Raises ConfigurationError, which tells of the first mistake."""
        if self.mistakes:
            raise ConfigurationError(self.mistakes[0])

    def named(self, name: str) -> Configured | None:
        """The backup of a name."""
        return next((backup for backup in self.backups if backup.name == name), None)


def default_file() -> str:
    """Where the configuration is, if nothing else is asked for: of root for the whole
    system, of others in their configuration folder (XDG Base Directory Specification).
    Raises UsageError where a person has no home."""
    if os.geteuid() == 0:
        return os.path.join(SYSTEM, NAME)
    import platformdirs

    with contextlib.suppress(RuntimeError):
        folder = platformdirs.user_config_dir("mirrorback")
        if os.path.isabs(folder):
            return os.path.join(folder, NAME)
    raise UsageError("there is no home folder (HOME): name the configuration by --config FILE")


def load(file: str, now: datetime) -> Configuration:
    """Read a configuration; none where the file is not there.

    `now` is aware, in local time.  Mistakes in it are listed, not raised.  Raises Refused
    where others could have written what root would do, UsageError where it cannot be read.
    """
    text = _read(file)
    if text is None:
        return Configuration(file, False, (), ())
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return Configuration(file, True, (), (_syntax(file, text, str(error)),))
    except RecursionError:
        return Configuration(file, True, (), (f"{file}: is nested too deeply",))
    found, mistakes = plan.read(document, now)
    lines = sorted((_line(text, mistake.path), mistake.message) for mistake in mistakes)
    return Configuration(file, True, tuple(found), tuple(f"{file}:{n}: {m}" for n, m in lines))


def _read(file: str) -> str | None:
    try:
        with open(file, "rb", opener=_at_once) as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise UsageError(f"{file} is not a file")
            _require_own(file)
            data = opened.read(durable.LIMIT + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {(error.strerror or str(error))}") from error
    if len(data) > durable.LIMIT:
        raise UsageError(f"{file} is larger than any configuration")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{file}:{line}: is not UTF-8") from error


def _at_once(file: str, flags: int) -> int:
    return os.open(file, flags | os.O_NONBLOCK)  # a pipe is not waited for


def _require_own(file: str) -> None:
    """It names commands that are run: only who runs them, or root, may be able to write it."""
    user = os.geteuid()
    at = os.path.realpath(file)
    below: os.stat_result | None = None
    while True:
        st = os.stat(at)
        sticky = bool(st.st_mode & stat.S_ISVTX) and below is not None
        loose = st.st_mode & (0o022 if user == 0 and st.st_gid != 0 else 0o002)
        if st.st_uid not in (0, user) or (loose and not sticky):
            who = "it" if below is None else f"the folder {at}"
            raise Refused(
                f"{file} is refused, since others can write {who}:"
                f" `chown {_owner(user)} {at}`, `chmod go-w {at}`"
            )
        if user != 0 or at == "/":  # of a person's own folders others are no matter of ours
            return
        below, at = st, os.path.dirname(at)


def _owner(user: int) -> str:
    return "root:root" if user == 0 else str(user)


def _syntax(file: str, text: str, message: str) -> str:
    match = _LINE.search(message)
    line = int(match[1]) if match else text.count("\n") + 1
    words = _LINE.sub("", message).removesuffix("(at end of document)").strip()
    return f"{file}:{line}: {words[:1].lower()}{words[1:]}"


_MARK = "mirrorback was here"


def _line(text: str, path: plan.Path) -> int:
    """The line on which a key or a table stands, counted from 1.

    tomlkit keeps a document as it was typed, so the value is changed into a mark, and the mark
    looked for in the text that comes out.
    """
    import tomlkit

    document = tomlkit.parse(text)
    at: Any = document
    try:
        for key in path[:-1]:
            at = at[key]
        value = at[path[-1]]
        if isinstance(value, Mapping):
            return _header(text, path)
        at[path[-1]] = _MARK
        lines = tomlkit.dumps(document).splitlines()
        return next(n for n, line in enumerate(lines, 1) if _MARK in line)
    except (KeyError, StopIteration, TypeError, ValueError):
        return _header(text, path)


def _header(text: str, path: plan.Path) -> int:
    """The line of a table's header, or of the first key that leads to it."""
    for wanted in (path, path[:1]):
        for number, line in enumerate(text.splitlines(), 1):
            with contextlib.suppress(tomllib.TOMLDecodeError):
                if _leads(tomllib.loads(line), wanted):
                    return number
    return 1


def _leads(table: Any, path: plan.Path) -> bool:
    for key in path:
        if isinstance(table, list):
            table = table[0]
        if not isinstance(table, Mapping) or key not in table:
            return False
        table = table[key]
    return True


@contextlib.contextmanager
def edited(file: str, now: datetime) -> Iterator[Any]:
    """The document in a file, as tomlkit has it, to be changed; it is written when the block
    ends.  A new file is made with its folder.  Raises UsageError."""
    import tomlkit

    before = _read(file)
    try:
        document = tomlkit.parse(HEAD if before is None else before)
    except ValueError as error:
        load(file, now).require_sound()
        raise ConfigurationError(f"{file}: {error}") from error
    yield document
    _write(file, tomlkit.dumps(document))


def _write(file: str, text: str) -> None:
    # A link, such as to a folder of one's own settings, stays one.
    place = os.fsencode(os.path.realpath(file))
    head, name = os.path.split(place)
    try:
        os.makedirs(head, mode=0o700 if os.geteuid() else 0o755, exist_ok=True)
        folder = os.open(head, tree.DIRECTORY_FLAGS)
        try:
            durable.replace(folder, name, text.encode(), keep=True)
        finally:
            os.close(folder)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {(error.strerror or str(error))}") from error


def add(file: str, name: str, backup: Mapping[str, str], now: datetime) -> None:
    """Write an entry: its source, repository and repository's id.  Raises UsageError where
    there is one of that name, or the file has mistakes."""
    require_free(file, name, now)
    import tomlkit

    with edited(file, now) as document:
        table = tomlkit.table()
        for key, value in backup.items():
            table.add(key, value)
        if "backup" not in document:
            document.add("backup", tomlkit.table(is_super_table=True))
        document["backup"].append(name, table)


def add_made(file: str, name: str, source: str, repository: str, now: datetime) -> None:
    """Write an entry for a repository that has just been made.  Raises MirrorbackError."""
    from mirrorback.store.repository import Repository, drive_errors

    path = os.path.abspath(repository)
    with drive_errors():
        repo = Repository.open(os.fsencode(path))
        identity = repo.settings.id
        repo.close()
    entry = {"source": os.path.realpath(source), "repository": path, "repository-id": identity}
    for key, value in entry.items():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"the path of the {key} is not UTF-8: TOML cannot hold it") from error
    add(file, name, entry, now)


def require_free(file: str, name: str, now: datetime) -> None:
    """Raises UsageError where a configuration has a backup of that name, or mistakes, and for
    what is no name."""
    if not plan.NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name: give letters, digits, `_`, `-` and `.`")
    found = load(file, now)
    found.require_sound()
    if found.named(name) is not None:
        raise UsageError(f"{file} has a backup named {name} already: choose another name")


EDITORS = ("sensible-editor", "nano", "vi")


def edit(file: str) -> None:
    """Open a configuration in the person's editor (VISUAL, EDITOR), and return when that has
    ended.  A new one begins with an example.  Raises UsageError."""
    import shlex
    import shutil
    import subprocess

    if _read(file) is None:
        _write(file, EXAMPLE)
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


def expanded(path: str) -> str:
    """A path of a configuration, `~` being the home of who runs this.  Raises UsageError."""
    found = os.path.expanduser(path)
    if not os.path.isabs(found):
        raise UsageError(f"{path}: there is no home folder (HOME)")
    return found


def repository_of(backup: Configured) -> str:
    """The path of a configured backup's repository.  Raises Refused where another repository
    lies there, MirrorbackError where it cannot be opened."""
    from mirrorback.store.repository import Repository, drive_errors

    path = expanded(backup.repository)
    if backup.repository_id is None:
        return path
    with drive_errors():
        repo = Repository.open(os.path.abspath(os.fsencode(path)))
        try:
            found = repo.settings.id
        finally:
            repo.close()
    if found != backup.repository_id:
        raise Refused(
            f"{path} holds another repository ({found[:8]}) than the one configured as"
            f" {backup.name} ({backup.repository_id[:8]}): is it another drive?  If it is meant,"
            " take repository-id out of the configuration"
        )
    return path


def in_use(file: str | None, now: datetime) -> Configuration:
    """The configuration that a command goes by: `file`, which has to be there, or the usual
    one.  Raises UsageError, Refused."""
    found = load(default_file() if file is None else file, now)
    if file is not None and not found.exists:
        raise UsageError(f"--config {file}: there is no such file")
    return found


def resolved(repository: str, file: str | None, now: datetime) -> str:
    """What was given as REPO, as a path: the name of a configured backup stands for its
    repository; what holds a slash is a path always.  Raises MirrorbackError."""
    if "/" in repository or not plan.NAME.fullmatch(repository):
        return repository
    try:
        found = in_use(file, now)
        backup = found.named(repository)
        if backup is None and not os.path.lexists(repository):
            found.require_sound()
    except MirrorbackError:
        if os.path.lexists(repository):
            return repository
        raise
    return repository if backup is None else repository_of(backup)
