"""The recipes of docs/recipes.md, read from there and run."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import threading
import time
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from filesystems import mounted, require_root
from mounts import let_others_in
from program import Done, environment, run
from recipes import page

from mirrorback.plan.configuration import read

PAGE = page("recipes.md")
NAMES = ["copy-postgresql", "copy-sqlite", "dump-postgresql", "frozen-volume"]


def test_the_page_holds_what_it_promises() -> None:
    assert sorted(os.path.basename(path) for path in PAGE.scripts()) == NAMES
    now = datetime(2026, 11, 25, tzinfo=UTC)
    for language, text in PAGE.blocks:
        if language == "toml":
            found, mistakes = read(tomllib.loads(text), now)
            assert len(found) == 1 and mistakes == []


@pytest.mark.parametrize("path", PAGE.scripts())
def test_a_script_is_one_for_any_posix_shell(path: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(PAGE.scripts()[path])
    for shell in ("dash", "bash"):
        if shutil.which(shell):
            subprocess.run([shell, "-n", script], check=True)


class Recipe:
    """A recipe in a folder of the test, whose paths take the place of those in the page."""

    def __init__(self, folder: Path, name: str, replaced: dict[str, str]) -> None:
        self.name = name
        self.folder = folder
        (folder / "bin").mkdir()
        self._replaced = replaced | {
            "/usr/local/bin": str(folder / "bin"),
            "/usr/local/sbin": str(folder / "bin"),
            "/media/alice/Backup": str(folder / "drive"),
        }
        for path, text in PAGE.scripts().items():
            script = folder / "bin" / os.path.basename(path)
            script.write_text(self.here(text))
            script.chmod(0o755)
        self.config = folder / "config.toml"
        self.config.write_text(self.here(PAGE.configuration(name)))
        found = tomllib.loads(self.config.read_text())["backup"][name]
        self.source, self.repository = Path(found["source"]), Path(found["repository"])
        (folder / "scratch").mkdir()
        (folder / "scratch").chmod(0o1777)
        self.env = environment(
            MIRRORBACK_STATE_DIR=str(folder / "state"), TMPDIR=str(folder / "scratch")
        )

    def here(self, text: str) -> str:
        """Text of the page with the test's paths."""
        for there, ours in self._replaced.items():
            text = text.replace(there, ours)
        return text

    def init(self) -> None:
        """Make the repository."""
        run("init", self.repository, "--source", self.source)

    def night(self, code: int = 0, **env: str) -> Done:
        """What happens at night."""
        return run("run", "--config", self.config, "-v", code=code, env=self.env | env)

    @property
    def current(self) -> Path:
        """The mirror."""
        return self.repository / "current"

    def folders(self) -> list[str]:
        """The dated folders."""
        return sorted(name for name in os.listdir(self.repository) if name.startswith("20"))


# --- SQLite --------------------------------------------------------------------------------


@pytest.fixture
def sqlite(tmp_path: Path) -> Recipe:
    recipe = Recipe(tmp_path, "home", {"/home/alice": str(tmp_path / "alice")})
    (tmp_path / "alice" / "app").mkdir(parents=True)
    return recipe


