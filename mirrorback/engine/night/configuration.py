"""The configuration file: where it is, what it says, and what the names in it stand for."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import stat
import tomllib
from dataclasses import dataclass
from datetime import datetime

from mirrorback.engine.night.lines import lines_of
from mirrorback.errors import MirrorbackError, NoRepository, Refused, UsageError
from mirrorback.plan import configuration as plan
from mirrorback.plan.configuration import Configured as Configured
from mirrorback.store import durable
from mirrorback.store.repository import Repository, drive_errors

SYSTEM = "/etc/mirrorback"  # root's
NAME = "config.toml"
_LINE = re.compile(r"\(at line ([0-9]+), column [0-9]+\)", re.ASCII)


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
    text = read(file)
    if text is None:
        return Configuration(file, False, (), ())
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return Configuration(file, True, (), (_syntax(file, text, str(error)),))
    except RecursionError:
        return Configuration(file, True, (), (f"{file}: is nested too deeply",))
    found, mistakes = plan.read(document, now, os.path.expanduser)
    numbers = lines_of(text, [mistake.path for mistake in mistakes]) if mistakes else []
    told = sorted((n, mistake.message) for n, mistake in zip(numbers, mistakes, strict=True))
    return Configuration(file, True, tuple(found), tuple(f"{file}:{n}: {m}" for n, m in told))


def read(file: str) -> str | None:
    """The text of a configuration; None where there is none.  Raises Refused, UsageError."""
    try:
        with open(file, "rb", opener=_at_once) as opened:
            st = os.fstat(opened.fileno())
            if not stat.S_ISREG(st.st_mode):
                raise UsageError(f"{file} is not a file")
            _require_own(file, st)
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


def _require_own(file: str, st: os.stat_result) -> None:
    """It names commands that are run: only who runs them, or root, may be able to write it, and,
    for root, what leads to it, be that by links."""
    if _is_loose(st):
        raise _refused(file, "it", os.path.realpath(file))
    loose = loose_folder(file)
    if loose is not None:
        raise _refused(file, f"the folder {loose}", loose)


def loose_folder(file: str) -> str | None:
    """Where root asks: a folder that leads to a file, be that by links, and that others can
    write.  Raises OSError."""
    if os.geteuid() != 0:  # of a person's own folders others are no matter of ours
        return None
    for way in (os.path.abspath(file), os.path.realpath(file)):
        while way != "/":
            way = os.path.dirname(way)
            st = os.stat(way)
            if _is_loose(st, sticky=bool(st.st_mode & stat.S_ISVTX)):
                return way
    return None


def _is_loose(st: os.stat_result, *, sticky: bool = False) -> bool:
    """Whether others can write something; in a `sticky` folder they leave alone what is there."""
    user = os.geteuid()
    others = 0o022 if user == 0 and st.st_gid != 0 else 0o002
    return st.st_uid not in (0, user) or (bool(st.st_mode & others) and not sticky)


def _refused(file: str, what: str, at: str) -> Refused:
    shown = shlex.quote(at)
    return Refused(
        f"{file} is refused, since others can write {what}:"
        f" `chown {_owner(os.geteuid())} {shown}`, `chmod go-w {shown}`"
    )


def _owner(user: int) -> str:
    return "root:root" if user == 0 else str(user)


def _syntax(file: str, text: str, message: str) -> str:
    match = _LINE.search(message)
    line = int(match[1]) if match else text.count("\n") + 1
    words = _LINE.sub("", message).removesuffix("(at end of document)").strip()
    return f"{file}:{line}: {words[:1].lower()}{words[1:]}"


def expanded(path: str) -> str:
    """A path of a configuration, `~` being the home of who runs this.  Raises UsageError."""
    found = os.path.expanduser(path)
    if not os.path.isabs(found):
        raise UsageError(f"{path}: there is no home folder (HOME)")
    return found


def opened(backup: Configured) -> Repository:
    """A configured backup's repository, for the caller to close.  Raises NoRepository where the
    drive of another backup lies there, with which it takes turns; Refused where that is another
    one, MirrorbackError where it cannot be opened."""
    path = expanded(backup.repository)
    with drive_errors():
        repo = Repository.open(os.path.abspath(os.fsencode(path)))
    found = repo.settings.id
    if backup.repository_id in (None, found):
        return repo
    repo.close()
    for other, identity in backup.alternates:
        if identity == found:
            raise NoRepository(
                f"the drive of {backup.name} is not there: at {path} is that of {other}"
            )
    raise Refused(
        f"{path} holds another repository ({found[:8]}) than the one configured as"
        f" {backup.name} ({(backup.repository_id or '')[:8]}): is it another drive?  If it is"
        " meant, take repository-id out of the configuration; if the two take turns, give it an"
        " entry of its own"
    )


def repository_of(backup: Configured) -> str:
    """The path of a configured backup's repository.  Raises Refused, NoRepository where another
    one lies there; where an id is configured, MirrorbackError where it cannot be opened."""
    if backup.repository_id is not None:
        opened(backup).close()
    return expanded(backup.repository)


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
