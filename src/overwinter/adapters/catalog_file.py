"""`catalog.db` of a home: the functions of described services, ready to be looked up, and the names they were given.

A start reads nothing of a source that has not changed. What is asked for is read then: a function, a module's stub, hits.
Pins are the only thing in it that cannot be made anew from the sources; what answers looked like is seen again.
"""

import json
import os
import re
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import apsw

from overwinter.adapters.ranking import Ranking, ranking
from overwinter.catalog import Function, Parameter
from overwinter.catalog.modules import Built
from overwinter.catalog.operations import Fault
from overwinter.catalog.seen import Sighting, parse, stored
from overwinter.errors import HomeDamaged, HomeTooNew
from overwinter.frozen import frozen

__all__ = ["CatalogFile", "Hit", "Pin", "Refreshed", "Source", "StoredModule", "open_catalog_file"]

FORMAT = 2
BUSY_MS = 30_000
SEEN_BUSY_MS = 50
"""An answer waits no longer for its shape to be kept: the next one is like it."""
FUNCTIONS_REMEMBERED = 2_000
INDEXED_MAX = 500
"""Characters of a description that are searched besides the summary."""
WORDS_MAX = 32
"""Words of a query that are looked for."""
EMPTY_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by can could do does for from give has have how i if in into is it its me my of on or our please "
        "should so some tell that the their them there these they this to want was we what when where which who will with would "
        "you your",
    )
)
"""They are in every second summary: to look for them takes ten times as long and finds nothing better."""
WEIGHTS = {"name": 2.0, "summary": 1.0, "parameters": 1.0}
"""Of a word, by where it stands."""
SEEN = """
create table seen (
    name text primary key, digest text not null, answers integer not null, shape text not null) strict, without rowid;
"""
TABLES = f"""{SEEN}
create table meta (format integer not null) strict;
create table source (
    service text primary key, stamp text not null, imported integer not null, settings text not null, faults text not null,
    functions integer not null, raw_digest text not null, stub blob not null) strict;
create table function (
    id integer primary key, name text not null unique, service text not null, origin text not null, effect text not null,
    parameters text not null, stub text not null, summary text not null, result text not null, tags text not null,
    is_listed integer not null, plan text not null, schema blob not null, digest text not null) strict;
create index function_service on function (service);
create table pin (
    service text not null, name text not null, origin text not null, digest text not null, at integer not null,
    primary key (service, name)) strict, without rowid;
create virtual table hit using fts5(name, summary, parameters, tokenize = 'porter unicode61');
"""
MIGRATIONS = {1: f"{SEEN} update source set stamp = '' where raw_digest = stamp;"}
"""What makes the next format of one. 1: the results of Python functions were not kept, so these are read again."""
SCRATCH = """
create virtual table text using fts5(words, tokenize = 'porter unicode61');
create virtual table stem using fts5vocab(text, 'instance');
"""


@frozen
class Source:
    """One service as it was imported."""

    service: str
    stamp: str
    """What it was made from: another stamp means import again."""
    imported_us: int
    settings: Mapping[str, Any]
    faults: Sequence[Fault]
    functions: int
    raw_digest: str
    """Over the source's own bytes."""


@frozen
class Refreshed:
    """What came of importing services anew."""

    imported: Sequence[str]
    failed: Mapping[str, str]
    """Services that go on as they were, and why."""


@frozen
class Pin:
    """A name that was given to an operation, with the definition that was accepted under it."""

    name: str
    """`service.function`."""
    origin: str
    state: str
    """`"same"`, `"changed"` or `"gone"`."""
    accepted_us: int


@frozen
class Hit:
    """One function that a search found."""

    name: str
    required: tuple[str, ...]
    result: str
    summary: str
    effect: str

    def line(self) -> str:
        """Return the hit as a model reads it."""
        summary = f" - {self.summary}" if self.summary else ""
        return f"{self.name}({', '.join(self.required)}) -> {self.result}{summary}  [{self.effect}]"


