"""A request, read at its top level: each key once, the bytes of its value as they came.

A body with a key twice has two readings, and a provider may take the other one. What goes on is therefore put together from
what was read, never the bytes that came.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from overwinter.gateway.refusal import ModelRefused, Refusal

__all__ = [
    "boolean",
    "elements",
    "encoded",
    "headers_sent_on",
    "invalid",
    "kinds_beginning",
    "kinds_in",
    "members",
    "number",
    "parts_but",
    "text",
    "top_level",
    "types_but",
]

COUNT_MAX = 10**12
"""Of tokens or choices: no model has so many, and sums of them still fit a 64-bit integer in nano-dollars."""
MODEL_CHARACTERS_MAX = 256
NOT_SENT_ON = frozenset({
    "authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie", "proxy-authorization", "proxy-authenticate",
    # What the client's own key belongs to; the home's key belongs to something else.
    "openai-organization", "openai-project", "x-goog-user-project",
    "connection", "proxy-connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",  # RFC 9110, 7.6.1
    "host", "content-length", "content-encoding", "content-type", "accept-encoding", "expect", "forwarded", "via",
    "referer", "x-real-ip", "x-client-ip", "true-client-ip", "remote-user", "x-remote-user", "x-webauth-user",
})  # fmt: skip
NOT_SENT_ON_PREFIXES = (
    "x-forwarded-", "x-overwinter-", "cf-", "sec-", ":",
    # Who the caller is, as proxies in front of a server tell it.
    "x-auth-request-", "x-amzn-oidc-", "x-goog-iap-", "x-goog-authenticated-user-", "x-ms-client-principal", "x-ms-token-", "x-authentik-",
    "x-pomerium-", "x-vouch-", "tailscale-user-",
)  # fmt: skip

_TOP = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_ENCODER = msgspec.json.Encoder()
_TEXT = msgspec.json.Decoder(str | None)
_NUMBER = msgspec.json.Decoder(int | None)
_FLOAT = msgspec.json.Decoder(float | None)
_BOOLEAN = msgspec.json.Decoder(bool | None)


class _Typed(msgspec.Struct):
    type: str | None = None


_TYPED = msgspec.json.Decoder(list[_Typed] | None)
_TYPE = re.compile(rb'"type"\s*:\s*"([A-Za-z0-9_.-]*)"')
KIND_CHARACTERS_MAX = 100

_BREAK = re.compile(r"[\r\n\0]")
_ESCAPED = re.compile(rb"\\u00(?:3[0-9]|[4-7])")
"""A letter, digit or underscore that is written as an escape, which nobody does who has nothing to hide."""


def top_level(body: bytes) -> dict[str, bytes]:
    """Return the top-level keys of a body in order, each with the bytes of its value; of a key that is there twice, the last.

    Raises:
        ModelRefused: it is no JSON object, with the place.
    """
    try:
        if not body.isascii():
            body.decode()  # what is not looked into is not checked for it
        return {key: bytes(value) for key, value in _TOP.decode(body).items()}
    except UnicodeDecodeError as error:
        raise invalid(f"the body is not UTF-8 at byte {error.start}: encode it so") from error
    except RecursionError as error:
        raise invalid("the body is nested too deeply: no request of a model needs that") from error
    except msgspec.MsgspecError as error:
        raise invalid(f"the body is no JSON object: {error}") from error


def encoded(top: Mapping[str, bytes]) -> bytes:
    """Return a body of these keys, in order, the bytes of each value verbatim."""
    return _ENCODER.encode({key: msgspec.Raw(value) for key, value in top.items()})


def elements(raw: bytes) -> list[bytes] | None:
    """Return the elements of a list, each with its bytes as they came; None: it is no list of JSON."""
    try:
        return [bytes(each) for each in _LIST.decode(raw)]
    except (msgspec.MsgspecError, RecursionError):
        return None


def members(raw: bytes | None, name: str) -> dict[str, bytes]:
    """Return the members of an object below the top level; none if it is not there.

    Raises:
        ModelRefused: it is something else.
    """
    if raw is None or raw == b"null":
        return {}
    try:
        return {key: bytes(value) for key, value in _TOP.decode(raw).items()}
    except (msgspec.MsgspecError, RecursionError) as error:
        raise invalid(f"{name}: {error}") from error


def text(top: Mapping[str, bytes], name: str) -> str:
    """Return a string; "" if it is not there.

    Raises:
        ModelRefused: it is something else.
    """
    return _read(_TEXT.decode, top, name) or ""


def model(top: Mapping[str, bytes]) -> str:
    """Return the model that a body names.

    Raises:
        ModelRefused: it names none.
    """
    found = text(top, "model")
    if not found or len(found) > MODEL_CHARACTERS_MAX:
        raise invalid(f"model: name one, in at most {MODEL_CHARACTERS_MAX} characters")
    return found


def number(top: Mapping[str, bytes], name: str) -> int | None:
    """Return a whole number from 0; None if it is not there.

    Raises:
        ModelRefused: it is something else: a negative limit would make the hold of a budget negative.
    """
    found: int | None = _read(_NUMBER.decode, top, name)
    if found is not None and not 0 <= found <= COUNT_MAX:
        raise invalid(f"{name}: {found} is not between 0 and {COUNT_MAX}")
    return found


def boolean(top: Mapping[str, bytes], name: str) -> bool:
    """Return a truth value; false if it is not there.

    Raises:
        ModelRefused: it is something else.
    """
    return bool(_read(_BOOLEAN.decode, top, name))


def temperature(top: Mapping[str, bytes]) -> float | None:
    """Return the temperature; None if it is not there, or something else, which is for the provider to say."""
    try:
        return _FLOAT.decode(top["temperature"]) if "temperature" in top else None
    except msgspec.MsgspecError:
        return None


def _read(decode: Callable[[bytes], Any], top: Mapping[str, bytes], name: str) -> Any:
    raw = top.get(name)
    if raw is None:
        return None
    try:
        return decode(raw)
    except msgspec.MsgspecError as error:
        raise invalid(f"{name}: {error}") from error


def invalid(message: str) -> ModelRefused:
    """Return the refusal of a request that cannot be read."""
    return ModelRefused(Refusal(why="invalid", message=message))


def headers_sent_on(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that go on, names in lower case: no credential, nothing of this connection, no encoding.

    Raises:
        ModelRefused: one has a line break in it, or the body is compressed.
    """
    given = {name.lower(): value for name, value in headers.items()}
    if given.get("content-encoding", "identity").lower() != "identity":
        raise invalid(f"content-encoding {given['content-encoding']!r}: send the body as it is")
    hops = {name.strip().lower() for name in given.get("connection", "").split(",")}
    kept = dict[str, str]()
    broken = _BREAK.search(" ".join((*given, *given.values()))) is not None
    for name, value in given.items():
        if broken and (_BREAK.search(value) or _BREAK.search(name)):
            raise invalid(f"header {name!r} has a line break in it")
        if name not in NOT_SENT_ON and name not in hops and not name.startswith(NOT_SENT_ON_PREFIXES):
            kept[name] = value
    return kept


