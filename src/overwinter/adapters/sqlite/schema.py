"""The tables, their migrations, and the rules for opening a file."""

import os
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import apsw

from overwinter.adapters.sqlite import grants, log_rows, outbox
from overwinter.errors import HomeDamaged, HomeError, HomeFull, HomeHeld, HomeTooNew

__all__ = ["BUSY_MS", "FORMAT", "SQLITE_MIN", "connect", "guarded", "is_library_safe", "make", "migrate"]

FORMAT = 5
"""The format this version writes. A change adds a step to `MIGRATIONS` and a fixture of the format before."""
SQLITE_MIN = (3, 51, 3)
"""Up to 3.51.2, two connections that write or do WAL checkpoints at once can corrupt the file
(sqlite.org/wal.html#walresetbug)."""
PAGE_BYTES = 8_192
BUSY_MS = 5_000
STATEMENTS_KEPT = 512
"""Prepared statements of a connection, as many as apsw keeps. Each use takes one of its places, in a circle: with its own 100, a
statement that came once in a commit of 16 turns was parsed anew at each, 0.6 a turn."""

# Runs are keyed by a small integer `n` inside the file, so that the eight-byte key of each row of each table stays small;
# `run.id` is what the outside knows. Instants are microseconds UTC. A call's timer is `call.due`.
TABLES = """
create table meta (
    id integer primary key check (id = 1), format integer not null, epoch integer not null, home blob not null,
    key_id blob) strict;
create table program (id integer primary key, digest blob not null unique, source text not null) strict;
create table run (
    n integer primary key, id blob not null unique, agent text not null, name text not null, program integer not null,
    inputs blob not null, status integer not null default 0, seq integer not null default 0,
    events integer not null default 0, calls integer not null default 0, failures integer not null default 0,
    not_before integer not null default 0, first integer, receives integer not null default 0,
    created integer not null, changed integer not null, result blob) strict;
create index run_new on run (n) where status = 0 and seq = 0;
create index run_late on run (not_before) where status = 0 and not_before > 0;
create index run_status on run (status, changed) where status > 0;
create table snapshot (n integer primary key, body blob not null) strict;
create table call (
    n integer not null, position integer not null, state integer not null default 0, attempt integer not null default 0,
    effect integer not null, function text not null, arguments blob not null, line integer not null,
    not_before integer not null default 0, due integer, person text, epoch integer not null default 0,
    made integer not null, primary key (n, position)) strict, without rowid;
create index call_due on call (due) where due is not null;
create index call_todo on call (not_before) where state = 0 and effect < 3;
create index call_started on call (epoch) where state = 1;
create index call_asked on call (made) where person is not null and state in (0, 3);
create table mail (
    n integer not null, id blob not null, position integer, body blob not null, sent integer not null,
    primary key (n, id)) strict, without rowid;
create table seen (n integer not null, dedup text not null, at integer not null, primary key (n, dedup))
    strict, without rowid;
create table started (dedup text primary key, run blob not null, at integer not null) strict, without rowid;
create table journal (
    n integer not null, position integer not null, epoch integer not null, at integer not null, kind text not null,
    body blob not null, primary key (n, position)) strict, without rowid;
"""
# `kept`: bodies that are too large for a journal, a part a row: a commit that holds one must not keep the others waiting.
# `run.checked`: digest of the types that its program was checked against. `call.more`: what a service that took a call is asked with again.
FORMAT_2 = """
create table kept (
    n integer not null, position integer not null, part integer not null, body blob not null,
    primary key (n, position, part)) strict;
alter table call add column more blob;
alter table run add column checked blob;
"""

# `gate`, `vote`: calls that wait for people's approval, and what they said.
# `agent`: governed identities. What a run may do ends with the epoch of its agent in which it was made.
FORMAT_3 = (
    """
create table agent (
    name text primary key, owner text not null, purpose text not null default '', parent text, expires integer,
    models text not null default '[]', epoch integer not null default 1, state integer not null default 0,
    changed integer not null default 0, by text not null default '', reason text not null default '') strict, without rowid;
create index agent_below on agent (parent) where parent is not null;
alter table run add column agent_epoch integer not null default 1;
create table gate (
    n integer not null, position integer not null, digest blob not null, approver text not null, reason text not null,
    policies text not null, needed integer not null, expires integer, used integer, primary key (n, position))
    strict, without rowid;
create table vote (
    n integer not null, position integer not null, person text not null, yes integer not null, reason text not null,
    at integer not null, primary key (n, position, person)) strict, without rowid;
insert into agent (name, owner) select distinct agent, 'owner' from run;
"""
    # `token`: what is kept of people's API tokens; `digest` is all that is left of the token itself.
    """
create table token (
    id text primary key, digest blob not null, person text not null, name text not null, scopes text not null,
    agents text not null, created integer not null, expires integer not null, used integer, revoked integer)
    strict, without rowid;
create index token_person on token (person);
""" + log_rows.FORMAT_3 + grants.FORMAT_3
)