@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.parametrize("way", [".backup", "VACUUM"])
def test_sqlite_is_copied_while_it_is_written(sqlite: Recipe, journal: str, way: str) -> None:
    if way == "VACUUM":
        text = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
        (other,) = re.findall(r"^    (sqlite3 .*VACUUM INTO.*)$", text, re.MULTILINE)
        script = sqlite.folder / "bin" / "copy-sqlite"
        lines = [other if '".backup ' in line else line for line in script.read_text().splitlines()]
        assert other in lines
        script.write_text("\n".join(lines) + "\n")
    path = sqlite.source / "app" / "data.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA journal_mode = {journal}")
    db.execute("PRAGMA synchronous = OFF")
    db.execute("CREATE TABLE pair (a INTEGER, b INTEGER)")
    db.executemany("INSERT INTO pair VALUES (?, ?)", [(n, -n) for n in range(20_000)])
    db.close()
    stop = threading.Event()

    def write() -> None:
        writer = sqlite3.connect(path, isolation_level=None, timeout=60)
        number = 1
        while not stop.is_set():
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("UPDATE pair SET a = ?", (number,))
            writer.execute("UPDATE pair SET b = ?", (-number,))
            writer.execute("COMMIT")
            number += 1
            time.sleep(0.3)
        writer.close()

    user = sqlite3.connect(path)  # the program whose database it is stays
    user.execute("SELECT 1 FROM pair").fetchone()
    thread = threading.Thread(target=write)
    thread.start()
    try:
        time.sleep(0.5)
        sqlite.init()
        sqlite.night()
    finally:
        stop.set()
        thread.join()
    assert sorted(os.listdir(sqlite.current / "app")) == ["data.copy.db"]
    copy = sqlite3.connect(f"file:{sqlite.current}/app/data.copy.db?mode=ro&immutable=1", uri=True)
    assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert copy.execute("SELECT COUNT(*), SUM(a + b), MAX(a) = MIN(a) FROM pair").fetchone() == (
        20_000,
        0,
        1,
    )
    copy.close()
    assert (sqlite.current / "app/data.copy.db").stat().st_mode == path.stat().st_mode
    sqlite.night()  # with what was written since
    assert "nothing changed" in sqlite.night().out
    user.close()
    assert os.listdir(sqlite.folder / "scratch") == []


def test_no_sqlite_database_is_no_backup(sqlite: Recipe) -> None:
    (sqlite.source / "other").write_text("x")
    sqlite.init()
    done = sqlite.night(code=1)
    assert "before ended with 1" in done.err
    assert os.listdir(sqlite.source / "app") == []
    assert not sqlite.current.exists()


def test_a_damaged_sqlite_database_stops_the_backup(sqlite: Recipe) -> None:
    path = sqlite.source / "app" / "data.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE t (x)")
    db.executemany("INSERT INTO t VALUES (?)", [("x" * 500,) for _ in range(1000)])
    db.commit()
    db.close()
    sqlite.init()
    sqlite.night()
    before = (sqlite.current / "app" / "data.copy.db").read_bytes()
    with path.open("r+b") as file:
        file.seek(4096 * 20)
        file.write(os.urandom(4096 * 3))
    sqlite.night(code=1)
    assert (sqlite.current / "app" / "data.copy.db").read_bytes() == before


# --- PostgreSQL ----------------------------------------------------------------------------


