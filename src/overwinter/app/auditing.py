"""What was done in a home: the audit log read, checked, proved, and shown to a witness."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase

import anyio

from overwinter import values
from overwinter.adapters import proof_files
from overwinter.adapters.notes import (
    Cosignature,
    NoteRefused,
    PublicKey,
    TreeHead,
    cosignatures,
    head_of,
    open_note,
    parse_key,
)
from overwinter.adapters.sqlite import AuditKeeping, AuditLog, log_rows
from overwinter.adapters.sqlite.audit_log import Found
from overwinter.adapters.witness import WitnessDisagrees, WitnessKnowsNoKey, WitnessUnreachable, ask, tell
from overwinter.audit import Plain
from overwinter.clock import DAY_US
from overwinter.config import Audit
from overwinter.errors import HomeError, NotFound, UsageError
from overwinter.frozen import frozen, replace
from overwinter.values import Value
from overwinter.verify_export import Report, verify

__all__ = ["Auditing", "Body", "Wanted", "Witnessed", "exported", "verified"]

HEADS_DAYS = 30
"""How long each commit's tree head is kept: between two of them `verify` narrows down what was changed."""
LOOKED_MAX = 20_000
"""Entries looked at for one page; some 0.1 s of a thread. A caller goes on where it ended."""
ASK_PAUSE_S = 300.0
"""Between two looks whether a witness has the latest tree head."""
ASK_RETRY_S = 30.0
TOLD_EACH = 1_000
"""Lines between two words on the progress of a check."""
EXPORT_HEADS_APART = 64
"""Entries between two tree heads of an export, as `log_rows.export` has it."""

_LOGGER = logging.getLogger(__name__)


@frozen
class Wanted:
    """Which entries are looked for; what is None is not asked."""

    agent: str | None = None
    run: str | None = None
    """A run's id, or its last letters."""
    function: str | None = None
    """A function's full name, or a pattern: `billing.*`."""
    person: str | None = None
    """On whose behalf."""
    kind: str | None = None

    def __call__(self, fields: Mapping[str, Plain]) -> bool:
        """Whether an entry is among them."""
        act = fields.get("act")
        return (
            (self.agent is None or fields.get("agent") == self.agent)
            and (self.run is None or str(fields.get("run", "")).endswith(self.run))
            and (self.function is None or fnmatchcase(str(fields.get("tool", "")), self.function))
            and (self.person is None or (isinstance(act, list) and self.person in act))
            and (self.kind is None or fields.get("kind") == self.kind)
        )


@frozen
class Body:
    """Arguments or a result of an entry, as far as they are there."""

    is_kept: bool
    """False: they were deleted; the entry tells that there were some."""
    value: Value = None


@frozen
class Witnessed:
    """A tree head and a witness's word for it."""

    head: TreeHead
    cosignature: Cosignature


