"""Values by handle: what a run returned, printed or was answered is read again later, a part at a time.

| handle | value |
|---|---|
| `RUN` | the result of a run |
| `RUN:out` | everything it printed |
| `RUN:INDEX` | what one of its calls was answered; `RUN:INDEX:N` the N-th file of several that it brought |

Nothing is stored a second time: the journal has it all. Only what is too large for a journal, or a file, is kept beside it,
and a program gets its handle. A handle lives as long as its run (`[retention]`).
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

import anyio.to_thread

from overwinter import values
from overwinter.excerpt import at
from overwinter.frozen import frozen
from overwinter.store import FILE_PARTS, PART_BYTES_MAX, RunRecord, Store
from overwinter.values import Value

__all__ = ["TOO_LARGE", "File", "Handles", "handle_of", "unbound"]

TOO_LARGE = "too_large"
"""Code of the error that a program gets in place of a value which is kept."""
HASH = "sha256"
"""Key of a `FileHandle` that its type does not name: programs pass it on, approvals are bound to it, what is sent is held against it."""
_HANDLE = re.compile(r"([0-9A-HJKMNP-TV-Z]{26})(?::(?:(out)|(\d{1,9})(?::(\d{1,4}))?))?")


@frozen
class File:
    """A file as a service sends or takes it."""

    body: bytes
    name: str
    """As its service says."""
    media: str
    """Its media type."""


class Handles:
    """What the runs of a store left."""

    def __init__(self, store: Store, *, kept_bytes_max: int) -> None:
        self._store = store
        self.kept_bytes_max = kept_bytes_max
        """Largest file or value that is kept."""

    async def read(self, handle: str, path: str = "", *, agent: str | None = None) -> Value:
        """Return the part of a value that a path names; of a file, its bytes.

        Args:
            handle: of the value, or of a file.
            path: see `excerpt.at`.
            agent: whose runs may be read; None: anybody's.

        Raises:
            LookupError: there is no such value, or no such part of it.
            ValueError: the handle or the path is none.
        """
        whole = await self._whole(handle, agent)
        return await anyio.to_thread.run_sync(at, whole, path) if path else whole

    async def body(self, handle: str, *, agent: str | None = None) -> bytes:
        """Return the bytes of a file.

        Raises:
            LookupError: there is no such file.
            ValueError: the handle is that of a value which is no file.
        """
        match await self._whole(handle, agent):
            case bytes() as body:
                return body
            case _:
                raise ValueError(f"{handle} is no file")

    async def file(self, value: Mapping[str, Any], *, agent: str | None = None) -> File:
        """Return the file that a `FileHandle` stands for, as it is to be sent.

        Raises:
            LookupError: there is no such file.
            ValueError: it is no file, or not the one that the handle was made for: who approved it, approved its hash.
        """
        body = await self.body(value["file"], agent=agent)
        expected = value.get(HASH)
        if expected is not None and expected != await anyio.to_thread.run_sync(_sha256, body):
            raise ValueError(f"the file {value['file']} is another one than its handle says (sha256): nothing was sent")
        return File(body=body, name=str(value["name"]), media=str(value["type"]))

    async def printed(self, run: RunRecord) -> str:
        """Return everything that a run has printed."""
        texts, since = list[str](), 0
        while since < run.events and (events := await self._store.journal(run.run_id, since)):
            since = events[-1].position + 1
            texts += [str(event.body["text"]) for event in events if event.kind == "printed"]
        return "".join(texts)

    async def keep_file(self, run_id: str, index: int, file: File, *, number: int = 0) -> Value:
        """Keep a file that a call brought, and return what its program gets instead: a `FileHandle`.

        Args:
            run_id: the run.
            index: the call.
            file: the file.
            number: of several files of one call, from 1; 0: the call's answer is this file.

        Raises:
            ValueError: it is larger than what is kept.
        """
        await self._keep(run_id, index, file.body, number)
        handle = f"{run_id}:{index}" + (f":{number}" if number else "")
        sha256 = await anyio.to_thread.run_sync(_sha256, file.body)
        return {
            "file": handle, "name": file.name, "type": file.media, "size_bytes": len(file.body), "sha256": sha256,
        }  # fmt: skip

    async def keep_value(self, run_id: str, index: int, encoded: bytes) -> str:
        """Keep a value that is too large to cross, as `values.encode` wrote it, and return its handle."""
        await self._keep(run_id, index, encoded, 0)
        return f"{run_id}:{index}"

    async def _keep(self, run_id: str, index: int, body: bytes, number: int) -> None:
        if len(body) > self.kept_bytes_max:
            raise ValueError(f"it has {len(body)} bytes, at most {self.kept_bytes_max} are kept (limits.kept_mb)")
        for part, begin in enumerate(range(0, len(body) or 1, PART_BYTES_MAX), number * FILE_PARTS):
            await self._store.keep(run_id, index, part, body[begin : begin + PART_BYTES_MAX])

    async def _whole(self, handle: str, agent: str | None) -> Value:
        named = _HANDLE.fullmatch(handle)
        if named is None:
            raise ValueError(f"{handle!r} is no handle: it is written RUN, RUN:out or RUN:3, as what was cut says")
        run_id, is_output, index, number = named.groups()
        run = await self._store.run(run_id)
        if run is None or (agent is not None and run.agent != agent):
            raise LookupError(f"there is no value {handle}: it is unknown, of another agent, or its time has passed")
        if is_output:
            return await self.printed(run)
        if index is None:
            return run.result
        if number is None:
            return await self._answer(run_id, int(index), handle)
        return await self._kept(run_id, int(index), int(number))

    async def _answer(self, run_id: str, index: int, handle: str) -> Value:
        since = 0
        while events := await self._store.journal(run_id, since):
            since = events[-1].position + 1
            for event in events:
                if event.kind == "answered" and event.body["index"] == index:
                    return await self._answered(run_id, index, event.body)
        raise LookupError(f"there is no value {handle}: the call has no answer yet, or there is no such call")

    async def _answered(self, run_id: str, index: int, body: Mapping[str, Any]) -> Value:
        value = body.get("value")
        is_file = handle_of(value) == f"{run_id}:{index}"
        if is_file:
            return await self._kept(run_id, index, 0)
        if body.get("error", {}).get("code") == TOO_LARGE:
            return await anyio.to_thread.run_sync(values.decode, await self._kept(run_id, index, 0))
        return body.get("error", value)

    async def _kept(self, run_id: str, index: int, number: int) -> bytes:
        body, part = bytearray(), number * FILE_PARTS
        while (piece := await self._store.kept(run_id, index, part)) is not None:
            body += piece
            part += 1
        if part == number * FILE_PARTS:
            raise LookupError(f"there is no value {run_id}:{index}" + (f":{number}" if number else ""))
        return bytes(body)


def handle_of(value: Value) -> str | None:
    """Return the handle in a `FileHandle`; None if the value is none."""
    if not isinstance(value, dict):
        return None
    table = cast("dict[str, Any]", value)
    handle = table.get("file")
    is_handle = (
        isinstance(handle, str)
        and _HANDLE.fullmatch(handle)
        and {"name", "type", "size_bytes"} >= table.keys() - {"file", HASH}
    )
    return cast("str", handle) if is_handle else None


def unbound(arguments: Iterable[Value]) -> str | None:
    """Return the handle of a file among arguments, or in a list of them, that says no hash; None: there is none.

    Such a handle was written by a program, or by an earlier version. What is behind it can change.
    """
    for value in arguments:
        parts: list[Any] = value if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownVariableType] - values are checked, not typed
        for each in parts:
            if (handle := handle_of(each)) is not None and HASH not in each:
                return handle
    return None


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
