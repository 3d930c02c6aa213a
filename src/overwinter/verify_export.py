"""Checks an exported audit log offline: this one file, Python 3.11 and `cryptography`. It imports nothing of overwinter.

    python verify_export.py LOG.jsonl --log-key KEY [--log-key KEY ...] [--witness-key KEY ...] [--seen NOTE ...] [--skew-s N]

It shares no code with the program that wrote the log, on purpose: read it before you trust it. Each line of an export is one
JSON value: an object is an entry; a list `[seq, part, key, content]` a body of the entry before it; a string a tree head
(C2SP tlog-checkpoint) of all entries before it, with its signatures. Keys are `name+id+base64`; take them from whom you
trust, not from whoever sent the export.

A log changes its key by an entry of kind `key`: the tree head that ends with it is signed by the key before and by the new one,
every later one by the new one. So one key that you trust, whichever it was, is enough for the whole log; it must have been the
log's, and the newest one that you know is the best: whoever stole an older key can end the log before it was changed. An entry
of kind `key` with `errors: ["lost", why]` is a break: nobody had the key before, and a person began anew. What follows is
believed only with a key of after the break, and the break is told.

`--seen` names files with tree heads that you or a witness kept: without one, nobody
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
    keys: list[str] = field(default_factory=list[str])
    """Where the log changed its key, and to which."""
    breaks: list[str] = field(default_factory=list[str])
    """Where a person began anew under a key that the one before did not sign for: who, and why. No fault, and never to be left out."""
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


@dataclass(frozen=True, slots=True)
class _Note:
    size: int
    root: bytes
    text: str
    lines: list[str]
    """Of signatures."""

    def has_of(self, key: _Key) -> bool:
        """Whether a key has signed it."""
        signed = list(_signatures(self.lines, key))
        return bool(signed) and all(key.has_signed(each, self.text) for each in signed)


class _Misspelt(ValueError):
    """A tree head that cannot be read."""


def verify(
    lines: Iterable[bytes],
    log_key: str | Sequence[str],
    witness_keys: Sequence[str] = (),
    seen: Sequence[str] = (),
    skew_s: int = SKEW_S,
) -> Report:
    """Return what is wrong with an export.

    Args:
        lines: of the export, in order, each with or without its end.
        log_key: of the log, first or later; or several. Each must have been its key, and each tree head must have the
            signature of the key of its time, which an entry names under the signature of the one before.
        witness_keys: whose cosignatures count; each must have signed a tree head.
        seen: signed tree heads that were kept elsewhere. The log must contain them.
        skew_s: by how many seconds clocks may differ.

    Raises:
        ValueError: if a key or a kept tree head cannot be read.
    """
    texts = [log_key] if isinstance(log_key, str) else log_key
    check = _Check([_key(each, LOG) for each in texts], [_key(each, WITNESS) for each in witness_keys], skew_s)
    for text in seen:
        check.remember(text)
    for number, line in enumerate(lines, 1):
        check.take(number, line.rstrip(b"\n"))
    check.end()
    return check.report


class _Check:
    """A log read once, from its first entry to its last."""

    def __init__(self, trusted: list[_Key], witnesses: list[_Key], skew_s: int) -> None:
        self.report = Report()
        self.keys = _Keys(trusted, self.report)
        decoder = json.JSONDecoder(parse_int=_integer, parse_float=_no_number, parse_constant=_no_number)
        self.decode = decoder.decode
        self.origin, self.witnesses, self.skew_ms = trusted[0].name, witnesses, skew_s * 1_000
        self.seen: dict[int, list[_Note]] = {}
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
        note = _parsed(text, self.origin)
        self.seen.setdefault(note.size, []).append(note)

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
        self.keys.go_on(self.report.entries, entry)
        self.append(hashlib.sha256(b"\0" + line).digest())

    def append(self, above: bytes) -> None:
        bits = self.report.entries
        while bits & 1:
            above = hashlib.sha256(b"\1" + self.edge.pop() + above).digest()
            bits >>= 1
        self.edge.append(above)
        self.report.entries += 1
        for note in self.seen.get(self.report.entries, ()):
            self.compare(note)

    def compare(self, note: _Note) -> None:
        """Hold a kept tree head against the entries up to its own size, and take its witnesses' word for their times."""
        if note.root != self.root():
            self.report.wrong(f"entry {note.size - 1}: up to here it is not the log that was seen elsewhere")
            return
        self.keys.take(note, is_kept=True)
        for witness in self.witnesses:
            self.take_cosignatures(note, witness)

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
            note = _parsed(text, self.origin)
        except _Misspelt as error:
            self.report.wrong(f"tree head after entry {self.report.entries - 1}: {error}")
            return
        size = note.size
        if size != self.report.entries:
            self.report.wrong(f"tree head {size}: stands after {self.report.entries} entries")
            return
        before, self.head_size = self.head_size, size
        if not self.keys.take(note):
            return
        if note.root != self.root():
            if not self.is_forked:  # every later one differs as well
                self.report.wrong(
                    f"tree head {size}: among entries {before} to {size - 1} are others than it was signed over"
                )
            self.is_forked = True
            return
        for witness in self.witnesses:
            self.take_cosignatures(note, witness)

    def take_cosignatures(self, note: _Note, witness: _Key) -> None:
        size = note.size
        for signature in _signatures(note.lines, witness):
            time_s = int.from_bytes(signature[:8])
            if not witness.has_signed(signature[8:], f"cosignature/v1\ntime {time_s}\n{note.text}"):
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
            raw_key = bytes.fromhex(key)
        except ValueError:
            raw_key = b""
        raw = _from_base64(content)
        if (
            raw is None
            or raw_key.hex() != key
            or hmac.digest(raw_key, raw, "sha256").hex() != self.entry.get(f"{part}_hmac")
        ):
            self.report.wrong(f"body {part} of entry {seq}: is not the one that the entry speaks of")

    def end(self) -> None:
        if self.head_size != self.report.entries:
            self.report.wrong(f"the last tree head covers {self.head_size} of {self.report.entries} entries")
        self.keys.end()
        for size in sorted(size for size in self.seen if size > self.report.entries):
            self.report.wrong(
                f"the log was seen with {size} entries and has {self.report.entries}: its end was cut off"
            )
        for witness in self.witnesses:
            if witness.name not in self.cosigned_ms:
                self.report.wrong(f"no tree head of it is cosigned by {witness.name}")


