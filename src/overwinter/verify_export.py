"""Checks an exported audit log offline: this one file, Python 3.11 and `cryptography`. It imports nothing of overwinter.

    python verify_export.py LOG.jsonl --log-key KEY [--witness-key KEY ...] [--seen NOTE ...] [--skew-s N]

It shares no code with the program that wrote the log, on purpose: read it before you trust it. Each line of an export is one
JSON value: an object is an entry; a list `[seq, part, key, content]` a body of the entry before it; a string a tree head
(C2SP tlog-checkpoint) of all entries before it, with its signatures. Keys are `name+id+base64`; take them from whom you
trust, not from whoever sent the export. `--seen` names files with tree heads that you or a witness kept: without one, nobody
can tell a log that was cut at an older tree head from one that was never longer.

Exit code 0: nothing is wrong. 1: something is, and each line says what and where. 2: it could not be checked.
"""

import argparse
import base64
import hashlib
import hmac
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["Report", "main", "verify"]

FAULTS_MAX = 20
"""Said of one log; more are counted."""
SKEW_S = 300
"""How far the clocks of log and witness may differ, and how long a cosignature may be under way."""
LOG, WITNESS = 1, 4
_ATOMS = frozenset({str, bool, int, type(None)})
_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False).encode
_INTEGER_MAX, _DIGITS_MAX = 2**53 - 1, 17


@dataclass(slots=True)
class Report:
    """What was found."""

    entries: int = 0
    heads: int = 0
    bodies: int = 0
    witnessed: int = 0
    """Entries under a cosigned tree head: whoever holds the log's key can still rewrite those after it."""
    faults: list[str] = field(default_factory=list[str])
    more_faults: int = 0
    """Beyond `FAULTS_MAX`."""

    def wrong(self, what: str) -> None:
        """Note a fault."""
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(what)
        else:
            self.more_faults += 1


