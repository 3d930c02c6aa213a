"""Requests that came under a key: what was asked, and what was answered, for a day. Sealed, for an answer may hold a secret.

A row is named by a digest of its key and sealed with another one, both of the home's key as well: who has the file alone can read
none, and who has the home needs the key of the request too.
"""

import hmac
import os

import apsw
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from overwinter.adapters.sqlite.writer import Writer, Wrote
from overwinter.clock import DAY_US, Clock
from overwinter.errors import UsageError
from overwinter.frozen import frozen

__all__ = ["Answered", "SqliteRequests"]

KEYS_MAX = 10_000
"""Of all who ask; a tenth of a megabyte, without the answers."""
NONCE_BYTES = 12


@frozen
class Answered:
    """What came under a key before."""

    digest: bytes
    """Of what was asked."""
    status: int | None
    """Of the answer; None: nobody lived to write one down."""
    body: bytes = b""


class SqliteRequests:
    """The keys of the last day."""

    def __init__(self, writer: Writer, clock: Clock, key: bytes) -> None:
        self._writer, self._clock, self._key = writer, clock, key

    async def begin(self, name: str, digest: bytes) -> Answered | None:
        """Write down what is asked under a key; if it was used before, return that instead.

        Raises:
            UsageError: `KEYS_MAX` are kept.
        """
        row = self._id(name)

        def act(db: apsw.Connection) -> Wrote[Answered | UsageError | None]:
            now_us = self._clock.now_us()
            db.execute("delete from request where at <= ?", (now_us - DAY_US,))
            for asked, status, sealed in list(
                db.execute("select digest, status, answer from request where id = ?", (row,))
            ):
                body = b"" if sealed is None else self._opened(name, asked, sealed)
                return Wrote(Answered(digest=asked, status=status, body=body))
            ((kept,),) = db.execute("select count(*) from request")
            if kept >= KEYS_MAX:
                return Wrote(
                    UsageError(f"{kept} keys of the last day are kept, and no more: wait, or ask without a key")
                )
            db.execute("insert into request (id, digest, at) values (?, ?, ?)", (row, digest, now_us))
            return Wrote(None)

        found = await self._writer.submit(act)
        if isinstance(found, UsageError):
            raise found
        return found

    async def end(self, name: str, digest: bytes, status: int, body: bytes) -> None:
        """Write down what was answered."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._cipher(name).encrypt(nonce, body, digest)

        def act(db: apsw.Connection) -> Wrote[None]:
            db.execute("update request set status = ?, answer = ? where id = ?", (status, sealed, self._id(name)))
            return Wrote(None)

        await self._writer.submit(act)

    async def forget(self, name: str) -> None:
        """Have a key be as if it had never come: what was asked under it was refused, and changed nothing."""

        def act(db: apsw.Connection) -> Wrote[None]:
            db.execute("delete from request where id = ?", (self._id(name),))
            return Wrote(None)

        await self._writer.submit(act)

    def _id(self, name: str) -> bytes:
        return hmac.digest(self._key, b"request\0" + name.encode(), "sha256")

    def _cipher(self, name: str) -> AESGCM:
        return AESGCM(hmac.digest(self._key, b"answer\0" + name.encode(), "sha256"))

    def _opened(self, name: str, digest: bytes, sealed: bytes) -> bytes:
        return self._cipher(name).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], digest)