class _Keys:
    """The keys of a log, one after the other."""

    def __init__(self, trusted: list[_Key], report: Report) -> None:
        self.report, self.trusted = report, trusted
        self.now: _Key | None = None
        """Whose signature is due; None: not known yet, for only a later one is trusted."""
        self.before: _Key | None = None
        """Who must have signed the tree head that ends with the entry of a new key, too; None: nobody."""
        self.turn = 0
        """Size of that tree head; 0: it was there, or there was none to come."""
        self.waiting: list[_Note] = []
        """Tree heads of before the first key was known."""
        self.found: set[bytes] = set()
        """Keys that were the log's."""
        self.is_trusted = False
        """Whether a trusted key was the log's since the last break."""

    def take(self, note: _Note, *, is_kept: bool = False) -> bool:
        """Whether a tree head has the signatures that are due; say so if not."""
        if self.now is None:
            self.now = next((each for each in self.trusted if note.has_of(each)), None)
            if self.now is None:
                self.waiting.append(note)
                return True
        due = [self.now] if note.size != self.turn else [key for key in (self.before, self.now) if key is not None]
        if is_kept and note.size == self.turn:
            due = due[:1]
        missing = [key for key in due if not note.has_of(key)]
        if missing:
            whose = "a tree head kept elsewhere" if is_kept else "the tree head"
            self.report.wrong(f"{whose} {note.size} is not signed by {_spelt(missing[0])}, the log's key of its time")
            return False
        if not is_kept:
            self.turn = 0 if note.size == self.turn else self.turn
            self.found.update(key.raw for key in due)
            self.is_trusted = self.is_trusted or self.now in self.trusted or (len(due) > 1 and due[0] in self.trusted)
        return True

    def go_on(self, seq: int, entry: dict[str, Any]) -> None:
        """Have a new key sign from here on, if an entry says so."""
        if self.turn:
            self.report.wrong(f"entry {self.turn - 1}: names a new key, and no tree head ends with it")
            self.turn = 0
        if entry.get("kind") != "key":
            return
        try:
            after = _key(str(entry.get("log_key")), LOG)
            before = _key(str(entry["log_key_before"]), LOG) if "log_key_before" in entry else None
        except ValueError as error:
            self.report.wrong(f"entry {seq}: {error}")
            return
        act, errors = entry.get("act"), entry.get("errors")
        who = str(cast("list[Any]", act)[-1]) if isinstance(act, list) and act else "nobody"
        lost = cast("list[Any]", errors) if isinstance(errors, list) and errors[:1] == ["lost"] else None
        self.name(seq, before, is_break=lost is not None)
        if after.name != self.trusted[0].name:
            self.report.wrong(f"entry {seq}: {_spelt(after)} is the key of another log")
        if lost is None:
            self.report.keys.append(f"entry {seq}: {who} changed the log's key, from here on it is {_spelt(after)}")
        else:
            why = str(lost[1]) if len(lost) > 1 else "no reason"
            self.report.breaks.append(
                f"entry {seq}: {who} accepted that the key before was lost, and began anew with {_spelt(after)}: {why}"
            )
            self.is_trusted = False
        self.before, self.now, self.turn = None if lost is not None else before, after, seq + 1

    def name(self, seq: int, before: _Key | None, *, is_break: bool) -> None:
        """Hold what an entry says of the key before it against who has signed."""
        waiting, self.waiting = self.waiting, []
        if before is None and not is_break:
            self.report.wrong(f"entry {seq}: does not name the key before")
        if self.now is not None and before is not None and before != self.now:
            self.report.wrong(f"entry {seq}: names {_spelt(before)} as the key before, and it was {_spelt(self.now)}")
        if waiting and before is None:
            self.report.breaks.append(
                f"entry {seq}: nobody knows the key before; {len(waiting)} signatures were not checked"
            )
        if self.now is None and before is not None:
            self.now = before
            for note in waiting:
                self.take(note)

    def end(self) -> None:
        """Say which keys are missing."""
        if self.waiting:
            sizes = f"{self.waiting[0].size} to {self.waiting[-1].size}"
            self.report.wrong(
                f"the tree heads {sizes} are not signed by the key of {self.trusted[0].name} that is trusted"
            )
        if self.turn:
            self.report.wrong(f"entry {self.turn - 1}: names a new key, and no tree head ends with it")
        if not self.report.heads:
            return
        for each in self.trusted:
            if each.raw not in self.found:
                self.report.wrong(f"{_spelt(each)} was never its key: it ends before that, or it is another log")
        if self.report.breaks and not self.is_trusted:
            self.report.wrong(
                "it goes on under a key that the one before did not sign for, and that was not given as trusted"
            )


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


