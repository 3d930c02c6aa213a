"""`models.db` of a home: budgets, the ledger of model calls, kept answers.

Apart from the store, for a reservation must not wait for a disk: commits here are durable over the death of any process at any
point, and may lose the last moments when the power fails. Several processes may have the file open; a reservation is one
transaction, so the sum of what is spent and held passes no limit, whoever counts.
"""

import asyncio
import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import apsw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from overwinter.adapters.models.lines import LINE, decoded, encoded, line_of, row_of, usage_of, usage_text
from overwinter.adapters.sqlite.schema import guarded
from overwinter.clock import SECOND_US, Clock
from overwinter.errors import HomeError, HomeHeld, HomeTooNew
from overwinter.frozen import frozen, replace
from overwinter.gateway.answers import Kept
from overwinter.gateway.budget import Budget, Hold, Line, Reserved, Scope, Spent, bounds
from overwinter.gateway.similar import KNOWN_MAX, Known
from overwinter.gateway.usage import Usage

__all__ = ["ModelsFile", "Total", "open_models_file"]

FORMAT = 1
BUSY_MS = 5_000
LINES_MAX = 1_000
"""Lines in one page."""
PAGE_MAX = 64
"""Answers looked at a time for what goes first."""
PROCESSES = 4
"""That may keep answers in one file, and together no more than there is room for."""
_Begins = tuple[Line, asyncio.Future[Reserved]]
_Ends = tuple[Line, asyncio.Future[bool]]
_Answer = tuple[bytes, str, int, int]
"""Sealed bytes, what is known of them, when they were kept, until when."""

TABLES = """
create table meta (format integer not null) strict;
create table budget (
    kind text not null, name text not null, window text not null, start integer not null, spent integer not null,
    held integer not null, calls integer not null, primary key (kind, name, window, start)) strict, without rowid;
create table line (
    call text primary key, began integer not null, ended integer, agent text not null, run text not null, key text not null,
    dialect text not null, upstream text not null, model text not null, priced text not null, state text not null,
    status text not null, held integer not null, cost integer, saved integer not null, usage text not null,
    answer text not null, found text not null, digest text not null, rules text not null, policies text not null, budgets text not null,
    holder text not null) strict, without rowid;
create table told (seq integer primary key autoincrement, call text not null) strict;
create index line_began on line (began);
create index line_held on line (holder) where state = 'held';
create index line_answer on line (answer) where answer <> '';
create table answer (
    key blob primary key, body blob not null, about text not null, size integer not null, used integer not null,
    until integer not null) strict, without rowid;
create index answer_used on answer (used, size);
create index answer_until on answer (until);
create table similar (
    frame blob not null, made integer not null, answer blob not null, vector blob not null, until integer not null,
    primary key (frame, made, answer)) strict, without rowid;
"""
# A row of a window that nobody spent from yet is as good as one with zeros in it.
_HOLD = """
insert into budget (kind, name, window, start, spent, held, calls) values (?1, ?2, ?3, ?4, 0, ?5, 1)
on conflict (kind, name, window, start) do update set held = held + ?5, calls = calls + 1
where (?6 is null or spent + held + ?5 <= ?6) and (?7 is null or calls < ?7)"""
_EXTEND = """
update budget set held = held + ?5 where (kind, name, window, start) = (?1, ?2, ?3, ?4) and (?6 is null or spent + held + ?5 <= ?6)"""
_BEGIN = f"insert or ignore into line ({LINE}, budgets, holder) values ({', '.join('?' * (len(LINE.split(', ')) + 2))})"
_COLUMNS = LINE.split(", ")
_ENDING = "ended, upstream, priced, state, status, cost, saved, usage, answer, found, digest, rules, policies"
"""What the end of a call may change. The others are what it began with; naming `began` would write its index anew."""
_ENDS_AT = tuple(map(_COLUMNS.index, _ENDING.split(", ")))
_END = f"update line set {_ENDING.replace(',', ' = ?,')} = ? where call = ? and state = 'held' returning held, budgets"
_SETTLE = "update budget set held = held - ?5, spent = spent + ?6 where (kind, name, window, start) = (?1, ?2, ?3, ?4)"


