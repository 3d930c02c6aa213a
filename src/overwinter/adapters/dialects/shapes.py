"""What of an answer is as its dialect says, where not all of it is.

Providers that call themselves compatible put a number where a text is expected, or a list of parts. Of such an answer the gateway
needs its counts and its end, and its client the rest, as it came.
"""

import json
from collections.abc import Mapping
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

import msgspec

__all__ = ["answered", "is_told", "readable"]

S = TypeVar("S", bound=msgspec.Struct)
_TOP = msgspec.json.Decoder(dict[str, msgspec.Raw])


def answered(decoder: msgspec.json.Decoder[S], body: bytes) -> tuple[S, Mapping[str, bytes]] | None:
    """Return what can be read of an answer in one piece, and the members that cannot; None: it is no JSON object."""
    try:
        return decoder.decode(body), {}
    except UnicodeDecodeError:
        return None
    except (ValueError, RecursionError):
        pass
    try:
        return readable(decoder.type, body)
    except (ValueError, RecursionError):
        return None


def is_told(odd: Mapping[str, bytes], name: str) -> bool:
    """Whether a member that cannot be read may be an answer all the same: it is a list, an object or a text."""
    return odd.get(name, b"null").startswith((b"[", b"{", b'"'))


def readable(kind: type[S], raw: bytes) -> tuple[S, Mapping[str, bytes]]:
    """Return what can be read of a JSON object, and by its name each member that is there and cannot be read, or not in full.

    What has another shape than expected is left out, as if it were not there, and so is an element of a list.

    Raises:
        ValueError: it is no JSON object.
        RecursionError: it is nested too deeply.
    """
    members = _members(raw)
    found, odd = dict[str, Any](), dict[str, bytes]()
    for each in msgspec.structs.fields(kind):
        if (member := members.get(each.encode_name)) is None:
            continue
        try:
            found[each.name] = msgspec.json.decode(member, type=each.type)
        except ValueError:
            odd[each.encode_name] = bytes(member)
            if (part := _part(each.type, member)) is not None:
                found[each.name] = part
    return kind(**found), odd


def _members(raw: bytes) -> Mapping[str, bytes]:
    try:
        return _TOP.decode(raw)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # Half of a surrogate pair is JSON by its grammar, and what some models say: only this reader does not take it.
        found: Any = json.loads(raw)
        if not isinstance(found, dict):
            raise
        return {name: json.dumps(value).encode() for name, value in found.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] - any JSON


def _part(kind: Any, raw: bytes) -> Any:
    """Return what can be read of a value that is no such thing as a whole; None: nothing."""
    for each in get_args(kind) if isinstance(kind, UnionType) else (kind,):
        try:
            if isinstance(each, type) and issubclass(each, msgspec.Struct):
                return readable(each, raw)[0]
            if get_origin(each) is list:
                found = (
                    _part(get_args(each)[0], bytes(one)) for one in msgspec.json.decode(raw, type=list[msgspec.Raw])
                )
                return [one for one in found if one is not None]
        except ValueError:
            continue
    return None