class Auditing:
    """The audit log of a home that is open."""

    def __init__(self, settings: Audit, log: AuditLog, keeping: AuditKeeping) -> None:
        self.log = log
        self.witness = parse_key(settings.witness_key) if settings.witness else None
        """The witness of the configuration."""
        self.fault: str | None = None
        """Why it did not sign when it was asked last."""
        self._url = settings.witness
        self._keeping = keeping
        self._rung = anyio.Event()

    # --- Looking -----------------------------------------------------------------------------------------------------

    async def entries(  # noqa: PLR0913 - what a page can be asked for
        self,
        wanted: Wanted,
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
        is_oldest_first: bool = False,
        begin: int | None = None,
        limit: int = 50,
    ) -> Found:
        """Return a page of entries.

        Args:
            wanted: which.
            since_ms: at or after this instant.
            until_ms: before this instant.
            is_oldest_first: the order.
            begin: where to look first: `following` of the page before.
            limit: entries at most. There may be fewer on a page, even none, while there are more to look at.
        """
        first = 0 if since_ms is None else await self.log.first_since(since_ms)
        end = await (self.log.size() if until_ms is None else self.log.first_since(until_ms))
        if is_oldest_first:
            span = range(first if begin is None else max(first, begin), end)
        else:
            span = range(end - 1 if begin is None else min(end - 1, begin), first - 1, -1)
        return await self.log.matching(wanted, span, limit=limit, looked_max=LOOKED_MAX)

    async def entry(self, seq: int) -> tuple[Mapping[str, Plain], Mapping[str, Body]]:
        """Return an entry's fields, and its bodies by `args` and `result`.

        Raises:
            NotFound: there is none of this number.
        """
        found = await self.log.matching(lambda _: True, range(seq, seq + 1), limit=1, looked_max=1)
        if not found.entries:
            raise self._missing(seq, await self.log.size())
        ((_, fields),) = found.entries
        kept = await self.log.body(seq)
        spoken = [part for part in log_rows.PARTS if f"{part}_hmac" in fields]
        return fields, {
            part: Body(is_kept=True, value=values.decode(kept[part])) if part in kept else Body(is_kept=False)
            for part in spoken
        }

    async def prove(self, seq: int) -> str:
        """Return a file with an entry and the proof that it is in the log; `proof_files` says its form.

        Raises:
            NotFound: there is none of this number.
        """
        found = await self.log.entries(seq, seq + 1)
        if not found:
            raise self._missing(seq, await self.log.size())
        return proof_files.file_of(found[0][1], await self.log.prove(seq))

    @staticmethod
    def _missing(seq: int, size: int) -> NotFound:
        return NotFound(f"there is no audit entry {seq}: the log has {size}, and they are counted from 0")

    # --- Keeping -----------------------------------------------------------------------------------------------------

    async def forget(self, before_us: int) -> int:
        """Delete some bodies of entries older than an instant; return how many. 0: none are left."""
        return await self._keeping.delete_bodies(before_us // 1_000)

    async def thin(self, now_us: int) -> int:
        """Delete some tree heads that are older than `HEADS_DAYS`, all but one a day; return how many. 0: none are left."""
        return await self._keeping.thin_heads((now_us - HEADS_DAYS * DAY_US) // 1_000)

    async def rotate(self, *, by: str, reason: str) -> tuple[int, PublicKey]:
        """Have a new key sign the log; return the entry that names it, and the key. The witness is told soon."""
        entry, key = await self._keeping.rotate(by=by, reason=reason)
        self.log = replace(self.log, key=key)
        self.ring()
        return entry, key

    # --- Witness -----------------------------------------------------------------------------------------------------

    def ring(self) -> None:
        """Have the witness asked soon: what it has signed nobody can rewrite."""
        self._rung.set()

    async def run(self) -> None:
        """Ask the witness of the configuration, if there is one, until cancelled. Nothing waits for it."""
        if self.witness is None:
            return
        while True:
            pause_s = ASK_PAUSE_S
            self._rung = anyio.Event()
            try:
                await self.witnessed(self._url, self.witness, is_repeated=False)
                self.fault = None
            except (WitnessDisagrees, WitnessKnowsNoKey, WitnessUnreachable, NoteRefused, HomeError) as error:
                if str(error) != self.fault:
                    _LOGGER.warning("%s", error)
                self.fault, pause_s = str(error), ASK_RETRY_S
            with anyio.move_on_after(pause_s):
                await self._rung.wait()

    async def witnessed(self, url: str, key: PublicKey, *, is_repeated: bool = True) -> Witnessed | None:
        """Show the last tree head to a witness and keep its word; None if nothing was logged yet.

        Args:
            url: the witness's.
            key: the witness's.
            is_repeated: False: ask only for a tree head that it has not signed yet.

        Raises:
            WitnessDisagrees: it has signed a history that this log does not continue.
            WitnessUnreachable: it did not answer.
        """
        if key.kind != WITNESS_KEY:
            raise UsageError(f"{key} is the key of a log: a witness prints its own as it starts")
        note = await self.log.head()
        if note is None:
            return None
        head = open_note(note, self.log.key)
        known = cosignatures(note, head, [key])
        if known and not is_repeated:
            return Witnessed(head=head, cosignature=known[-1])

        try:
            line = await self._asked(url, key, note, head)
        except WitnessKnowsNoKey:
            if not await self._led_on(url, key):
                raise
            line = await self._asked(url, key, note, head)
        for _, raw in await self.log.entries(head.size - 1, head.size):
            if log_rows.is_turn(raw):  # at once: until then it takes the key before
                with suppress(WitnessKnowsNoKey, WitnessUnreachable):  # it is led on when it refuses the next tree head
                    await tell(url, (await self.log.turns())[-1][1])
        return Witnessed(head=head, cosignature=cosignatures(note + line, head, [key])[-1])

    async def _asked(self, url: str, key: PublicKey, note: str, head: TreeHead) -> str:
        def prove(old_size: int) -> Sequence[bytes]:
            return self.log.look(lambda db: log_rows.consistency(db, old_size, head.size))

        line = await ask(url, key, note, head, prove)
        await self._keeping.cosign(head.size, key.name, line)
        return line

    async def _led_on(self, url: str, key: PublicKey) -> bool:
        """Lead a witness from the key that it knows to the present one, from each entry of a new key to the next; whether it went."""
        has_gone = False
        for note, proof in await self.log.turns():
            head = head_of(note)
            try:
                await self._asked(url, key, note, head)
                await tell(url, proof)
            except (WitnessDisagrees, WitnessKnowsNoKey):
                if has_gone:
                    raise
                continue  # it knows a later key, or has signed more
            has_gone = True
        return has_gone


WITNESS_KEY = 4
"""C2SP signed-note: the type of a witness's key."""


# --- Without opening the home ----------------------------------------------------------------------------------------


def verified(
    log: AuditLog,
    *,
    witnesses: Sequence[PublicKey] = (),
    seen: Sequence[str] = (),
    told: Callable[[int, int], None] = lambda _looked, _size: None,
) -> Report:
    """Return what is wrong with a log: entries, every tree head, times, bodies, cosignatures, stored hashes of the tree.

    It reads one state of the log, whoever writes on. In the caller's thread; 100,000 entries take 5 to 20 s, the more the
    fewer of them one commit held.

    Args:
        log: as `open_log` returns it.
        witnesses: whose cosignatures count; each must have signed a tree head.
        seen: signed tree heads that were kept elsewhere.
        told: called now and then with the entries looked at and the entries there are.
    """
    keys = [str(key) for key in witnesses]
    size = log.look(log_rows.size)
    lines = _told(log.export(with_bodies=True, heads_apart=1), size, told)
    report = verify(lines, str(log.key), keys, seen)
    if fault := log.look(log_rows.node_fault):
        report.wrong(fault)
    return report


def exported(log: AuditLog, *, with_bodies: bool) -> Iterator[bytes]:
    """Yield the lines of an export. In the caller's thread."""
    yield from log.export(with_bodies=with_bodies, heads_apart=EXPORT_HEADS_APART)


def _told(lines: Iterator[bytes], size: int, told: Callable[[int, int], None]) -> Iterator[bytes]:
    looked = 0
    for line in lines:
        if line.startswith(b"{"):
            looked += 1
            if looked % TOLD_EACH == 0:
                told(looked, size)
        yield line