@frozen
class Total:
    """What one agent, run, model or day comes to."""

    of: Mapping[str, str]
    calls: int
    cost_nusd: int
    saved_nusd: int
    input_tokens: int
    cache_read_tokens: int
    output_tokens: int
    cached: int
    """Calls that a kept answer did."""
    unknown: int
    """Calls whose cost nobody knows for sure."""


@contextmanager
def open_models_file(path: Path, clock: Clock, *, key: bytes, answers_bytes_max: int) -> "Generator[ModelsFile]":
    """Open the file, made if it is missing, until the block is left.

    Raises:
        HomeError: it is damaged, too new, or cannot be written.
    """
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    with guarded(path), closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as db:
        db.set_busy_timeout(BUSY_MS)
        db.execute("pragma journal_mode=wal")
        db.execute("pragma synchronous=normal")
        _made(db, path)
        file = ModelsFile(path, db, clock, key=key, answers_bytes_max=answers_bytes_max)
        try:
            yield file
        finally:
            file.flush()


@contextmanager
def _immediate(db: apsw.Connection) -> "Generator[None]":
    """Write in one transaction, unless the block rolled it back. It takes the lock at once: one that began by reading could not wait for it."""
    db.execute("begin immediate")
    try:
        yield
        if db.in_transaction:
            db.execute("commit")
    except BaseException:
        if db.in_transaction:  # on a full disk SQLite has rolled back by itself
            db.execute("rollback")
        raise


def _made(db: apsw.Connection, path: Path) -> None:
    with _immediate(db):
        if not list(db.execute("select 1 from sqlite_schema where name = 'meta'")):
            db.execute(TABLES)
            db.execute("insert into meta values (?)", (FORMAT,))
        ((found,),) = db.execute("select format from meta")
    if found > FORMAT:
        raise HomeTooNew(f"{path} has format {found}, this version knows up to {FORMAT}: install a newer overwinter")