# `delivery`: what webhooks are still to be told, see `deliveries.py`. It goes with its run.
DELIVERY_4 = """
create table delivery (
    webhook text not null, n integer not null, position integer not null, topic text not null, attempt integer not null default 0,
    not_before integer not null default 0, state integer not null default 0, why text not null default '',
    primary key (webhook, n, position)) strict, without rowid;
create index delivery_due on delivery (webhook, not_before) where state = 0;
create index delivery_run on delivery (n);
"""
FORMAT_4 = [DELIVERY_4, outbox.OUTBOX_4]

# `run.parent`, `run.parent_position`: the call of another run that this run's end answers. `run.after`: the ended run with whose
# variables it began. `run.reads`: whether it may only read. `run.keeps`: whether its snapshot stays when it has ended.
LINEAGE_5 = """
alter table run add column parent integer;
alter table run add column parent_position integer;
alter table run add column after integer;
alter table run add column reads integer not null default 0;
alter table run add column keeps integer not null default 0;
create index run_heir on run (after) where after is not null;
create index run_child on run (parent, parent_position) where parent is not null;
"""
# `schedule`: what begins by the calendar.
SCHEDULE_5 = """
create table schedule (
    id text primary key, name text not null, agent text not null, start blob not null, cron text not null, zone text not null,
    misfire text not null, overlap text not null, next integer, paused text not null default '', made integer not null,
    by text not null, started integer not null default 0, missed integer not null default 0, skipped integer not null default 0,
    failures integer not null default 0, last_run text, last integer) strict, without rowid;
"""
# `request`: what was asked under a key, see `requests.py`.
REQUEST_5 = """
create table request (
    id blob primary key, digest blob not null, at integer not null, status integer, answer blob) strict, without rowid;
create index request_at on request (at);
"""
# `delivery.schedule`: it is of a schedule and of no run, `n` is 0.
DELIVERY_5 = """
alter table delivery add column schedule text;
create index delivery_schedule on delivery (schedule) where schedule is not null;
"""
FORMAT_5 = [LINEAGE_5, SCHEDULE_5, REQUEST_5, DELIVERY_5]

# Made at each opening if it is missing: an index is no part of the format. It answers "what waits for whom" without the
# bodies: ten thousand pending messages cost a look for ready runs 45 ms and each further `send` 5 ms without it.
INDICES = "create index if not exists mail_waiting on mail (n, position, id, sent)"

MIGRATIONS: dict[int, Callable[[apsw.Connection], object]] = {
    1: lambda db: db.execute(FORMAT_2),
    2: lambda db: db.execute(FORMAT_3),
    3: lambda db: db.execute("".join(FORMAT_4)),
    4: lambda db: db.execute("".join(FORMAT_5)),
}
"""Format to the step that leads to the next one."""


def is_library_safe(version: str) -> bool:
    """Whether a SQLite library may touch a home."""
    return tuple(int(part) for part in version.split(".")[:3]) >= SQLITE_MIN


def connect(path: Path, *, is_writer: bool) -> apsw.Connection:
    """Open the file as its writer, or as a reader.

    Raises:
        HomeError: the library is unsafe, or the file cannot be opened.
    """
    if not is_library_safe(apsw.sqlite_lib_version()):
        needed = ".".join(map(str, SQLITE_MIN))
        raise HomeError(f"SQLite {apsw.sqlite_lib_version()} can corrupt a database; install apsw >= {needed}")
    flags = apsw.SQLITE_OPEN_READWRITE if is_writer else apsw.SQLITE_OPEN_READONLY
    with guarded(path):
        connection = apsw.Connection(str(path), flags=flags, statementcachesize=STATEMENTS_KEPT)
        connection.set_busy_timeout(BUSY_MS)
        # With STAT4 compiled in, SQLite plans a statement anew whenever values are bound to it, for statistics that we
        # do not keep: 14 of the 19 us in which a commit looks up its run.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        if is_writer:
            _refuse_foreign(connection, path)
            ((mode,),) = connection.execute("pragma journal_mode=wal")
            if mode != "wal":
                raise HomeError(f"{path} is on a filesystem without shared memory: put the home on a local disk")
        connection.execute("pragma synchronous=full")
        connection.execute("pragma fullfsync=1")  # macOS: fsync alone does not reach the disk
        connection.execute("pragma mmap_size=0")
        connection.execute("pragma cache_size=-2048")
    return connection


