"""The audit log's entry: who did what, by which decision, in the one spelling that is hashed.

An entry is flat JSON by RFC 8785: ASCII keys; strings, booleans, null, integers below 2**53, and lists of those. Inside
that subset Python's sorted JSON and RFC 8785 are the same bytes; everything else is refused, so no entry has two spellings.

An entry never holds arguments or results, but an HMAC of them under a random key of its own. Key and body are kept
apart from the log; when both are deleted, the entry that stays tells nothing about them: a bare hash could be guessed.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Literal, TypeAlias, cast

from overwinter.errors import UsageError
from overwinter.frozen import frozen

__all__ = [
    "BODY_KEY_BYTES", "ENTRY_BYTES_MAX", "VERSION", "Atom", "Body", "Decided", "Entry", "EntryRefused", "Kind", "Part", "Plain", "Site",
    "canonical", "decode", "encode", "hidden",
]  # fmt: skip

VERSION = 1
BODY_KEY_BYTES = 32
ENTRY_BYTES_MAX = 65_536
INTEGER_MAX = 2**53 - 1
"""RFC 8785 writes numbers as IEEE 754 doubles: above this, two integers share a spelling."""
FRAMES_REMEMBERED = 256
"""What entries say beside call, time and bodies: that of a run's calls repeats itself. Spelling it is two thirds of the work."""

Atom: TypeAlias = str | bool | int | None
Plain: TypeAlias = Atom | list[Atom]
Kind = Literal[
    "start",
    "message",
    "release",
    "call.intent",
    "call.result",
    "deny",
    "approve",
    "grant",
    "revoke",
    "restore",
    "enrol",
    "issuer",
    "schedule",
    "key",
    "kill",
    "wake.refused",
    "pin.drift",
    "model.call",
    "policy",
]
Decided = Literal["allow", "deny", "ask"]
Part = Literal["args", "result"]
"""What of an entry lies apart as a body."""

_BLOCK_BYTES = 64
_INNER, _OUTER = (bytes(each ^ pad for each in range(256)) for pad in (0x36, 0x5C))
_ATOMS = frozenset({str, bool, type(None)})
_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False).encode


class EntryRefused(UsageError):
    """An entry cannot be written as it is, so what it is about must not happen. Never retry: name plain, short values."""


@frozen
class Body:
    """Arguments or a result, as bytes, with the key that ties it to its entry."""

    key: bytes
    """Random, for this body alone."""
    content: bytes

    def hmac(self) -> str:
        """Return what the entry holds of it: HMAC-SHA256, as hexadecimal digits."""
        # RFC 2104 2, from its two hashes: `hmac.digest` takes twice as long, and gives Python's lock away.
        assert len(self.key) <= _BLOCK_BYTES, "a longer key would be hashed first"
        block = self.key.ljust(_BLOCK_BYTES, b"\0")
        inner = hashlib.sha256(block.translate(_INNER) + self.content).digest()
        return hashlib.sha256(block.translate(_OUTER) + inner).hexdigest()


def hidden(content: bytes, random: Callable[[int], bytes] = os.urandom) -> Body:
    """Return a body under a new key."""
    return Body(key=random(BODY_KEY_BYTES), content=content)


@frozen
class Site:
    """The expression of a program that made a call."""

    program_sha256: str
    start: int
    """UTF-8 byte offset into the program, not characters."""
    end: int
    """Exclusive."""


@frozen
class Entry:
    """One governed act. Where it stands and when is added as it is appended. What is None or empty is left out."""

    kind: Kind
    tenant: str
    agent: str
    epoch: int
    """The agent's: it rises with each revocation."""
    run: str | None = None
    call: int | None = None
    """Index of a call in its run: `run:call` is the key that its service saw."""
    act: tuple[str, ...] = ()
    """On whose behalf: the person, then the agents down to the nearest."""
    site: Site | None = None
    tool: str | None = None
    tool_pin: str | None = None
    """Digest of the definition that was called."""
    args: Body | None = None
    result: Body | None = None
    labels: tuple[str, ...] = ()
    decision: Decided | None = None
    policy_ids: tuple[str, ...] = ()
    policy_set_sha256: str | None = None
    policy_set_before_sha256: str | None = None
    """Of the rules that held until then, if the entry is about their change."""
    errors: tuple[str, ...] = ()
    """What went wrong while deciding; any error is a deny."""
    lease: str | None = None
    """Of the credential that was lent."""
    log_key: str | None = None
    """Whose signature tree heads have after this entry, as notes write keys; its own tree head has both signatures."""
    log_key_before: str | None = None
    """Whose they have up to here."""

    def bodies(self) -> tuple[tuple[Part, Body], ...]:
        """Return what is to be kept apart."""
        args: tuple[tuple[Part, Body], ...] = () if self.args is None else (("args", self.args),)
        return args if self.result is None else (*args, ("result", self.result))