@dataclass(frozen=True, slots=True)
class _Key:
    name: str
    kind: int
    raw: bytes
    key_id: bytes

    def has_signed(self, signature: bytes, text: str) -> bool:
        """Whether it did."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, text.encode())
        except (InvalidSignature, ValueError):
            return False
        return True


class _Misspelt(ValueError):
    """A tree head that cannot be read."""


def verify(
    lines: Iterable[bytes],
    log_key: str,
    witness_keys: Sequence[str] = (),
    seen: Sequence[str] = (),
    skew_s: int = SKEW_S,
) -> Report:
    """Return what is wrong with an export.

    Args:
        lines: of the export, in order, each with or without its end.
        log_key: whose signature each tree head must have.
        witness_keys: whose cosignatures count; each must have signed a tree head.
        seen: signed tree heads that were kept elsewhere. The log must contain them.
        skew_s: by how many seconds clocks may differ.

    Raises:
        ValueError: if a key or a kept tree head cannot be read.
    """
    check = _Check(_key(log_key, LOG), [_key(each, WITNESS) for each in witness_keys], skew_s)
    for text in seen:
        check.remember(text)
    for number, line in enumerate(lines, 1):
        check.take(number, line.rstrip(b"\n"))
    check.end()
    return check.report


class _Check:
    """A log read once, from its first entry to its last."""

    def __init__(self, log: _Key, witnesses: list[_Key], skew_s: int) -> None:
        self.report = Report()
        decoder = json.JSONDecoder(parse_int=_integer, parse_float=_no_number, parse_constant=_no_number)
        self.decode = decoder.decode
        self.log, self.witnesses, self.skew_ms = log, witnesses, skew_s * 1_000
        self.seen: dict[int, list[str]] = {}
        """Size to the tree heads of that size that were kept elsewhere."""
        self.edge: list[bytes] = []
        """Roots of the full subtrees, largest first: RFC 6962 2.1."""
        self.expected = 0
        self.entry: dict[str, Any] = {}
        self.ts_ms = 0
        self.head_size = 0
        self.is_forked = False
        self.cosigned_ms: dict[str, int] = {}
        """Witness to the time of its last cosignature."""
        self.ts_min_ms = 0
        """No entry from here on can be older: a witness had signed what is before it."""

    def remember(self, text: str) -> None:
        self.seen.setdefault(_opened(text, self.log)[0], []).append(text)

    def take(self, number: int, line: bytes) -> None:
        try:
            text = line.decode()
            value: object = self.decode(text)
        except (ValueError, RecursionError) as error:
            self.report.wrong(f"line {number}: no JSON of an export: {error}")
            return
        match value:
            case dict():
                self.take_entry(text, line, cast("dict[str, Any]", value))
            case str():
                self.take_head(value)
            case [int(seq), str(part), str(key), str(content)]:
                self.take_body(seq, part, key, content)
            case _:
                self.report.wrong(f"line {number}: neither an entry, a body nor a tree head")

    def take_entry(self, text: str, line: bytes, entry: dict[str, Any]) -> None:
        place = f"entry {self.report.entries}"
        if not _is_canonical(text, entry):
            self.report.wrong(f"{place}: spelt otherwise than RFC 8785 has it")
        if entry.get("v") != 1:
            self.report.wrong(f"{place}: of version {entry.get('v')!r}, this script knows 1")
        seq, ts_ms = entry.get("seq"), entry.get("ts")
        if seq != self.expected:
            self.report.wrong(f"{place}: says it is number {seq!r} where {self.expected} is due")
        if type(ts_ms) is not int:
            self.report.wrong(f"{place}: has no time")
            ts_ms = self.ts_ms
        if ts_ms < self.ts_ms:
            self.report.wrong(f"{place}: its time {ts_ms} is before its predecessor's, {self.ts_ms}")
        if ts_ms < self.ts_min_ms:
            self.report.wrong(f"{place}: its time {ts_ms} is before a witness signed what precedes it: backdated")
        self.expected = seq + 1 if type(seq) is int else self.expected + 1
        self.ts_ms, self.entry = ts_ms, entry
        self.append(hashlib.sha256(b"\0" + line).digest())

    def append(self, above: bytes) -> None:
        bits = self.report.entries
        while bits & 1:
            above = hashlib.sha256(b"\1" + self.edge.pop() + above).digest()
            bits >>= 1
        self.edge.append(above)
        self.report.entries += 1
        for text in self.seen.get(self.report.entries, ()):
            self.compare(text)

    def compare(self, text: str) -> None:
        """Hold a kept tree head against the entries up to its own size, and take its witnesses' word for their times."""
        size, root, lines = _opened(text, self.log)
        if root != self.root():
            self.report.wrong(f"entry {size - 1}: up to here it is not the log that was seen elsewhere")
            return
        for witness in self.witnesses:
            self.take_cosignatures(size, text, lines, witness)

    def root(self) -> bytes:
        if not self.edge:
            return hashlib.sha256(b"").digest()
        *rest, root = self.edge
        for left in reversed(rest):
            root = hashlib.sha256(b"\1" + left + root).digest()
        return root

    def take_head(self, text: str) -> None:
        self.report.heads += 1
        try:
            size, root, lines = _opened(text, self.log)
        except _Misspelt as error:
            self.report.wrong(f"tree head after entry {self.report.entries - 1}: {error}")
            return
        if size != self.report.entries:
            self.report.wrong(f"tree head {size}: stands after {self.report.entries} entries")
            return
        before, self.head_size = self.head_size, size
        if root != self.root():
            if not self.is_forked:  # every later one differs as well
                self.report.wrong(
                    f"tree head {size}: among entries {before} to {size - 1} are others than it was signed over"
                )
            self.is_forked = True
            return
        for witness in self.witnesses:
            self.take_cosignatures(size, text, lines, witness)

    def take_cosignatures(self, size: int, text: str, lines: list[str], witness: _Key) -> None:
        signed = text[: text.index("\n\n") + 1]
        for signature in _signatures(lines, witness):
            time_s = int.from_bytes(signature[:8])
            if not witness.has_signed(signature[8:], f"cosignature/v1\ntime {time_s}\n{signed}"):
                self.report.wrong(f"tree head {size}: the cosignature of {witness.name} is false")
                continue
            at_ms = time_s * 1_000
            if self.ts_ms > at_ms + 999 + self.skew_ms:
                self.report.wrong(f"tree head {size}: its last entry is later than {witness.name} signed it: postdated")
            if at_ms + self.skew_ms < self.cosigned_ms.get(witness.name, 0) and size > self.report.witnessed:
                self.report.wrong(f"tree head {size}: {witness.name} signed it before an earlier one")
            self.cosigned_ms[witness.name] = max(at_ms, self.cosigned_ms.get(witness.name, 0))
            self.ts_min_ms = max(self.ts_min_ms, at_ms - self.skew_ms)
            self.report.witnessed = size

    def take_body(self, seq: int, part: str, key: str, content: str) -> None:
        self.report.bodies += 1
        if seq != self.entry.get("seq") or part not in ("args", "result"):
            self.report.wrong(f"body {part!r:.20} of entry {seq}: does not stand after it")
            return
        try:
            raw_key, raw = bytes.fromhex(key), base64.b64decode(content, validate=True)
            is_spelt = (raw_key.hex(), base64.b64encode(raw).decode()) == (key, content)
        except ValueError:
            raw_key, raw, is_spelt = b"", b"", False
        if not is_spelt or hmac.digest(raw_key, raw, "sha256").hex() != self.entry.get(f"{part}_hmac"):
            self.report.wrong(f"body {part} of entry {seq}: is not the one that the entry speaks of")

    def end(self) -> None:
        if self.head_size != self.report.entries:
            self.report.wrong(f"the last tree head covers {self.head_size} of {self.report.entries} entries")
        for size in sorted(size for size in self.seen if size > self.report.entries):
            self.report.wrong(
                f"the log was seen with {size} entries and has {self.report.entries}: its end was cut off"
            )
        for witness in self.witnesses:
            if witness.name not in self.cosigned_ms:
                self.report.wrong(f"no tree head of it is cosigned by {witness.name}")