class ModelsFile:
    """See `gateway.budget.Ledger` and `gateway.answers.Answers`."""

    def __init__(self, path: Path, db: apsw.Connection, clock: Clock, *, key: bytes, answers_bytes_max: int) -> None:
        self._path, self._db, self._clock = path, db, clock
        self._holder = os.urandom(8).hex()
        self._cipher, self._answers_bytes_max = AESGCM(key), answers_bytes_max
        self._beginning: list[_Begins] = []
        """Calls to be written down in the next turn of the loop."""
        self._ending: list[_Ends] = []
        """Calls to be settled then."""
        self._late: list[Line] = []
        """Calls that the file did not take; they go with whatever is written next, so that no hold stays."""
        self._keeping: dict[bytes, _Answer] = {}
        """Answers to be kept then."""
        self._room_bytes = 0
        """Of answers that may be kept before it is looked at again how many there are."""

    # --- Money -------------------------------------------------------------------------------------------------------

    async def reserve(self, hold: Hold, line: Line) -> tuple[Reserved, Budget | None]:
        """Hold an amount in every budget, with its line."""
        now_us, amount = self._clock.now_us(), hold.amount_nusd
        places = [_place(each, now_us) for each in hold.budgets]
        if not places:
            return await self._begun(line), None
        with self._transaction() as db:
            db.execute(_BEGIN, (*row_of(line), encoded(places), self._holder))
            if not db.changes():
                return Reserved.REPEATED, None
            for each, place in zip(hold.budgets, places, strict=True):
                is_beyond = (each.limit_nusd is not None and amount > each.limit_nusd) or each.calls_max == 0
                if not is_beyond:
                    db.execute(_HOLD, (*place, amount, each.limit_nusd, each.calls_max))
                if is_beyond or not db.changes():
                    db.execute("rollback")
                    return Reserved.REFUSED, each
        return Reserved.HELD, None

    async def _begun(self, line: Line) -> Reserved:
        """Write down a call that no budget counts, together with all else that this turn of the loop writes.

        A call that is cancelled meanwhile holds nothing.
        """
        begun: asyncio.Future[Reserved] = asyncio.get_running_loop().create_future()
        self._write_soon()
        self._beginning.append((line, begun))
        try:
            return await begun
        except asyncio.CancelledError:
            # Cancelled after the commit, before this task was told of it: nobody else knows of the line.
            if not begun.cancelled() and begun.exception() is None and begun.result() is Reserved.HELD:
                ended = replace(line, state="settled", status="gone", cost_nusd=0, ended_us=self._clock.now_us())
                self._end(ended).add_done_callback(_heard)
            raise

    async def extend(self, call: str, more_nusd: int, budgets: Sequence[Budget]) -> bool:
        """Hold more for a call under way, in every budget of its hold."""
        limits = {(each.scope.kind, each.scope.name, each.window): each.limit_nusd for each in budgets}
        with self._transaction() as db:
            found = list(db.execute("select budgets from line where call = ? and state = 'held'", (call,)))
            for place in decoded(found[0][0]) if found else ():
                db.execute(_EXTEND, (*place, more_nusd, limits.get((place[0], place[1], place[2]))))
                if not db.changes():
                    db.execute("rollback")
                    return False
            db.execute("update line set held = held + ? where call = ?", (more_nusd, call))
        return bool(found)

    async def settle(self, line: Line) -> bool:
        """Book what a call cost and let go of its hold. Calls that end in the same turn of the loop share a transaction."""
        return await self._end(line)

    def flush(self) -> None:
        """Write what waits for the next turn of the loop."""
        if self._has_waiting or self._late:
            self._write()

    @property
    def _has_waiting(self) -> bool:
        return bool(self._beginning or self._ending or self._keeping)

    def _end(self, line: Line) -> asyncio.Future[bool]:
        booked: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._write_soon()
        self._ending.append((line, booked))
        return booked

    def _write_soon(self) -> None:
        if not self._has_waiting:
            asyncio.get_running_loop().call_soon(self.flush)

    def _write(self) -> None:
        """Write calls that begin, book those that have ended, and keep answers; if their transaction fails, each by itself.

        One must not keep the others' holds. An answer that cannot be kept is asked for again some day.
        """
        beginning, self._beginning = [each for each in self._beginning if not each[1].cancelled()], []
        ending, self._ending = self._ending, []
        keeping, self._keeping = self._keeping, {}
        late, self._late = self._late, []
        try:
            with self._transaction() as db:
                for line in late:
                    _settle(db, line)
                begun = [self._begin(db, line) for line, _ in beginning]
                found = [_settle(db, line) for line, _ in ending]
                if keeping:
                    self._kept(db, list(keeping.items()))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for whoever waits, not for the loop
            self._late += late
            # A file that another process has locked is asked once: each time, the event loop waits for it.
            if len(beginning) + len(ending) + len(keeping) > 1 and not isinstance(error, HomeHeld):
                self._write_each(beginning, ending, keeping)
                return
            self._late += [line for line, _ in ending if isinstance(error, HomeError)]
            for _, told in (*beginning, *ending):
                _tell_of(told, error)
            return
        for (_, told), reserved in zip(beginning, begun, strict=True):
            told.set_result(reserved)
        for (_, told), is_first in zip(ending, found, strict=True):
            if not told.done():
                told.set_result(is_first)

    def _write_each(self, beginning: "list[_Begins]", ending: "list[_Ends]", keeping: "dict[bytes, _Answer]") -> None:
        for begins in beginning:
            self._beginning = [begins]
            self._write()
        for ends in ending:
            self._ending = [ends]
            self._write()
        for key, answer in keeping.items():
            self._keeping = {key: answer}
            self._write()

    def _begin(self, db: apsw.Connection, line: Line) -> Reserved:
        db.execute(_BEGIN, (*row_of(line), "[]", self._holder))
        return Reserved.HELD if db.changes() else Reserved.REPEATED

    async def wait(self, line: Line) -> None:
        """Write down of a held call that its answer goes on: its status, by whom it is made and under which name."""
        sql = "update line set status = ?, upstream = ?, priced = ?, answer = ? where call = ? and state = 'held'"
        with self._transaction() as db:
            db.execute(sql, (line.status, line.upstream, line.priced_model, line.answer_id, line.call))

    async def answered(self, answer_id: str, agent: str) -> Line | None:
        """Return the line of an agent's call that a provider answered under a name; of several the newest."""
        sql = f"select {LINE} from line where answer = ? and answer <> '' and agent = ? order by began desc limit 1"
        with guarded(self._path):
            return next((line_of(row) for row in list(self._db.execute(sql, (answer_id, agent)))), None)

    async def note(self, line: Line) -> None:
        """Write down a call that held nothing."""
        with self._transaction() as db:
            row = (*row_of(line), "[]", self._holder)
            db.execute(
                f"insert or replace into line ({LINE}, budgets, holder) values ({', '.join('?' * len(row))})", row
            )
            _tell(db, line.call)

    async def spent(self, budgets: Sequence[Budget]) -> Sequence[Spent]:
        """Return how budgets stand."""
        now_us = self._clock.now_us()
        sql = "select spent, held, calls from budget where (kind, name, window, start) = (?, ?, ?, ?)"
        with guarded(self._path):
            rows = [next(iter(list(self._db.execute(sql, _place(each, now_us)))), (0, 0, 0)) for each in budgets]
        return [
            Spent(
                budget=each, spent_nusd=row[0], held_nusd=row[1], calls=row[2], until_us=bounds(each.window, now_us)[1]
            )
            for each, row in zip(budgets, rows, strict=True)
        ]

    async def left(self) -> Sequence[Line]:
        """Return the lines still held by a process that is gone: whoever asks has the home alone."""
        sql = f"select {LINE} from line where state = 'held' and holder <> ? order by began"
        with guarded(self._path):
            return [line_of(row) for row in self._db.execute(sql, (self._holder,))]

    def waiting(self, status: str, *, before_us: int) -> Sequence[Line]:
        """Return the lines that are held under a status and began before an instant."""
        sql = f"select {LINE} from line where state = 'held' and status = ? and began < ? order by began"
        with guarded(self._path):
            return [line_of(row) for row in self._db.execute(sql, (status, before_us))]

    async def correct(self, line: Line, cost_nusd: int, *, by: str) -> Line:
        """Book another cost for a call whose cost was unknown, in the windows of its hold."""
        corrected = replace(line, state="settled", status=f"corrected by {by}", cost_nusd=cost_nusd)
        with self._transaction() as db:
            ((places,),) = db.execute("select budgets from line where call = ?", (line.call,))
            for place in decoded(places):
                db.execute(_SETTLE, (*place, 0, cost_nusd - (line.cost_nusd or 0)))
            db.execute(
                "update line set state = 'settled', status = ?, cost = ? where call = ?",
                (corrected.status, cost_nusd, line.call),
            )
            _tell(db, line.call)
        return corrected

    def begun(self, limits: Callable[[str, str, str], tuple[int | None, int | None] | None]) -> Iterator[Budget]:
        """Yield the budgets that were spent from in their window of this moment.

        Args:
            limits: returns the limits in money and calls that hold now for kind, name and window; None: there are none.
        """
        now_us = self._clock.now_us()
        with guarded(self._path):
            rows = list(self._db.execute("select kind, name, window, start from budget order by kind, name, window"))
        for kind, name, window, start in rows:
            found = limits(kind, name, window)
            if found is not None and start == bounds(window, now_us)[0]:
                yield Budget(scope=Scope(kind=kind, name=name), window=window, limit_nusd=found[0], calls_max=found[1])

    # --- What was spent ----------------------------------------------------------------------------------------------

    def line(self, call: str) -> Line | None:
        """Return the line of a call."""
        with guarded(self._path):
            return next(
                (line_of(row) for row in list(self._db.execute(f"select {LINE} from line where call = ?", (call,)))),
                None,
            )

    def lines(
        self, *, before_us: int | None, limit: int, wanted: Mapping[str, str], since_us: int = 0
    ) -> Sequence[Line]:
        """Return lines, the newest first.

        Args:
            before_us: those that began before; None: from the newest on.
            limit: how many at most.
            wanted: column to value: agent, run, model, key, state, status.
            since_us: only those that began then or later: no others are looked at.
        """
        names = [each for each in ("agent", "run", "model", "key", "state", "status") if each in wanted]
        where = " and ".join(["began < ?", "began >= ?", *(f"{each} = ?" for each in names)])
        sql = f"select {LINE} from line where {where} order by began desc limit ?"
        values = (before_us or 1 << 62, since_us, *(wanted[each] for each in names), min(limit, LINES_MAX))
        with guarded(self._path):
            return [line_of(row) for row in self._db.execute(sql, values)]

    def totals(self, by: Sequence[str], *, since_us: int, until_us: int) -> Sequence[Total]:
        """Return what was used from one instant to another, grouped by agent, run, model, upstream or day."""
        columns = {
            "agent": "agent", "run": "run", "model": "model", "upstream": "upstream", "key": "key",
            "day": "strftime('%Y-%m-%d', began / 1000000, 'unixepoch')",
        }  # fmt: skip
        groups = [columns[each] for each in by]
        picked = ", ".join(groups) + ", " if groups else ""
        sql = f"""select {picked}count(*), total(cost), total(saved),
            total(used ->> 'fresh') + total(used ->> 'cache_read') + total(used ->> 'cache_write')
            + total(used ->> 'cache_write_long') + total(used ->> 'audio_input'),
            total(used ->> 'cache_read'), total(used ->> 'output'), sum(status = 'cached'),
            sum(state = 'unknown' or used ->> 'source' = 'unknown')
            from (select *, nullif(usage, '') as used from line) where state <> 'refused' and began >= ? and began < ? {"group by " + ", ".join(groups) if groups else ""} order by 1"""
        with guarded(self._path):
            rows = list(self._db.execute(sql, (since_us, until_us)))
        return [_total(by, row) for row in rows]

    # --- What the audit log is told ----------------------------------------------------------------------------------

    def told(self, after: int, limit: int) -> Sequence[tuple[int, Line]]:
        """Return calls that ended after a number, the oldest first, each with its own: it rises, and means one end for ever."""
        sql = f"select seq, {LINE} from told join line using (call) where seq > ? order by seq limit ?"
        with guarded(self._path):
            return [(row[0], line_of(row[1:])) for row in self._db.execute(sql, (after, limit))]

    def forget_told(self, upto: int) -> None:
        """Forget which calls had ended up to a number, and give no number up to it again."""
        with self._transaction() as db:
            db.execute("delete from told where seq <= ?", (upto,))
            # After a power cut, or as another file, this one may be behind what the log has.
            db.execute("update sqlite_sequence set seq = max(seq, ?) where name = 'told'", (upto,))
            if not db.changes():
                db.execute("insert into sqlite_sequence (name, seq) values ('told', ?)", (upto,))

    # --- Answers -----------------------------------------------------------------------------------------------------

    async def find(self, key: bytes) -> Kept | None:
        """Return a kept answer that has not expired."""
        now_us = self._clock.now_us()
        with guarded(self._path):
            sql = "select body, about, used from answer where key = ? and until > ?"
            waiting = self._keeping.get(key)
            found = [waiting[:3]] if waiting and waiting[3] > now_us else list(self._db.execute(sql, (key, now_us)))
            if not found:
                return None
            body, about, used = found[0]
            if now_us - used > 60 * SECOND_US:
                self._db.execute("update answer set used = ? where key = ?", (now_us, key))
        try:
            opened = self._cipher.decrypt(body[:12], body[12:], key + about.encode())
        except (InvalidTag, ValueError):
            return None  # altered, or sealed with another key: as good as not there
        told = json.loads(about)
        usage, request = usage_of(told.pop("usage")) or Usage(), bytes.fromhex(told.pop("request"))
        return Kept(body=opened, usage=usage, request=request, **told)

    async def keep(self, key: bytes, kept: Kept, *, until_us: int) -> None:
        """Keep an answer; the ones used longest ago go first where there is no room.

        It is found from now on, and on disk once the call that brought it is settled: both are one transaction.
        """
        about = json.dumps({
            "is_stream": kept.is_stream, "usage": usage_text(kept.usage), "cost_nusd": kept.cost_nusd, "provider": kept.provider,
            "model": kept.model, "request": kept.request.hex(), "made_us": kept.made_us,
        })  # fmt: skip
        nonce = os.urandom(12)
        body = nonce + self._cipher.encrypt(nonce, kept.body, key + about.encode())
        if len(body) > self._answers_bytes_max:
            return
        self._write_soon()
        self._keeping[key] = (body, about, self._clock.now_us(), until_us)

    def _kept(self, db: apsw.Connection, answers: "Sequence[tuple[bytes, _Answer]]") -> None:
        """Keep answers; without adding up all there are each time, which takes the longer the more there are."""
        for key, (body, about, now_us, until_us) in answers:
            row = (key, body, about, len(body), now_us, until_us)
            db.execute("insert or replace into answer values (?, ?, ?, ?, ?, ?)", row)
            self._room_bytes -= len(body)
        db.execute("delete from answer where until <= ?", (self._clock.now_us(),))
        if self._room_bytes >= 0:
            return
        ((size,),) = db.execute("select total(size) from answer")
        while size > self._answers_bytes_max:
            for old, old_size in list(db.execute("select key, size from answer order by used limit ?", (PAGE_MAX,))):
                if size <= self._answers_bytes_max:
                    break
                db.execute("delete from answer where key = ?", (old,))
                size -= old_size
        self._room_bytes = (self._answers_bytes_max - int(size)) // PROCESSES

    async def known(self, frame: bytes, limit: int) -> Sequence[Known]:
        """Return the newest questions of a frame."""
        sql = "select answer, vector from similar where frame = ? and until > ? order by made desc limit ?"
        with guarded(self._path):
            return [Known(*row) for row in self._db.execute(sql, (frame, self._clock.now_us(), limit))]

    async def learn(self, frame: bytes, known: Known, *, until_us: int) -> None:
        """Keep a question for whoever asks another one like it."""
        now_us = self._clock.now_us()
        with self._transaction() as db:
            db.execute("delete from similar where frame = ? and until <= ?", (frame, now_us))
            db.execute(
                "insert or replace into similar values (?, ?, ?, ?, ?)",
                (frame, now_us, known.answer, known.vector, until_us),
            )
            db.execute(
                "delete from similar where frame = ?1 and made < (select min(made) from (select made from similar where frame = ?1 "
                "order by made desc limit ?2))",
                (frame, KNOWN_MAX),
            )

    @contextmanager
    def _transaction(self) -> "Generator[apsw.Connection]":
        """Write in one transaction, unless the block rolled it back."""
        with guarded(self._path), _immediate(self._db):
            yield self._db


