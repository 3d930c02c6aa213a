"""Carries out calls of described APIs over HTTP: request, pages, answer. The program sees plain data or a typed error.

| what came | read, idempotent | write |
|---|---|---|
| 2xx | the body | the body |
| 429, 5xx, 408 | the error, tried again | 429: the error; 5xx, 408: **unknown**, a person is asked |
| other 4xx | the error | the error: nothing was carried out |
| 3xx | followed below the same address, else the error | 307, 308: the error; other: **unknown** |
| no connection | the error, tried again | the error: nothing had left |
| no answer | the error, tried again | **unknown**: a person is asked |
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import field
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

from overwinter.adapters.egress import Endpoint, Forbidden, Resolve, endpoint, resolved_by_system, sent_on, session
from overwinter.adapters.masks import Mask, mask_of
from overwinter.adapters.openapi.request import Prepared, prepared
from overwinter.catalog import Unknown
from overwinter.clock import RETRY_AFTER_S_MAX, SECOND_US, Clock
from overwinter.events import CARRIED_OUT, Answer, Call, Raised, Returned
from overwinter.frozen import frozen, replace
from overwinter.handles import File
from overwinter.values import Value

if TYPE_CHECKING:
    import aiohttp

__all__ = ["Connection", "HttpClient", "open_client"]

PAGES_MAX = 1_000
ITEMS_MAX = 1_000
"""Items of a list that a program gets when it names no number."""
PAGE_SIZE = 100
REDIRECTS_MAX = 5
LARGE_BYTES_MIN = 1 << 20
LARGE_AT_ONCE_MAX = 4
"""Answers above that size which are in memory at once: the others wait."""
NAME_CHARACTERS_MAX = 200
ERROR_CHARACTERS_MAX = 500
KINDS = {401: "PermissionError", 403: "PermissionError", 404: "LookupError", 410: "LookupError", 408: "TimeoutError"}


@frozen
class Connection:
    """How one service is reached. Nothing of it is ever seen by a program."""

    base_url: str
    headers: Mapping[str, str]
    """Tenant headers and credentials."""
    query: Sequence[tuple[str, str]] = ()
    """Credentials that the service wants in the query."""
    mask: Mask = field(default_factory=Mask)
    """Hides its credentials in answers."""
    is_named: bool = False
    """The operator wrote the address down, see `egress`. A description's is not."""

    def credentials(self, url: str) -> Mapping[str, str]:
        """Return the headers that go along to an address of this service.

        Raises:
            Forbidden: it is none of its addresses: they go nowhere else, and neither does the request.
        """
        there = endpoint(url, is_named=self.is_named)
        if not (here := self.endpoint).covers(there):
            raise Forbidden(f"{there.origin}{there.path}: only {here.origin}{here.path} may be asked", code="redirect")
        return self.headers

    def bearing(self, token: str) -> "Connection":
        """Return the same with a token that holds for one call, hidden like every credential."""
        return replace(
            self,
            headers={**self.headers, "Authorization": f"Bearer {token}"},
            mask=self.mask.also(mask_of([token])),
        )

    @property
    def endpoint(self) -> Endpoint:
        """Return where the service is.

        Raises:
            Forbidden: nothing is sent there.
        """
        return endpoint(self.base_url, is_named=self.is_named)


@asynccontextmanager
async def open_client(
    clock: Clock, *, bytes_max: int, resolve: Resolve = resolved_by_system
) -> "AsyncGenerator[HttpClient]":
    """Yield a client; its connections are made when they are needed, and closed with the block.

    Args:
        clock: reads dates in `Retry-After`.
        bytes_max: largest answer, all pages of a list together.
        resolve: looks names up.
    """
    client = HttpClient(clock, bytes_max, resolve)
    try:
        yield client
    finally:
        await client.close()