def encode(entry: Entry, *, seq: int, ts_ms: int) -> bytes:
    """Return the bytes that are hashed and stored.

    Args:
        entry: what happened.
        seq: index of its leaf, from 0.
        ts_ms: milliseconds since 1970-01-01 UTC, never below the predecessor's.

    Raises:
        EntryRefused: if a value of it is too long or no text in UTF-8.
    """
    who, what, where = _frame(
        entry.act, entry.agent, entry.decision, entry.epoch, entry.errors, entry.kind, entry.labels, entry.lease, entry.log_key, entry.log_key_before, entry.policy_ids,
        entry.policy_set_before_sha256, entry.policy_set_sha256, entry.site, entry.tenant, entry.tool, entry.tool_pin,
    )  # fmt: skip
    args = f',"args_hmac":"{entry.args.hmac()}"' if entry.args else ""
    call = "" if entry.call is None else f',"call":{_integer("call", entry.call)}'
    result = f',"result_hmac":"{entry.result.hmac()}"' if entry.result else ""
    run = "" if entry.run is None else f',"run":{encode_basestring(entry.run)}'
    number, ts = _integer("seq", seq), _integer("ts", ts_ms)
    # The order of keys is RFC 8785's: those of a frame's parts lie between the ones that are put in here.
    raw = _utf8(f'{{{who}{args}{call},{what}{result}{run},"seq":{number},{where},"ts":{ts},"v":{VERSION}}}')
    if len(raw) > ENTRY_BYTES_MAX:
        raise EntryRefused(f"an audit entry has {len(raw)} bytes, at most {ENTRY_BYTES_MAX}: name less in it")
    return raw


@lru_cache(FRAMES_REMEMBERED)
def _frame(  # noqa: PLR0913, PLR0917 - the fields of an entry
    act: tuple[str, ...], agent: str, decision: str | None, epoch: int, errors: tuple[str, ...], kind: str, labels: tuple[str, ...],
    lease: str | None, log_key: str | None, log_key_before: str | None, policy_ids: tuple[str, ...], policy_set_before_sha256: str | None, policy_set_sha256: str | None, site: Site | None, tenant: str, tool: str | None,
    tool_pin: str | None,
) -> tuple[str, str, str]:  # fmt: skip
    """Return the members of an entry that stand before its arguments, before its result and before its time."""
    place: list[Atom] = [site.program_sha256, site.start, site.end] if site else []
    return (
        _members({"act": list(act), "agent": agent}),
        _members({
            "decision": decision, "epoch": epoch, "errors": list(errors), "kind": kind, "labels": list(labels), "lease": lease,
            "log_key": log_key, "log_key_before": log_key_before,
            "policy_ids": list(policy_ids), "policy_set_before_sha256": policy_set_before_sha256, "policy_set_sha256": policy_set_sha256,
        }),
        _members({"site": place, "tenant": tenant, "tool": tool, "tool_pin": tool_pin}),
    )  # fmt: skip


def _members(fields: Mapping[str, Plain]) -> str:
    return canonical({key: value for key, value in fields.items() if value is not None and value != []})[1:-1].decode()


def decode(raw: bytes) -> Mapping[str, Plain]:
    """Return the fields of an entry.

    Raises:
        ValueError: if `canonical` did not write these bytes.
    """
    try:
        found: object = json.loads(raw)
        is_canonical = isinstance(found, dict) and canonical(cast("dict[str, Plain]", found)) == raw
    except (ValueError, RecursionError, EntryRefused) as error:
        raise ValueError(f"not an audit entry: {error}") from error
    if not is_canonical:
        raise ValueError("not an audit entry: its JSON is spelt otherwise than RFC 8785 has it")
    return cast("dict[str, Plain]", found)


def canonical(fields: Mapping[str, Plain]) -> bytes:
    """Return the RFC 8785 bytes of flat fields.

    Raises:
        EntryRefused: if a key or value is outside the subset of the module's first lines.
    """
    for key, value in fields.items():
        if not key.isascii():
            raise EntryRefused(f"{key!r} is no key of an audit entry: keys are ASCII")
        for each in value if isinstance(value, list) else (value,):
            if type(each) is int:
                _integer(key, each)
            elif type(each) not in _ATOMS:
                raise _unspeakable(key, each)
    return _utf8(_ENCODE(fields))


def _integer(key: str, value: int) -> int:
    if type(value) is not int or not -INTEGER_MAX <= value <= INTEGER_MAX:
        raise _unspeakable(key, value)
    return value


def _unspeakable(key: str, value: object) -> EntryRefused:
    return EntryRefused(
        f"{key} is {value!r:.80} in an audit entry: it holds text, booleans, null, integers below 2**53, and lists of those"
    )


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise EntryRefused(f"an audit entry holds half of a character at {error.start}: mend the text") from error