def _tell_of(waiting: "asyncio.Future[Any]", error: Exception) -> None:
    if not waiting.done():
        waiting.set_exception(error)


def _heard(booked: "asyncio.Future[bool]") -> None:
    """Take note of how a call was booked for which nobody waits: one that was not is found held at the next start."""
    if not booked.cancelled():
        booked.exception()


def _settle(db: apsw.Connection, line: Line) -> bool:
    row, call = row_of(line), line.call
    found = list(db.execute(_END, (*[row[at] for at in _ENDS_AT], call)))
    if not found:
        return False
    held, places = found[0]
    for place in decoded(places) if places != "[]" else ():
        db.execute(_SETTLE, (*place, held, line.cost_nusd or 0))
    _tell(db, call)
    return True


def _tell(db: apsw.Connection, call: str) -> None:
    db.execute("insert into told (call) values (?)", (call,))


def _place(budget: Budget, now_us: int) -> tuple[str, str, str, int]:
    return budget.scope.kind, budget.scope.name, budget.window, bounds(budget.window, now_us)[0]


def _total(by: Sequence[str], row: tuple[Any, ...]) -> Total:
    names, counts = row[: len(by)], [round(each or 0) for each in row[len(by) :]]
    calls, cost, saved, tokens, read, output, cached, unknown = counts
    return Total(
        of=dict(zip(by, map(str, names), strict=True)), calls=calls, cost_nusd=cost, saved_nusd=saved, input_tokens=tokens,
        cache_read_tokens=read, output_tokens=output, cached=cached, unknown=unknown,
    )  # fmt: skip