class HttpClient:
    """Sends requests, and turns what comes into answers."""

    def __init__(self, clock: Clock, bytes_max: int, resolve: Resolve) -> None:
        self._clock, self._resolve = clock, resolve
        self._bytes_max = bytes_max
        self._large = asyncio.Semaphore(LARGE_AT_ONCE_MAX)
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Close every connection."""
        for each in self._sessions.values():
            await each.close()

    async def perform(
        self, call: Call, plan: Mapping[str, Any], connection: Connection, *, timeout_s: float
    ) -> Answer | Unknown:
        """Carry out one attempt of a call. What it answers has none of the connection's credentials in it."""
        answer = await self._performed(call, plan, connection, timeout_s)
        return connection.mask.answer(answer)

    async def _performed(
        self, call: Call, plan: Mapping[str, Any], connection: Connection, timeout_s: float
    ) -> Answer | Unknown:
        try:
            async with asyncio.timeout(timeout_s):
                if "pages" in plan:
                    limit = call.arguments.get("max_items", 1)
                    if (
                        isinstance(limit, bool)
                        or not isinstance(limit, int | None)
                        or (limit is not None and limit < 1)
                    ):
                        message = f"max_items is a number from 1 on, not {limit!r}"
                        return Raised(kind="ValueError", message=message, code="arguments")
                    return await self._pages(call, plan, connection)
                answer = await self._one(call, plan, dict(call.arguments), connection)
                return Returned(value=answer.value) if isinstance(answer, _Got) else answer
        except TimeoutError:
            why = f"no answer came from {call.function} within {timeout_s:g} s"
            return _lost(call, why, kind="TimeoutError")

    async def _one(
        self, call: Call, plan: Mapping[str, Any], arguments: dict[str, Any], connection: Connection
    ) -> "_Got | Raised | Unknown":
        try:
            request = prepared(plan, arguments, key=call.key)
        except ValueError as error:
            return Raised(kind="ValueError", message=f"{call.function}: {error}", code="arguments")
        url = f"{connection.base_url.rstrip('/')}{request.target(connection.query)}"
        return await self._sent(call, plan, request, url, connection)

    async def _sent(
        self, call: Call, plan: Mapping[str, Any], request: Prepared, url: str, connection: Connection
    ) -> "_Got | Raised | Unknown":
        import aiohttp  # noqa: PLC0415 - it takes 0.2 s, and many homes ask no API
        from yarl import URL  # noqa: PLC0415 - the same

        client = self._session(is_named=connection.is_named)
        body: Any = _form(request.parts) if request.parts else request.body and BytesIO(request.body)
        try:
            for _ in range(REDIRECTS_MAX):
                credentials = connection.credentials(url)
                async with client.request(
                    request.verb,
                    URL(url, encoded=True),  # as it was written and judged: else it is normalised, and leads elsewhere
                    headers={"Accept": "application/json, */*;q=0.5", **request.headers, **credentials},
                    data=body,
                    allow_redirects=False,
                ) as response:
                    following = response.headers.get("Location")
                    if response.status in (301, 302, 303, 307, 308) and following and request.verb in ("GET", "HEAD"):
                        url = sent_on(url, following)
                        continue
                    return await self._read(call, plan, response, connection.mask)
            return Raised(kind="OSError", message=f"more than {REDIRECTS_MAX} redirects", code="redirect")
        except Forbidden as error:
            return Raised(kind="PermissionError", message=str(error), code=error.code)
        except aiohttp.ClientConnectorError as error:
            return Raised(kind="OSError", message=f"no connection: {error.os_error.strerror}", is_retryable=True)
        except (aiohttp.ClientError, OSError) as error:
            return _lost(call, f"the connection broke: {type(error).__name__}", kind="OSError")

    async def _read(
        self, call: Call, plan: Mapping[str, Any], response: "aiohttp.ClientResponse", mask: Mask
    ) -> "_Got | Raised | Unknown":
        done = CARRIED_OUT if call.effect == "write" and response.ok else ""
        raw = await self._body(response)
        if raw is None:
            message = f"the answer has more than {self._bytes_max >> 20} MB (limits.kept_mb){done}: ask for less"
            return Raised(kind="ValueError", message=message)
        raw = mask.raw(raw)
        if response.status >= 300:  # noqa: PLR2004 - RFC 9110, 15.4 and 15.5
            return self._error(call, response, raw, mask)
        if response.status == 204 or not raw:  # noqa: PLR2004 - RFC 9110, 15.3.5
            return _Got(value=None)
        try:
            value = _value(raw, plan, response, mask)
        except ValueError as error:
            return Raised(kind="ValueError", message=f"the answer is not JSON as described{done}: {error}")
        link = response.links.get("next", {}).get("url")
        return _Got(
            value=value,
            next_url=str(link) if link else None,
            has_links="Link" in response.headers,
            size_bytes=len(raw),
        )

    async def _body(self, response: "aiohttp.ClientResponse") -> bytes | None:
        """Return a body; None if it is too large."""
        raw = bytearray()
        async with AsyncExitStack() as stack:
            async for chunk in response.content.iter_chunked(1 << 16):
                if len(raw) <= LARGE_BYTES_MIN < len(raw) + len(chunk):
                    await stack.enter_async_context(self._large)
                raw += chunk
                if len(raw) > self._bytes_max:
                    return None
        return bytes(raw)

    def _error(self, call: Call, response: "aiohttp.ClientResponse", raw: bytes, mask: Mask) -> Raised | Unknown:
        status = response.status
        is_trouble = status in (408, 429) or status >= 500  # noqa: PLR2004 - RFC 9110, 15.5.9 and 15.6; RFC 6585, 4
        code, message = _words(raw, mask)
        message = message or response.reason or "no reason given"
        is_moved = status < 400  # noqa: PLR2004 - RFC 9110, 15.4
        if is_moved:
            message = f"the service sends this call on to another place, {status}: it is not followed"
        # RFC 6585, 4 and RFC 9110, 15.4.8: what was limited, or is to be sent again elsewhere, was not carried out.
        if (is_trouble or is_moved) and status not in (307, 308, 429) and call.effect == "write":
            return Unknown(why=f"{call.function} answered {status} {message}: it may have been carried out")
        return Raised(
            kind="OSError" if status == 429 or status >= 500 else KINDS.get(status, "RuntimeError"),  # noqa: PLR2004 - as above
            message=message,
            status=status,
            code=code,
            is_retryable=is_trouble,
            retry_after_s=self._retry_after(response.headers),
        )

    def _retry_after(self, headers: Mapping[str, str]) -> float | None:
        """Return the pause that a service asks for, in seconds (RFC 9110, 10.2.3)."""
        text = headers.get("Retry-After", "").strip()
        if text.replace(".", "", 1).isdecimal():
            return min(float(text), RETRY_AFTER_S_MAX)
        try:
            at_s = parsedate_to_datetime(text).timestamp() if text else None
        except ValueError:
            return None
        return None if at_s is None else min(max(0.0, at_s - self._clock.now_us() / SECOND_US), RETRY_AFTER_S_MAX)

    # --- Pages -------------------------------------------------------------------------------------------------------

    async def _pages(  # noqa: PLR0911 - one outcome a line
        self, call: Call, plan: Mapping[str, Any], connection: Connection
    ) -> Answer | Unknown:
        """Follow the pages of a list up to `max_items`; a longer list is an error, never a part that looks whole."""
        pages, limit = plan["pages"], call.arguments.get("max_items")
        most = ITEMS_MAX if limit is None else limit
        arguments = {name: value for name, value in call.arguments.items() if name != "max_items"}
        size = min(PAGE_SIZE, max(1, most))
        moved: Value = {"page": 1, "offset": 0}.get(pages["kind"])
        items: list[Value] = []
        before: list[Value] = []
        cursors = [moved]
        size_bytes = 0
        for _ in range(PAGES_MAX):
            answer = await self._one(
                call, _page_plan(plan, moved, size), _page_arguments(arguments, pages, moved, size), connection
            )
            if not isinstance(answer, _Got):
                return answer
            found = _items(answer.value, pages["items"])
            items += found
            size_bytes += answer.size_bytes
            if size_bytes > self._bytes_max:
                message = f"the pages have more than {self._bytes_max >> 20} MB (limits.kept_mb): ask for less"
                return Raised(kind="ValueError", message=message)
            if limit is not None and len(items) >= most:
                return Returned(value=items[:most])
            if len(items) > most:
                message = f"{call.function} has more than {most} items: narrow the question, or pass max_items="
                return Raised(kind="ValueError", message=message)
            is_cursor = pages["kind"] == "cursor"
            following = None if found == before and not is_cursor else _following(pages, answer, found, moved)
            if is_cursor and following is not None and following in cursors[:-1]:
                message = f"the pages of {call.function} lead back to an earlier one: the list has no end"
                return Raised(kind="ValueError", message=message)
            moved = None if is_cursor and following == moved else following  # some repeat the last one at the end
            cursors.append(moved)
            before = found
            if moved is None:
                return Returned(value=items)
        return Raised(kind="ValueError", message=f"{call.function} has more than {PAGES_MAX} pages")

    def _session(self, *, is_named: bool) -> "aiohttp.ClientSession":
        if is_named not in self._sessions:
            self._sessions[is_named] = session(is_named=is_named, resolve=self._resolve)
        return self._sessions[is_named]