def refuse_moved(path: Path, file: tuple[int, int] | None = None) -> None:
    """Refuse to go on with a file that is not in its place: nobody would find again what is written to it.

    Args:
        path: its place.
        file: device and number of the file that was opened; None: any.

    Raises:
        HomeDamaged: it was deleted, or there is another one.
    """
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise HomeDamaged(f"{path} is missing: stop overwinter, and restore it from a backup") from error
    except OSError:
        return  # what is wrong with it is said by who opens it
    if file is not None and (found.st_dev, found.st_ino) != file:
        raise HomeDamaged(
            f"{path} was replaced while overwinter works with it: stop it, and start it with the file you want"
        )


def make(path: Path, home: bytes, key_id: bytes) -> None:
    """Make the file if there is none, whole or not at all: so one without tables is one that was emptied.

    It is readable by its owner alone, and SQLite gives its log and index the same mode.
    """
    if path.exists():
        return
    draft = path.with_name(f"{path.name}.new")
    with suppress(OSError):  # SQLite says what is wrong
        draft.unlink(missing_ok=True)
        draft.with_name(f"{draft.name}-journal").unlink(missing_ok=True)
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with guarded(path), closing(apsw.Connection(str(draft), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        connection.execute("pragma synchronous=full")
        connection.execute(f"pragma page_size={PAGE_BYTES}")
        with connection:
            connection.execute(TABLES + FORMAT_2 + FORMAT_3 + "".join([*FORMAT_4, *FORMAT_5]))
            connection.execute("insert into meta values (1, ?, 0, ?, ?)", (FORMAT, home, key_id))
    draft.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _refuse_foreign(connection: apsw.Connection, path: Path) -> None:
    tables = {name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")}
    if not tables:
        raise HomeDamaged(f"{path} was emptied: restore it from a backup, or delete it to begin with no runs at all")
    if not {"meta", "run", "journal"} <= tables:
        raise HomeDamaged(
            f"{path} is another program's database: move it away, or choose another home; nothing was changed"
        )


def migrate(connection: apsw.Connection, path: Path, key_id: bytes) -> int:
    """Bring the tables to this version's format; return the new epoch of this opening.

    Raises:
        HomeTooNew: a newer version wrote the file. Nothing was changed.
        HomeDamaged: the snapshot key is not the one that the home was made with.
    """
    with guarded(path), connection:
        ((found, known_key),) = connection.execute("select format, key_id from meta")
        if found > FORMAT:
            raise HomeTooNew(
                f"{path} has format {found}, this version knows up to {FORMAT}: install a newer overwinter; nothing was changed"
            )
        if known_key != key_id:
            raise HomeDamaged(
                f"the snapshot key beside {path} is not the one that its runs were sealed with: restore "
                f"keys/snapshot.key (id {bytes(known_key).hex()}) from a backup"
            )
        for step in range(found, FORMAT):
            MIGRATIONS[step](connection)
            connection.execute("update meta set format = ?", (step + 1,))
        connection.execute(INDICES)
        connection.execute("update meta set epoch = epoch + 1")
    ((epoch,),) = connection.execute("select epoch from meta")
    return epoch


@contextmanager
def guarded(path: Path) -> Generator[None]:
    """Turn the library's errors into the house's, with a remedy each."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError, apsw.FormatError) as error:
        raise HomeDamaged(
            f"{path} is damaged ({error}): stop overwinter, keep a copy of the file, and restore it from a backup"
        ) from error
    except apsw.FullError as error:
        raise HomeFull(f"no space is left for {path}: free some; nothing acknowledged is lost") from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise HomeHeld(f"{path} is locked by another process: stop it, or talk to it over its socket") from error
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError, apsw.AuthError) as error:
        refuse_moved(path)
        raise HomeError(f"{path} cannot be opened or written ({error}): check its owner and mode") from error
    except apsw.IOError as error:
        if (
            getattr(error, "extendedresult", None) in _WRITE_FAULTS
        ):  # set by SQLite's own errors, missing in apsw's stubs
            raise HomeFull(
                f"the disk refused a write to {path} ({error}): check its space, quota and health"
            ) from error
        raise HomeDamaged(
            f"{path} cannot be read ({error}): check the disk, and restore the file from a backup"
        ) from error


_WRITE_FAULTS = frozenset([
    apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC, apsw.SQLITE_IOERR_TRUNCATE,
    apsw.SQLITE_IOERR_SHMSIZE, apsw.SQLITE_IOERR_SHMOPEN, apsw.SQLITE_IOERR_GETTEMPPATH,
])  # fmt: skip
"""What a full disk, a quota or a failing device looks like from a write; any other I/O error is a failed read."""