@contextmanager
def open_catalog_file(path: Path) -> "Generator[CatalogFile]":
    """Open the file, made if it is missing, until the block is left.

    Raises:
        HomeTooNew: a newer version wrote it.
        HomeDamaged: it cannot be read.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with closing(apsw.Connection(str(path))) as db:
            db.execute("pragma journal_mode=wal")
            db.execute("pragma synchronous=full")
            with db:
                if not list(db.execute("select 1 from sqlite_schema where name = 'meta'")):
                    db.execute(TABLES)
                    db.execute("insert into meta values (?)", (FORMAT,))
            ((found,),) = db.execute("select format from meta")
            if found > FORMAT:
                raise HomeTooNew(
                    f"{path} has format {found}, this version knows up to {FORMAT}: install a newer overwinter"
                )
            with db:
                for number in range(found, FORMAT):
                    db.execute(MIGRATIONS[number])
                db.execute("update meta set format = ?", (FORMAT,))
            file = CatalogFile(path, db)
            try:
                yield file
            finally:
                file.close()
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise HomeDamaged(
            f"{path} is damaged ({error}): restore it, or delete it to import every source anew"
        ) from error


class CatalogFile:
    """The open file. Look-ups take microseconds and happen where they are asked for; `put` belongs in a thread."""

    def __init__(self, path: Path, db: apsw.Connection) -> None:
        self._path = path
        self._db = db
        self.function = lru_cache(FUNCTIONS_REMEMBERED)(self._function)
        """Return a function by its full name; None if there is none."""
        self.plan = lru_cache(FUNCTIONS_REMEMBERED)(self._plan)
        """Return how a function is carried out; None if there is none."""
        self.seen = lru_cache(FUNCTIONS_REMEMBERED)(self._seen)
        """Return what a function's answers looked like, of its present definition."""
        self.sighted = lru_cache(1)(self._sighted)
        """Return the functions of whose answers anything is known."""
        self._ranking = lru_cache(1)(self._ranked)
        self.changes = 0
        """How often the catalog has changed since it was opened; whoever remembers something of it compares."""
        db.execute("create virtual table temp.word using fts5vocab('main', 'hit', 'instance')")
        self._scratch = apsw.Connection(":memory:")
        self._scratch.execute(SCRATCH)
        self.names = lru_cache(1)(self._names)
        """Return the functions of each service, without its name."""

    def close(self) -> None:
        """Let go of what lies beside the file."""
        self._scratch.close()

    # --- Sources -----------------------------------------------------------------------------------------------------

    def sources(self) -> Sequence[Source]:
        """Return every service, by name."""
        sql = "select service, stamp, imported, settings, faults, functions, raw_digest from source order by service"
        return [
            Source(
                service=service,
                stamp=stamp,
                imported_us=imported,
                settings=json.loads(settings),
                faults=[Fault(place=place, what=what) for place, what in json.loads(faults)],
                functions=functions,
                raw_digest=raw_digest,
            )
            for service, stamp, imported, settings, faults, functions, raw_digest in self._db.execute(sql)
        ]

    def put(  # noqa: PLR0913 - what a source comes to
        self,
        service: str,
        stamp: str,
        built: Built,
        *,
        faults: Sequence[Fault],
        settings: Mapping[str, Any],
        raw_digest: str,
        now_us: int,
        is_pinned: bool = True,
    ) -> None:
        """Replace a service by what was built of its source.

        New names are pinned, and what was pinned stays so; but where the source is the same to the byte, it is only read in
        another way, and what was accepted is accepted still.
        """
        said = json.dumps([[each.place, each.what] for each in (*faults, *built.faults)])
        with self._writing() as db:
            accepted = [name for (name,) in db.execute(_ACCEPTED, (service, raw_digest))]
            _drop(db, service)
            db.execute(
                "insert into source values (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    service, stamp, now_us, json.dumps(settings), said, len(built.functions), raw_digest,
                    zlib.compress(built.stub.encode("utf-8", "surrogatepass"), 1),
                ),
            )  # fmt: skip
            for each in built.functions:
                function = each.function
                db.execute(
                    "insert into function values (null, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        function.name, service, each.origin, function.effect,
                        json.dumps([[row.name, row.is_required] for row in function.parameters]), function.stub,
                        function.summary, function.result, json.dumps(function.tags), function.is_listed,
                        json.dumps(each.plan), zlib.compress(json.dumps(each.schema).encode(), 1), each.digest,
                    ),
                )  # fmt: skip
                if function.is_listed:
                    words = " ".join(row.name for row in function.parameters)
                    db.execute(
                        "insert into hit (rowid, name, summary, parameters) values (?, ?, ?, ?)",
                        (
                            db.last_insert_rowid(),
                            _words(function.name),
                            _words(f"{function.summary} {each.description[:INDEXED_MAX]}"),
                            _words(words),
                        ),
                    )
                if is_pinned:
                    db.execute(
                        "insert or ignore into pin values (?, ?, ?, ?, ?)",
                        (service, function.name, each.origin, each.digest, now_us),
                    )
            for name in accepted:
                db.execute(_REPIN, (name,))
            db.execute(_UNSEE)
        self.forget()

    def remove(self, service: str) -> None:
        """Delete a service; its pins stay."""
        with self._writing() as db:
            _drop(db, service)
            db.execute(_UNSEE)
        self.forget()

    def forget(self) -> None:
        """Drop what is remembered of the file: it has changed."""
        self.changes += 1
        self.function.cache_clear()
        self.plan.cache_clear()
        self.seen.cache_clear()
        self.sighted.cache_clear()
        self.names.cache_clear()
        self._ranking.cache_clear()

    @contextmanager
    def _writing(self, busy_ms: int = BUSY_MS) -> Generator[apsw.Connection]:
        """Yield a transaction on a connection of its own: an import writes in a thread, while others look things up."""
        with closing(apsw.Connection(str(self._path))) as db:
            db.set_busy_timeout(busy_ms)
            db.execute("pragma synchronous=full")
            with db:
                yield db

    # --- Looking up --------------------------------------------------------------------------------------------------

    def _names(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for service, name in self._db.execute("select service, name from function order by id"):
            found.setdefault(service, []).append(name.partition(".")[2])
        return {service: tuple(names) for service, names in found.items()}

    def stub(self, service: str) -> str:
        """Return a module's stub; "" if there is none."""
        for (raw,) in self._db.execute("select stub from source where service = ?", (service,)):
            return zlib.decompress(raw).decode("utf-8", "surrogatepass")
        return ""

    def schema(self, name: str) -> Mapping[str, Any]:
        """Return the JSON Schema of a function's arguments."""
        ((raw,),) = self._db.execute("select schema from function where name = ?", (name,))
        return json.loads(zlib.decompress(raw))

    def search(
        self, query: str, *, service: str | None = None, limit: int = 8, names: Sequence[str] | None = None
    ) -> list[Hit]:
        """Return the functions that fit best.

        Args:
            query: words; any of them may match, stemmed.
            service: only of this one.
            limit: at most so many.
            names: only these; None: any.
        """
        words = list(dict.fromkeys(_words(query).split()))
        words = ([word for word in words if word not in EMPTY_WORDS] or words)[:WORDS_MAX]
        ranking = self._ranking()
        among: set[int] | None = None
        if service is not None or names is not None:
            sql = "select id from function where (?1 is null or service = ?1) and (?2 is null or name in (select value from json_each(?2)))"
            among = {row for (row,) in self._db.execute(sql, (service, None if names is None else json.dumps(names)))}
        rows = ranking.best(self._stems(words), limit, among)
        found = {row[0]: _hit(row[1:]) for row in self._db.execute(_HITS, (json.dumps(rows),))}
        return [found[row] for row in rows]

    def _stems(self, words: Sequence[str]) -> list[str]:
        """Return words as the full-text index has them."""
        self._scratch.execute("delete from text")
        self._scratch.execute("insert into text values (?)", (" ".join(words),))
        return [stem for (stem,) in self._scratch.execute("select distinct term from stem")]

    def _ranked(self) -> Ranking:
        services = dict(self._db.execute("select id, service from function where is_listed"))
        found = self._db.execute("select term, doc, col from temp.word")
        return ranking(((stem, row, WEIGHTS[place]) for stem, row, place in found), services)

    def listed(self, prefix: str, *, limit: int) -> list[Hit]:
        """Return functions whose full name begins with a text, in their order."""
        return [_hit(row) for row in self._db.execute(_LISTED, (len(prefix), prefix, limit))]

    def _function(self, name: str) -> Function | None:
        sql = """select effect, parameters, function.stub, summary, result, tags, is_listed,
            coalesce((select pin.digest from pin where pin.service = function.service and pin.name = function.name) <> digest, 0)
            from function where name = ?"""
        for effect, parameters, stub, summary, result, tags, is_listed, is_changed in self._db.execute(sql, (name,)):
            return Function(
                name=name,
                effect=effect,
                parameters=tuple(Parameter(name=word, is_required=needed) for word, needed in json.loads(parameters)),
                stub=stub,
                summary=summary,
                result=result,
                tags=tuple(json.loads(tags)),
                is_listed=bool(is_listed),
                fault="its definition has changed since it was accepted" if is_changed else "",
            )
        return None

    def _plan(self, name: str) -> Mapping[str, Any] | None:
        sql = "select plan, parameters from function where name = ?"
        return next((_with_nulls(*map(json.loads, row)) for row in self._db.execute(sql, (name,))), None)

    # --- What answers looked like ------------------------------------------------------------------------------------

    def saw(self, name: str, sighting: Sighting) -> None:
        """Keep what a function's answers looked like. A file that is busy or full keeps nothing: it will be seen again."""
        written = json.dumps(stored(sighting.shape))
        with suppress(apsw.BusyError, apsw.FullError, apsw.IOError), self._writing(SEEN_BUSY_MS) as db:
            db.execute(_SEE, (sighting.answers, written, name))
        self.seen.cache_clear()
        self.sighted.cache_clear()

    def _seen(self, name: str) -> Sighting:
        for answers, shape in self._db.execute(_SEEN, (name,)):
            return Sighting(answers=answers, shape=parse(json.loads(shape)))
        return Sighting()

    def _sighted(self) -> frozenset[str]:
        return frozenset(name for (name,) in self._db.execute("select name from seen"))

    # --- Pins --------------------------------------------------------------------------------------------------------

    def pinned(self, service: str) -> dict[str, str]:
        """Return the names that a service's operations were given, by origin, without the service."""
        sql = "select origin, name from pin where service = ? order by length(name) desc"  # a `_page` gives way to its list
        return {origin: name.partition(".")[2] for origin, name in self._db.execute(sql, (service,))}

    def digests(self, service: str) -> dict[str, str]:
        """Return the digests of a service's present definitions, by function without the service."""
        sql = "select name, digest from function where service = ?"
        return {name.partition(".")[2]: digest for name, digest in self._db.execute(sql, (service,))}

    def pins(self, *, is_different: bool = False) -> Iterator[Pin]:
        """Yield every pin by name, or only those whose definition is another now, or gone."""
        sql = """select pin.name, pin.origin, function.digest is null, function.digest = pin.digest, pin.at
            from pin left join function on function.name = pin.name order by pin.name"""
        for name, origin, is_gone, is_same, at in self._db.execute(sql):
            state = "gone" if is_gone else "same" if is_same else "changed"
            if not is_different or state != "same":
                yield Pin(name=name, origin=origin, state=state, accepted_us=at)

    def accept(self, names: Sequence[str], now_us: int) -> int:
        """Accept the present definitions of some functions, and forget those that are gone; return how many changed."""
        with self._writing() as db:
            for name in names:
                db.execute(_ACCEPT, (now_us, name))
                db.execute(_LET_GO, (name,))
            changed = db.total_changes()
        self.forget()
        return changed


@frozen(kw_only=False)
class StoredModule:
    """A module that is read from the file when it is needed."""

    file: CatalogFile
    name: str

    @property
    def stub(self) -> str:
        """Return its whole `.pyi` text."""
        return self.file.stub(self.name)

    @property
    def functions(self) -> Mapping[str, Function]:
        """Return its functions by name."""
        return _Functions(self.file, self.name)


@dataclass(frozen=True, slots=True)
class _Functions(Mapping[str, Function]):
    file: CatalogFile
    module: str

    def __getitem__(self, name: str) -> Function:
        function = self.file.function(f"{self.module}.{name}")
        if function is None:
            raise KeyError(name)
        return function

    def __iter__(self) -> Iterator[str]:
        return iter(self.file.names().get(self.module, ()))

    def __len__(self) -> int:
        return len(self.file.names().get(self.module, ()))


def _drop(db: apsw.Connection, service: str) -> None:
    db.execute("delete from hit where rowid in (select id from function where service = ?)", (service,))
    db.execute("delete from function where service = ?", (service,))
    db.execute("delete from source where service = ?", (service,))


_ACCEPTED = """
select pin.name from pin join function on function.name = pin.name and function.digest = pin.digest
join source on source.service = function.service where source.service = ? and raw_digest = ?"""
_REPIN = """
update pin set digest = (select digest from function where function.name = pin.name)
where name = ? and exists (select 1 from function where function.name = pin.name)"""
_ACCEPT = """
update pin set digest = (select digest from function where function.name = pin.name), at = ?
where name = ? and exists (select 1 from function where function.name = pin.name and function.digest <> pin.digest)"""
_LET_GO = "delete from pin where name = ? and not exists (select 1 from function where function.name = pin.name)"
_DEFINITION = "case function.digest when '' then function.stub else function.digest end"
"""Python functions have no digest: nobody need accept them."""
_SEE = f"insert or replace into seen select name, {_DEFINITION}, ?, ? from function where name = ?"
_SEEN = f"""
select answers, shape from seen join function on function.name = seen.name and seen.digest = {_DEFINITION}
where seen.name = ?"""
_UNSEE = f"""
delete from seen where not exists (
    select 1 from function where function.name = seen.name and seen.digest = {_DEFINITION})"""
_HIT = "function.name, function.parameters, function.result, function.summary, function.effect"
_HITS = f"select id, {_HIT} from function where id in (select value from json_each(?))"
_LISTED = f"select {_HIT} from function where is_listed and substr(name, 1, ?) = ? order by id limit ?"


def _hit(row: tuple[Any, ...]) -> Hit:
    name, parameters, result, summary, effect = row
    required = tuple(word for word, needed in json.loads(parameters) if needed)
    return Hit(name=name, required=required, result=result, summary=summary, effect=effect)


def _words(text: str) -> str:
    """Split camel case and every sign, so that a query's words meet those of a name."""
    return " ".join(re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text).lower()))


def _with_nulls(plan: dict[str, Any], parameters: list[tuple[str, bool]]) -> Mapping[str, Any]:
    """Return a plan in which null is a value of whatever a JSON body must have: its type has allowed it, and left out it is missing."""
    required = {name for name, is_needed in parameters if is_needed}
    if "json" in str(plan.get("media") or "json"):
        for row in plan["arguments"]:
            row[5] = row[5] or (row[0] in required and row[2] in ("field", "body"))
    return plan