def _from_base64(text: str) -> bytes | None:
    """Return the bytes of base 64 in its one spelling, else None: a last letter has bits that no byte needs."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return raw if base64.b64encode(raw).decode() == text else None


def _key(text: str, kind: int) -> _Key:
    name, key_id, encoded = [*text.strip().split("+", 2), "", ""][:3]
    raw = _from_base64(encoded) or b""
    expected = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4]
    if len(raw) != 33 or raw[0] != kind or expected.hex() != key_id:  # noqa: PLR2004 - C2SP: type, then 32 bytes
        whose = "a log" if kind == LOG else "a witness"
        raise ValueError(f"{text!r:.200} is no key of {whose}: it has the form name+id+base64")
    return _Key(name, kind, raw[1:], expected)


def _parsed(note: str, origin: str) -> _Note:
    """Return a tree head, whoever signed it."""
    text, _, below = note.partition("\n\n")
    named, size, root, *more = [*text.split("\n"), "", ""]
    lines = below.split("\n")
    raw = _from_base64(root) or b""
    try:
        is_spelt = str(int(size)) == size and len(raw) == 32  # noqa: PLR2004 - SHA-256
    except ValueError:
        is_spelt = False
    if not is_spelt or named != origin or any(more) or lines[-1]:
        raise _Misspelt(f"is no tree head of {origin}: {note!r:.100}")
    return _Note(int(size), raw, f"{text}\n", lines[:-1])


def _spelt(key: _Key) -> str:
    return f"{key.name}+{key.key_id.hex()}+{base64.b64encode(bytes([key.kind]) + key.raw).decode()}"


def _signatures(lines: list[str], key: _Key) -> Iterable[bytes]:
    for line in lines:
        dash, name, encoded = [*line.split(" "), "", ""][:3]
        blob = _from_base64(encoded) or b""
        if dash == "\u2014" and name == key.name and blob[:4] == key.key_id:
            yield blob[4:]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the file that the command line names."""
    parser = argparse.ArgumentParser(
        description="Check an exported audit log offline.", epilog="The file's head says more."
    )
    parser.add_argument("log", type=Path, help="the export")
    parser.add_argument(
        "--log-key",
        required=True,
        action="append",
        help="name+id+base64 of the log, the newest you know; may be repeated",
    )
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
    for each in report.keys:
        sys.stdout.write(f"KEY {each}\n")
    for each in report.breaks:
        sys.stdout.write(f"BREAK {each}\n")
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
