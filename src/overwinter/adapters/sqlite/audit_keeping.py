"""What is written to the audit log beside what is done: cosignatures of witnesses, a new key. And what is deleted from it: bodies, tree heads."""

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

import anyio
import anyio.to_thread
import apsw

from overwinter.adapters.notes import PublicKey
from overwinter.adapters.sqlite import agents, audited, log_rows, outbox, tokens
from overwinter.adapters.sqlite.audit_log import Sealing, next_signer
from overwinter.adapters.sqlite.schema import connect, guarded
from overwinter.adapters.sqlite.writer import Writer, Wrote
from overwinter.gateway.budget import Line

__all__ = ["AuditKeeping"]

BODIES_MAX = 500
"""Entries whose bodies are deleted in one commit: others wait for it."""
MODEL_CALLS = "model calls"
HEADS_MAX = 500
"""Tree heads deleted in one commit."""
CHECKPOINT_WAIT_MS = 100
"""How long readers of old pages are waited for; the next deletion tries it again."""


class AuditKeeping:
    """Uses the store's writer."""

    def __init__(self, path: Path, writer: Writer, seal: Sealing) -> None:
        self._path, self._writer, self._seal = path, writer, seal
        self._one_at_a_time = anyio.Lock()
        """Two new keys would be one file."""

    async def rotate(self, *, by: str, reason: str) -> tuple[int, PublicKey]:
        """Have a new key sign the log from now on; return the entry that names it, and the key.

        The entry's commit holds nothing else, and its tree head has both signatures: whoever knows one key has the other.
        """
        async with self._one_at_a_time:
            before = self._seal.public
            following, put = await anyio.to_thread.run_sync(next_signer, self._path, before.name)

            def act(db: apsw.Connection) -> Wrote[int]:
                self._seal.hand_over(following, put)
                entry = audited.keyed(str(before), str(following.public), by, reason)
                return Wrote(log_rows.size(db), audited=[entry])

            return await self._writer.submit_first(act), following.public

    async def note_issuer(self, before: str, *, by: str, reason: str) -> None:
        """Write down that a person gives the issuer of identities another key than the one of this thumbprint."""

        def act(db: apsw.Connection) -> Wrote[None]:
            del db
            return Wrote(None, audited=[audited.issuer(before, by, reason)])

        await self._writer.submit(act)

    async def cosign(self, size: int, name: str, line: str) -> None:
        """Keep a witness's line under the tree head of one size."""

        def act(db: apsw.Connection) -> Wrote[None]:
            log_rows.add_cosignature(db, size, name, line)
            return Wrote(None)

        await self._writer.submit(act)

    def model_calls(self) -> int:
        """Return up to which number the log has the model calls that ended."""
        with closing(connect(self._path, is_writer=False)) as db, guarded(self._path):
            return outbox.reached(db, MODEL_CALLS)

    async def add_model_calls(self, told: Sequence[tuple[int, Line]], owners: Mapping[str, str]) -> None:
        """Add an entry for each of some model calls that the log does not have, and write down how far it has them.

        Args:
            told: numbers, rising, each with its call.
            owners: who answers for each agent; who came with a token acted in person.
        """

        def act(db: apsw.Connection) -> Wrote[None]:
            reached = outbox.reached(db, MODEL_CALLS)
            fresh = [line for seq, line in told if seq > reached]
            outbox.reach(db, MODEL_CALLS, max(reached, told[-1][0]))
            epochs = {name: agents.epoch(db, name) for name in {each.agent for each in fresh}}
            people = {key: tokens.person(db, key) for key in {each.key for each in fresh}}
            entries = [
                audited.model_call(each, epochs[each.agent], people[each.key] or owners.get(each.agent, ""))
                for each in fresh
            ]
            return Wrote(None, audited=entries)

        await self._writer.submit(act)

    async def delete_bodies(self, before_ms: int) -> int:
        """Delete some of the bodies of entries older than an instant, with their keys, for ever; return how many.

        0: there are none left. Their bytes are overwritten, also in the write-ahead log as far as nobody reads it.
        """

        def act(db: apsw.Connection) -> Wrote[int]:
            seqs = log_rows.bodies_before(db, log_rows.first_since(db, before_ms), BODIES_MAX)
            return Wrote(log_rows.delete_bodies(db, seqs) if seqs else 0)

        deleted = await self._writer.submit(act)
        if deleted:
            await anyio.to_thread.run_sync(self._checkpoint)
        return deleted

    async def thin_heads(self, before_ms: int) -> int:
        """Delete some of the tree heads from before an instant, but the last of each day and what a witness signed.

        Return how many; 0: there are none left.
        """

        def act(db: apsw.Connection) -> Wrote[int]:
            sizes = log_rows.spare_heads(db, log_rows.first_since(db, before_ms), HEADS_MAX)
            log_rows.delete_heads(db, sizes)
            return Wrote(len(sizes))

        return await self._writer.submit(act)

    def _checkpoint(self) -> None:
        with closing(connect(self._path, is_writer=True)) as db, guarded(self._path):
            db.set_busy_timeout(CHECKPOINT_WAIT_MS)
            with suppress(apsw.BusyError):
                db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