@frozen
class _Got:
    value: Value
    next_url: str | None = None
    has_links: bool = False
    size_bytes: int = 0


def _lost(call: Call, why: str, *, kind: str) -> Raised | Unknown:
    """A request left and no answer came: whoever may repeat it does, for a write a person is asked."""
    if call.effect == "write":
        return Unknown(why=why)
    return Raised(kind=kind, message=why, is_retryable=True)


def _form(parts: Sequence[tuple[str, Any]]) -> "aiohttp.FormData":
    import aiohttp  # noqa: PLC0415 - as in `_sent`

    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in parts:
        if isinstance(value, File):
            form.add_field(name, BytesIO(value.body), filename=value.name or name, content_type=value.media)
        else:
            is_file = isinstance(value, bytes)
            form.add_field(name, BytesIO(value) if is_file else value, filename=name if is_file else None)
    return form


def _value(raw: bytes, plan: Mapping[str, Any], response: "aiohttp.ClientResponse", mask: Mask) -> Value:
    kind, answer = response.content_type, plan.get("answer")
    if answer != "bytes" and ("json" in kind or answer == "json"):
        return _json(raw, mask)
    if answer == "text" or (answer != "bytes" and kind.startswith("text/")):
        return raw.decode(errors="replace")
    disposition = response.content_disposition
    name = (disposition.filename if disposition else None) or response.url.name or "file"
    name = "".join(each for each in name if each.isprintable())[:NAME_CHARACTERS_MAX]
    return File(body=raw, name=name, media=kind)