def _is_canonical(text: str, entry: dict[str, Any]) -> bool:
    """Whether it is flat and spelt as RFC 8785 has it; numbers were looked at as they were read."""
    for value in entry.values():
        kind = cast("type[Any]", type(value))
        if kind not in _ATOMS and (kind is not list or not _ATOMS.issuperset(map(type, value))):
            return False
    return _ENCODE(entry) == text and all(map(str.isascii, entry))


def _integer(text: str) -> int:
    if len(text) > _DIGITS_MAX or not -_INTEGER_MAX <= int(text) <= _INTEGER_MAX:
        raise ValueError(f"{text} is not below 2**53")
    return int(text)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no integer")


def _key(text: str, kind: int) -> _Key:
    name, key_id, encoded = [*text.strip().split("+", 2), "", ""][:3]
    try:
        raw = base64.b64decode(encoded, validate=True)
    except ValueError:
        raw = b""
    expected = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4]
    if len(raw) != 33 or raw[0] != kind or expected.hex() != key_id:  # noqa: PLR2004 - C2SP: type, then 32 bytes
        whose = "a log" if kind == LOG else "a witness"
        raise ValueError(f"{text!r:.200} is no key of {whose}: it has the form name+id+base64")
    return _Key(name, kind, raw[1:], expected)


def _opened(note: str, log: _Key) -> tuple[int, bytes, list[str]]:
    """Return size, root and lines of signatures of a tree head that the log signed."""
    text, _, below = note.partition("\n\n")
    origin, size, root, *more = [*text.split("\n"), "", ""]
    lines = below.split("\n")
    try:
        raw = base64.b64decode(root, validate=True)
        is_spelt = f"{int(size)}\n{base64.b64encode(raw).decode()}" == f"{size}\n{root}" and len(raw) == 32  # noqa: PLR2004 - SHA-256
    except ValueError:
        raw, is_spelt = b"", False
    if not is_spelt or origin != log.name or any(more) or lines[-1]:
        raise _Misspelt(f"is no tree head of {log.name}: {note!r:.100}")
    signed = list(_signatures(lines[:-1], log))
    if not signed or not all(log.has_signed(each, f"{text}\n") for each in signed):
        raise _Misspelt(f"the tree head {size} is not signed by the key of {log.name}")
    return int(size), raw, lines[:-1]


def _signatures(lines: list[str], key: _Key) -> Iterable[bytes]:
    for line in lines:
        dash, name, encoded = [*line.split(" "), "", ""][:3]
        try:
            blob = base64.b64decode(encoded, validate=True)
        except ValueError:
            continue
        if dash == "\u2014" and name == key.name and blob[:4] == key.key_id:
            yield blob[4:]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the file that the command line names."""
    parser = argparse.ArgumentParser(
        description="Check an exported audit log offline.", epilog="The file's head says more."
    )
    parser.add_argument("log", type=Path, help="the export")
    parser.add_argument("--log-key", required=True, help="name+id+base64 of the log")
    parser.add_argument(
        "--witness-key", action="append", default=[], help="name+id+base64 of a witness; may be repeated"
    )
    parser.add_argument(
        "--seen", action="append", default=[], type=Path, help="a tree head kept elsewhere; may be repeated"
    )
    parser.add_argument("--skew-s", type=int, default=SKEW_S, help="seconds by which clocks may differ")
    chosen = parser.parse_args(arguments)
    try:
        seen = [each.read_text(encoding="utf-8") for each in chosen.seen]
        with chosen.log.open("rb") as lines:
            report = verify(lines, chosen.log_key, chosen.witness_key, seen, chosen.skew_s)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"cannot check: {error}\n")
        return 2
    for fault in report.faults:
        sys.stdout.write(f"WRONG {fault}\n")
    if report.more_faults:
        sys.stdout.write(f"WRONG and {report.more_faults} more\n")
    sys.stdout.write(
        f"{report.entries} entries, {report.heads} tree heads, {report.bodies} bodies; {report.witnessed} entries are "
        f"under a witness's signature, {report.entries - report.witnessed} rest on the log's key alone\n"
    )
    if not seen:
        sys.stdout.write("no tree head kept elsewhere was given: a log cut at an older tree head would not show\n")
    return int(bool(report.faults))


if __name__ == "__main__":
    sys.exit(main())
