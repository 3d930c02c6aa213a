"""MCP on the wire: what a request must look like, and how answers and refusals are said, in both generations of the protocol.

From 2026-07-28 on a request stands alone: it names its version and its client's abilities itself, and headers repeat what the body says.
Before, a client shakes hands with `initialize`. Neither needs a session here, for a run is the only thing that lasts.

modelcontextprotocol.io/specification/2026-07-28, and 2025-11-25.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import field
from typing import Any, cast

from overwinter import __version__
from overwinter.frozen import frozen
from overwinter.values import has_half_character

__all__ = ["EARLIER", "LATEST", "PRESENT", "Asked", "Fault", "fault", "initialized", "read", "result"]

PRESENT = "2026-07-28"
LATEST = "2025-11-25"
"""Of the versions that shake hands."""
EARLIER = (LATEST, "2025-06-18", "2025-03-26")
UNSAID = "2025-03-26"
"""What a client of the earlier generation speaks that sends no header."""
META = "io.modelcontextprotocol/"
"""Half a character of UTF-16: JSON can spell one, and nothing can carry it on."""

Json = dict[str, Any]


class Fault(Exception):
    """A request that is answered with an error."""

    def __init__(
        self, code: int, message: str, *, status: int = 400, data: Json | None = None, of: object = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.data, self.id = code, message, status, data, of


@frozen
class Asked:
    """A request, or a notification."""

    id: str | int | None
    """None: a notification."""
    method: str
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    version: str
    abilities: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What its client says it can do; empty before 2026-07-28."""

    @property
    def is_present(self) -> bool:
        """Whether it stands alone."""
        return self.version == PRESENT

    @property
    def meta(self) -> Mapping[str, Any]:
        """Return its `_meta`."""
        found = self.params.get("_meta")
        return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


def read(body: bytes, headers: Mapping[str, str]) -> Asked:
    """Return the request in a body.

    Args:
        body: JSON.
        headers: by their names in lower case. Over stdio there are none.

    Raises:
        Fault: it is none, or it and its headers say different things.
    """
    try:
        text = body.decode()
        message: Any = json.loads(text)
        is_whole = not has_half_character(body, message)
    except (ValueError, RecursionError) as error:
        raise Fault(-32700, f"the body is no JSON: {str(error)[:200]}") from error
    if not is_whole:
        raise Fault(-32700, "the body has half a character, \\ud800 to \\udfff")
    if not isinstance(message, dict):
        raise Fault(-32600, "a message is one JSON object: batches are not taken")
    message = cast("Json", message)
    id_, method, params = message.get("id"), message.get("method"), message.get("params", {})
    if message.get("jsonrpc") != "2.0" or not isinstance(method, str) or not isinstance(params, dict):
        raise Fault(-32600, "a message has jsonrpc 2.0, a method, and params that are an object", of=_id(id_))
    if "id" in message and _id(id_) is None:
        raise Fault(-32600, "an id is a text or a whole number")
    try:
        return _asked(_id(id_), method, cast("Json", params), headers)
    except Fault as fault_:
        fault_.id = _id(id_)
        raise


def _asked(id_: str | int | None, method: str, params: Json, headers: Mapping[str, str]) -> Asked:
    found = params.get("_meta")
    meta = cast("Json", found) if isinstance(found, dict) else {}
    named = meta.get(f"{META}protocolVersion")
    told = headers.get("mcp-protocol-version")
    if named is None and told in (None, *EARLIER):
        return Asked(id=id_, method=method, params=params, version=told or UNSAID)
    if named is None and told != PRESENT:
        raise _unsupported(told)
    if not isinstance(named, str):
        raise Fault(-32602, f"params._meta[{META + 'protocolVersion'!r}] is missing")
    if headers and told is not None and told != named:
        raise Fault(-32020, f"the header mcp-protocol-version is {told[:100]!r}, and the body says {named[:100]!r}")
    if named != PRESENT:
        raise _unsupported(named)
    abilities = meta.get(f"{META}clientCapabilities")
    if not isinstance(abilities, dict):
        raise Fault(-32602, f"params._meta[{META + 'clientCapabilities'!r}] is missing")
    if headers:
        _agree(method, params, headers)
    return Asked(id=id_, method=method, params=params, version=PRESENT, abilities=cast("Json", abilities))


def _agree(method: str, params: Json, headers: Mapping[str, str]) -> None:
    """See that a request's headers say what its body says: whoever routes by them must not be led astray.

    Raises:
        Fault: they do not.
    """
    said = {"mcp-protocol-version": PRESENT, "mcp-method": method}
    name = params.get("taskId") if method.startswith("tasks/") else params.get("uri", params.get("name"))
    if isinstance(name, str) and method in (
        "tools/call",
        "prompts/get",
        "resources/read",
        "tasks/get",
        "tasks/update",
        "tasks/cancel",
    ):
        said["mcp-name"] = name
    for header, expected in said.items():
        found = headers.get(header)
        if found is None or _plain(found) != expected:
            message = f"the header {header} is {'missing' if found is None else repr(found[:100])}, and the body says {expected[:100]!r}"
            raise Fault(-32020, message)


def _plain(header: str) -> str:
    """Return a header's text; what is not ASCII comes as `=?base64?...?=`."""
    if not (header.startswith("=?base64?") and header.endswith("?=")):
        return header.strip()
    try:
        return base64.b64decode(header[9:-2], validate=True).decode()
    except (binascii.Error, ValueError):
        return header


def _unsupported(version: object) -> Fault:
    data = {"supported": [PRESENT, *EARLIER], "requested": str(version)[:100]}
    return Fault(-32022, f"protocol version {str(version)[:100]!r} is not spoken here", data=data)


def _id(value: object) -> str | int | None:
    is_id = isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    return cast("str | int", value) if is_id else None


def result(asked: Asked, body: Mapping[str, Any], *, kind: str = "complete", is_listed: bool = False) -> Json:
    """Return the answer to a request.

    Args:
        asked: the request.
        body: what it is answered.
        kind: `complete`, `input_required` or `task`; said from 2026-07-28 on.
        is_listed: whether it may be kept by its client for a while: it is for this identity alone.
    """
    told: Json = dict(body)
    if asked.is_present:
        server = {f"{META}serverInfo": _SERVER}
        told = {**told, "resultType": kind, "_meta": {**server, **told.get("_meta", {})}}
        if is_listed:
            told |= {"ttlMs": 60_000, "cacheScope": "private"}
    return {"jsonrpc": "2.0", "id": asked.id, "result": told}


def fault(error: Fault) -> Json:
    """Return a refusal."""
    body: Json = {"code": error.code, "message": error.message}
    return {"jsonrpc": "2.0", "id": error.id, "error": body if error.data is None else {**body, "data": error.data}}


def initialized(asked: Asked, instructions: str) -> Json:
    """Return the answer to a handshake: the version that was asked for if it is known, else the latest that shakes hands."""
    wanted = asked.params.get("protocolVersion")
    return {
        "protocolVersion": wanted if wanted in EARLIER else LATEST,
        "capabilities": {"tools": {"listChanged": False}},
        "serverInfo": _SERVER,
        "instructions": instructions,
    }


_SERVER = {"name": "overwinter", "title": "overwinter", "version": __version__}