def _json(raw: bytes, mask: Mask) -> Any:
    """Return what a masked text stands for; only one with escapes in it can have a secret that was not seen."""
    value = json.loads(raw)
    return mask.value(value) if b"\\" in raw else value


def _words(raw: bytes, mask: Mask) -> tuple[str | None, str]:
    """Return code and message of an error body, as most APIs write them."""
    try:
        body: Any = _json(raw, mask)
    except ValueError:
        return None, _short(raw.decode(errors="replace"))
    while isinstance(body, Mapping):
        table = cast("Mapping[str, Any]", body)
        inner: Any = table.get("error", table.get("errors"))
        if isinstance(inner, list) and inner:
            inner = cast("list[Any]", inner)[0]
        if isinstance(inner, Mapping):
            body = inner
            continue
        code = next(
            (table[key] for key in ("code", "type", "error_code") if isinstance(table.get(key), str | int)), None
        )
        texts = [
            table[key]
            for key in ("message", "detail", "description", "title", "error")
            if isinstance(table.get(key), str)
        ]
        return (None if code is None else str(code)), _short(texts[0] if texts else json.dumps(table))
    return None, _short(raw.decode(errors="replace"))


def _short(text: str) -> str:
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line[:ERROR_CHARACTERS_MAX]


# --- Pages, pure -------------------------------------------------------------------------------------------------------


def _page_plan(plan: Mapping[str, Any], moved: Value, size: int) -> Mapping[str, Any]:
    pages, added = plan["pages"], list[list[Any]]()
    if moved is not None:
        added.append(["moves__", pages["moves"], "query", "", None, False])
    if pages["size"] and size:
        added.append(["size__", pages["size"], "query", "", None, False])
    return {**plan, "arguments": [*plan["arguments"], *added]}


def _page_arguments(arguments: Mapping[str, Any], pages: Mapping[str, Any], moved: Value, size: int) -> dict[str, Any]:
    added: dict[str, Any] = {} if moved is None else {"moves__": moved}
    return {**arguments, **added, **({"size__": size} if pages["size"] else {})}


def _items(value: Value, path: Sequence[str]) -> list[Value]:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return list(value) if isinstance(value, list) else []  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - checked by its type


def _following(pages: Mapping[str, Any], got: _Got, found: list[Value], moved: Value) -> Value:
    """Return where the next page begins; None after the last.

    A service may give fewer items than it was asked for, so a short page of a numbered list does not mean its end: an
    empty one does, or a `Link` header that names no next one.
    """
    match pages["kind"]:
        case "cursor":
            value: Any = got.value
            for key in pages["next"]:
                value = value.get(key) if isinstance(value, dict) else None
            return value or None
        case "last":
            has_more = isinstance(got.value, dict) and got.value.get("has_more")
            return found[-1].get("id") if has_more and found and isinstance(found[-1], dict) else None
        case _ if not found or (got.has_links and not got.next_url):
            return None
        case "offset":
            return moved + len(found)
        case _:
            return moved + 1