class Server:
    """A PostgreSQL server of its own, which listens on a socket alone."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not found:
            pytest.fail("postgresql is not installed; .ci/run lists what the tests need")
        self.bin = found[-1]
        self.folder = folder
        self.env = {"PGHOST": str(folder), "PGPORT": "5999", "PGDATABASE": "postgres"}
        self.env["PATH"] = f"{self.bin}:{os.environ['PATH']}"

    def run(self, *command: str | Path, text: str | None = None) -> str:
        """Run a command as who runs the server."""
        done = subprocess.run(
            ["runuser", "-u", "postgres", "--", *command],
            input=text,
            capture_output=True,
            text=True,
            cwd="/",
            env=os.environ | self.env,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, data: Path) -> None:
        """Start it."""
        options = f"-k {self.folder} -c listen_addresses= -c fsync=off -p 5999"
        log = self.folder / "log"
        subprocess.run(
            [
                *("runuser", "-u", "postgres", "--", self.bin / "pg_ctl", "-D", data),
                *("-l", log, "-w", "-o", options, "start"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            timeout=120,
        )

    def stop(self, data: Path) -> None:
        """Stop it."""
        self.run(self.bin / "pg_ctl", "-D", data, "-m", "immediate", "stop")

    def sql(self, text: str, database: str = "postgres") -> str:
        """What a query gives."""
        return self.run("psql", "-XAtq", "-d", database, "-c", text).strip()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    require_root()
    let_others_in(tmp_path)
    folder = tmp_path / "pg"
    folder.mkdir()
    shutil.chown(folder, "postgres", "postgres")
    found = Server(folder)
    data = folder / "data"
    found.run(found.bin / "initdb", "-N", "-A", "trust", "-D", data)
    found.start(data)
    try:
        found.sql("CREATE ROLE alice")
        found.sql('CREATE DATABASE "Shop no. 1" OWNER alice')
        found.sql("CREATE TABLE item AS SELECT n FROM generate_series(1, 1000) n", "Shop no. 1")
        yield found
    finally:
        found.stop(data)


@pytest.fixture
def dumps(tmp_path: Path, server: Server) -> Recipe:
    folder = tmp_path / "backups"
    recipe = Recipe(tmp_path, "databases", {"/var/backups/postgresql": str(folder)})
    recipe.env |= server.env
    folder.mkdir(mode=0o700)
    shutil.chown(folder, "postgres", "postgres")
    return recipe


def test_postgresql_is_dumped_and_comes_back(dumps: Recipe, server: Server) -> None:
    dumps.init()
    dumps.night()
    assert sorted(os.listdir(dumps.current)) == ["Shop no. 1.sql", "globals.sql", "postgres.sql"]
    assert "nothing changed" in dumps.night().out
    server.sql("DELETE FROM item WHERE n > 10", "Shop no. 1")
    dumps.night()
    (old,) = dumps.folders()
    server.sql('DROP DATABASE "Shop no. 1"')
    dumps.night()
    assert sorted(os.listdir(dumps.current)) == ["globals.sql", "postgres.sql"]
    text = run("cat", dumps.repository, "Shop no. 1.sql", "--at", old).out
    server.run("psql", "-X", "postgres", text=text)
    assert server.sql("SELECT COUNT(*), SUM(n) FROM item", "Shop no. 1") == "1000|500500"
    owner = "SELECT datdba::regrole FROM pg_database WHERE datname = 'Shop no. 1'"
    assert server.sql(owner) == "alice"
    assert "CREATE ROLE alice" in (dumps.current / "globals.sql").read_text()


def test_a_dump_that_fails_stops_the_backup(dumps: Recipe, server: Server) -> None:
    dumps.init()
    dumps.night()
    server.sql('CREATE DATABASE "../evil"')
    done = dumps.night(code=1)
    assert "a database is called ../evil" in done.err
    server.sql('DROP DATABASE "../evil"')
    dumps.night(code=1, PGPORT="5998")
    assert dumps.folders() == []
    assert "nothing changed" in dumps.night().out


def test_a_base_backup_is_a_server(tmp_path: Path, server: Server) -> None:
    folder = tmp_path / "backups"
    recipe = Recipe(tmp_path, "server", {"/var/backups/postgresql": str(folder)})
    recipe.env |= server.env
    (folder / "base").mkdir(parents=True, mode=0o700)
    for path in (folder, folder / "base"):
        shutil.chown(path, "postgres", "postgres")
    recipe.init()
    recipe.night()
    server.sql("DELETE FROM item", "Shop no. 1")
    recipe.night()
    (old,) = recipe.folders()
    linked = [
        path
        for path in (recipe.repository / old / "base").rglob("*")
        if path.is_file() and path.stat().st_nlink > 1
    ]
    assert len(linked) > 500  # what did not change is not copied again
    back = tmp_path / "back"
    run("restore", recipe.repository, "--at", old, "--to", back)
    assert back.stat().st_mode & 0o777 == 0o700
    server.stop(server.folder / "data")
    server.start(back)
    try:
        assert server.sql("SELECT COUNT(*), SUM(n) FROM item", "Shop no. 1") == "1000|500500"
    finally:
        server.stop(back)
        server.start(server.folder / "data")


# --- LVM -----------------------------------------------------------------------------------

# Stands in for LVM where the kernel has no device mapper: a volume is a file system in an
# image, its snapshot a copy of that.  The script, the mounts and the night are real.
STAND_IN = {
    "lvs": '[ -e "$state/made" ]',
    "lvcreate": """
[ ! -e "$state/fails" ]
[ ! -e "$state/made" ]
[ "$*" = "--snapshot --size 5G --name srv-mirrorback vg0/srv" ]
sync
cp "$state/volume" "$state/copy"
ln -s "$(losetup --find --show "$state/copy")" "$state/made"
""",
    "lvremove": """