def kinds_in(raw: bytes | None, kinds: frozenset[str], keys: frozenset[str] = frozenset()) -> list[str]:
    """Return which of these words are the `type` of an object somewhere in a value, and which of these keys an object has.

    A value without any of the words in it is not parsed. A tool's own arguments (`input`) are not looked into.
    """
    if raw is None:
        return []
    wanted = (*kinds, *keys)
    has_escape = b"\\" in raw and _ESCAPED.search(raw) is not None
    if not has_escape and _any_of(wanted).search(raw) is None:
        return []
    try:
        found = set(_kinds(msgspec.json.decode(raw), kinds, keys))
    except (msgspec.MsgspecError, RecursionError):
        return sorted(wanted)  # doubt means that nothing bounds it
    return sorted(found)


def kinds_beginning(raw: bytes | None, word: str) -> bool:
    """Return whether the `type` of some object in a value begins with a word, however it is written."""
    if raw is None:
        return False
    try:
        return f'"{word}'.encode() in msgspec.json.encode(msgspec.json.decode(raw))
    except (msgspec.MsgspecError, RecursionError):
        return True


def parts_but(raw: bytes | None, known: frozenset[str]) -> list[str]:
    """Return the types of the parts in the `content` of messages that are none of these.

    Messages in which no object has another type are not parsed.
    """
    if raw is None:
        return []
    has_escape = b"\\" in raw and _ESCAPED.search(raw) is not None
    if not has_escape and {each.decode() for each in _TYPE.findall(raw)} <= known | {"function", "custom", "ephemeral"}:
        return []
    try:
        messages = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return ["content"]  # doubt means that nothing bounds it
    contents = (
        [each.get("content") for each in messages if isinstance(each, dict)] if isinstance(messages, list) else []
    )
    parts = [part for each in contents if isinstance(each, list) for part in each if isinstance(part, dict)]
    return sorted({str(each.get("type", ""))[:KIND_CHARACTERS_MAX] for each in parts} - known)


def types_but(top: Mapping[str, bytes], name: str, known: frozenset[str]) -> list[str]:
    """Return the types of the objects in a list that are none of these; of what is no such list, its name."""
    try:
        found = _TYPED.decode(top.get(name, b"null")) or ()
    except (msgspec.MsgspecError, RecursionError):
        return [name]  # doubt means that nothing bounds it
    return sorted({each.type[:KIND_CHARACTERS_MAX] for each in found if each.type is not None} - known)


@lru_cache
def _any_of(words: tuple[str, ...]) -> re.Pattern[bytes]:
    """Return what finds one of these words as a whole string."""
    return re.compile(b'"(?:%b)"' % b"|".join(re.escape(each.encode()) for each in words))


def _kinds(root: Any, kinds: frozenset[str], keys: frozenset[str]) -> Iterator[str]:
    todo = [root]
    while todo:
        node = todo.pop()
        if isinstance(node, list):
            todo += node
        elif isinstance(node, dict):
            kind = node.get("type")
            if isinstance(kind, str) and kind in kinds:
                yield kind
            yield from (key for key in keys if node.get(key) is not None)
            todo += [value for key, value in node.items() if key != "input"]