[ "$*" = "-f -y vg0/srv-mirrorback" ]
losetup -d "$(readlink "$state/made")"
rm "$state/made" "$state/copy"
""",
}


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[Recipe]:
    require_root()
    state, tools = tmp_path / "lvm", tmp_path / "tools"
    state.mkdir()
    tools.mkdir()
    for name, text in STAND_IN.items():
        script = tools / name
        script.write_text(f"#!/bin/sh\nset -eu\nstate={state}\n{text}\n")
        script.chmod(0o755)
    point = str(tmp_path / "frozen" / "srv")
    device = {"/dev/$snapshot": str(state / "made"), "/run/frozen/srv": point}
    recipe = Recipe(tmp_path, "srv", device)
    recipe.env["PATH"] = f"{tools}:{os.environ['PATH']}"
    with mounted("ext4", tmp_path, size=64 << 20) as volume:
        os.link(tmp_path / "ext4.img", state / "volume")
        (volume / "f").write_text("first")
        try:
            yield recipe
        finally:
            if os.path.ismount(point):
                subprocess.run(["umount", point], check=True)
            if (state / "made").is_symlink():
                subprocess.run(["losetup", "-d", os.readlink(state / "made")], check=True)


def scenario(recipe: Recipe, volume: Path) -> None:
    """Three nights of a volume that is written."""
    recipe.source.mkdir(parents=True)
    recipe.init()
    recipe.source.rmdir()
    recipe.night()
    assert (recipe.current / "f").read_text() == "first"
    assert not os.path.ismount(recipe.source)
    assert "nothing changed" in recipe.night().out
    (volume / "f").write_text("second")
    recipe.night()
    assert (recipe.current / "f").read_text() == "second"
    assert not os.path.ismount(recipe.source)


def test_a_volume_is_frozen_with_a_stand_in_for_lvm(stand_in: Recipe) -> None:
    scenario(stand_in, stand_in.folder / "ext4")
    state = stand_in.folder / "lvm"
    assert not (state / "made").exists()
    # What a night that was cut has left goes in the next one.
    make = [stand_in.folder / "bin" / "frozen-volume", "make", "vg0/srv", "5G", stand_in.source]
    subprocess.run(make, check=True, env=stand_in.env, capture_output=True)
    assert os.path.ismount(stand_in.source)
    stand_in.night()
    assert not os.path.ismount(stand_in.source) and not (state / "made").exists()
    (state / "fails").touch()
    assert "before ended with" in stand_in.night(code=1).err
    (state / "fails").unlink()
    # Nothing is left either where it cannot be mounted.
    stand_in.source.rmdir()
    stand_in.source.write_text("in the way")
    stand_in.night(code=1)
    assert not (state / "made").exists()


def test_a_volume_is_frozen_by_lvm(tmp_path: Path) -> None:
    require_root()
    if shutil.which("lvcreate") is None:
        pytest.skip("lvm2 is not installed")
    if subprocess.run(["dmsetup", "targets"], capture_output=True).returncode:
        pytest.skip("this kernel has no device mapper")
    group = f"mbtest{os.getpid()}"
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(400 << 20)
    done = subprocess.run(
        ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True
    )
    loop = done.stdout.strip()
    volume = tmp_path / "volume"
    volume.mkdir()
    try:
        for command in (
            ["vgcreate", group, loop],
            ["lvcreate", "-y", "-L", "100M", "-n", "srv", group],
            ["mkfs.ext4", "-q", f"/dev/{group}/srv"],
            ["mount", f"/dev/{group}/srv", str(volume)],
        ):
            subprocess.run(command, check=True, capture_output=True)
        (volume / "f").write_text("first")
        there = {"/run/frozen/srv": str(tmp_path / "frozen" / "srv"), "vg0/": f"{group}/"}
        recipe = Recipe(tmp_path, "srv", there | {" 5G ": " 50M "})
        scenario(recipe, volume)
    finally:
        subprocess.run(["umount", volume], check=False)
        subprocess.run(["vgremove", "-f", "-y", group], check=False, capture_output=True)
        subprocess.run(["losetup", "-d", loop], check=True)
