"""A witness: remembers one tree head of each log and signs only what grew from it. It never sees an entry.

It runs where whoever owns the log's database cannot write, and makes every rewriting, fork and truncation of what it has
signed visible, even to somebody who holds the log's key. The protocol is C2SP tlog-witness v1 (`add-checkpoint`); `seen` is
ours: the tree head that it last signed, to check an export against. So is `add-key`: a log that changes its key proves the entry
that names the new one, under the tree head that the witness signed last; from then on the key before counts no more here.
"""

import fcntl
import json
import os
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import cast
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from overwinter.adapters.key_files import write_private
from overwinter.adapters.notes import (
    NOTE_BYTES_MAX,
    NoteRefused,
    PublicKey,
    Signer,
    TreeHead,
    base64_text,
    cosign,
    cosignatures,
    from_base64,
    open_note,
    parse_key,
)
from overwinter.adapters.proof_files import check_file
from overwinter.errors import HomeDamaged, OverwinterError, UsageError
from overwinter.frozen import frozen
from overwinter.merkle import EMPTY_ROOT, HASH_BYTES, is_consistent

__all__ = [
    "Answer",
    "Witness",
    "WitnessDisagrees",
    "WitnessKnowsNoKey",
    "WitnessUnreachable",
    "ask",
    "last_seen",
    "tell",
    "web",
]

PROOF_LINES_MAX = 63
"""C2SP tlog-witness: a proof cannot be longer."""
REQUEST_BYTES_MAX = 2 * NOTE_BYTES_MAX + 64 * 64
"""A note, or an entry and a note; and a proof."""
TRIES_MAX = 3
"""Requests for one cosignature: the witness may have moved on for another process of the same log."""
TIMEOUT_S = 10
SIZE_TYPE = "text/x.tlog.size"
_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})")
_SIZE = re.compile(r"([0-9]{1,19})\n?")


class WitnessDisagrees(OverwinterError):
    """A witness has signed another history of this log. Never retry: somebody rewrote the log, or restored an old copy."""


class WitnessKnowsNoKey(OverwinterError):
    """A witness does not know the key that signed a tree head. `tell` it of the keys before, or start it with this one."""


class WitnessUnreachable(OverwinterError):
    """A witness did not answer, or not as the protocol has it. A retry may help; no entry waits for it."""


@frozen
class Answer:
    """What a witness says, as HTTP has it."""

    status: int
    text: str = ""
    media_type: str = "text/plain"


@frozen
class Witness:
    """A witness with its memory in one file. Several processes may share the file."""

    place: Path
    """Origin to the note that was signed last. Whoever loses this file must take a new key: it would sign forks."""
    signer: Signer
    logs: Sequence[PublicKey]
    """Whose tree heads it signs, each by its first key, or by a later one: it follows the log to the next ones."""
    now_s: Callable[[], int]

    def add_tree_head(self, request: bytes) -> Answer:
        """Answer one `add-checkpoint`. Its check and its writing are one step for everybody who shares the file."""
        try:
            old_size, proof, note = _request(request)
        except ValueError as error:
            return Answer(status=400, text=f"{error}\n")
        origin = note.split("\n", 1)[0]
        keys = self.keys(origin)
        if not keys:
            return Answer(status=404, text=f"{origin!r:.120} is no log that this witness knows\n")
        head = _opened_by_any(note, keys)
        if head is None:
            return Answer(status=403, text=f"no key of {origin} signed this tree head\n")
        if old_size > head.size:
            return Answer(status=400, text=f"the old size {old_size} is above the new one, {head.size}\n")
        with self._held() as seen:
            answer = self._answer(seen, head, old_size, proof)
            if answer.status == HTTPStatus.OK:
                self._keep({**seen, origin: note + answer.text})
        return answer

    def keys(self, origin: str) -> list[PublicKey]:
        """Return whose signature counts for a log now: the keys it was told of at first, or what took their place."""
        after = self._successors()
        found: dict[str, PublicKey] = {}
        for key in (each for each in self.logs if each.name == origin):
            last = str(key)
            for _ in after:  # a chain is no longer than all of them
                last = after.get(last, last)
            found[last] = parse_key(last)
        return list(found.values())

    def add_key(self, request: bytes) -> Answer:
        """Answer one `add-key`, a proof file of the entry that names a log's next key."""
        try:
            text = request.decode()
            before, after = _handed_over(text)
        except (ValueError, RecursionError, UsageError) as error:
            return Answer(status=400, text=f"this proves no key of a log: {error}\n")
        known = self.keys(before.name)
        if after in known:
            return Answer(status=200)  # told before
        if before not in known:
            return Answer(status=403, text=f"{before} is not the key of a log that this witness knows\n")
        try:
            _, proved = check_file(text, before)
            check_file(text, after)
        except NoteRefused as error:
            return Answer(status=403, text=f"{error}\n")
        with self._held() as seen:
            last = _known(before.name, seen.get(before.name))
            is_last = last == (proved.head.size, proved.head.root) and proved.seq == proved.head.size - 1
            if is_last:
                keys = {**self._successors(), str(before): str(after)}
                write_private(self._keys_place, json.dumps(keys, indent=1).encode())
        text = "" if is_last else "the tree head that was signed last does not end with this entry\n"
        return Answer(status=200 if is_last else 409, text=text)

    @property
    def _keys_place(self) -> Path:
        return self.place.with_suffix(".keys")

    def _successors(self) -> Mapping[str, str]:
        """Return which key took whose place."""
        try:
            found: dict[str, str] = json.loads(self._keys_place.read_bytes())
            for each in (*found, *found.values()):
                parse_key(each)
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError, UsageError) as error:
            raise HomeDamaged(
                f"{self._keys_place} is damaged: restore it from a backup, or begin a new witness with a new key"
            ) from error
        return found

    def seen(self, origin: str) -> str | None:
        """Return the note that was signed last for a log, None if there is none."""
        with self._held() as seen:
            return seen.get(origin)

    def _answer(self, seen: Mapping[str, str], head: TreeHead, old_size: int, proof: Sequence[bytes]) -> Answer:
        size, root = _known(head.origin, seen.get(head.origin))
        if old_size != size or (size == head.size and root != head.root):
            return Answer(status=409, text=f"{size}\n", media_type=SIZE_TYPE)
        if not is_consistent(size, head.size, root, head.root, proof):
            return Answer(status=422, text=f"the proof does not lead from {size} to {head.size} entries\n")
        return Answer(status=200, text=cosign(head, self.signer, self.now_s()))

    @contextmanager
    def _held(self) -> Generator[Mapping[str, str]]:
        """Hold the file against threads and processes, and yield what is in it."""
        lock = os.open(self.place.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._read()
        finally:
            os.close(lock)

    def _read(self) -> Mapping[str, str]:
        try:
            seen: dict[str, str] = json.loads(self.place.read_bytes())
            for origin, note in seen.items():
                _known(origin, note)
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as error:
            raise HomeDamaged(
                f"{self.place} is damaged: restore it from a backup, or begin a new witness with a new key"
            ) from error
        return seen

    def _keep(self, seen: Mapping[str, str]) -> None:
        write_private(self.place, json.dumps(seen, ensure_ascii=False, indent=1).encode())


def web(witness: Witness) -> Starlette:
    """Return the witness as a web application: `POST /add-checkpoint`, `POST /add-key`, `GET /seen/ORIGIN`, `GET /key`."""

    async def answered(request: Request, by: Callable[[bytes], Answer]) -> Response:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > REQUEST_BYTES_MAX:
                return PlainTextResponse(f"a request has at most {REQUEST_BYTES_MAX} bytes\n", 413)
        answer = await run_in_threadpool(by, bytes(body))
        return Response(answer.text, answer.status, media_type=answer.media_type)

    async def add(request: Request) -> Response:
        return await answered(request, witness.add_tree_head)

    async def add_key(request: Request) -> Response:
        return await answered(request, witness.add_key)

    async def seen(request: Request) -> Response:
        note = await run_in_threadpool(witness.seen, request.path_params["origin"])
        return PlainTextResponse(note or "nothing was signed for this log\n", 200 if note else 404)

    async def key(_: Request) -> Response:
        return PlainTextResponse(f"{witness.signer.public}\n")

    return Starlette(
        routes=[
            Route("/add-checkpoint", add, methods=["POST"]),
            Route("/add-key", add_key, methods=["POST"]),
            Route("/seen/{origin:path}", seen),
            Route("/key", key),
        ]
    )


async def ask(url: str, key: PublicKey, note: str, head: TreeHead, prove: Callable[[int], Sequence[bytes]]) -> str:
    """Return a witness's line for a tree head.

    Args:
        url: of the witness, without `add-checkpoint`.
        key: the witness's.
        note: the log's signed tree head.
        head: what the note says.
        prove: returns the consistency proof from an older size to the head's.

    Raises:
        WitnessDisagrees: it has signed a longer log, or one that this log does not continue.
        WitnessUnreachable: it did not answer as the protocol has it.
    """
    status, text = 0, ""
    old_size = head.size  # the common case of an idle log asked again; else the witness names its size
    for _ in range(TRIES_MAX):
        proof = "".join(f"{base64_text(each)}\n" for each in prove(old_size))
        status, text = await _fetch(
            "POST", f"{url.rstrip('/')}/add-checkpoint", f"old {old_size}\n{proof}\n{note}".encode()
        )
        if status == HTTPStatus.OK:
            return _own_line(note, head, key, text)
        if status == HTTPStatus.UNPROCESSABLE_ENTITY:
            raise WitnessDisagrees(
                f"{key.name} signed {old_size} entries of {head.origin} that this log does not continue"
            )
        if status == HTTPStatus.FORBIDDEN:
            raise WitnessKnowsNoKey(f"{key.name} at {url} refuses the log's key: {text.strip()!r:.200}")
        if status != HTTPStatus.CONFLICT or (said := _SIZE.fullmatch(text)) is None:
            break
        size = int(said[1])
        if size > head.size:
            raise WitnessDisagrees(
                f"{key.name} has signed {size} entries of {head.origin}, and this log has {head.size}: its end was cut off, "
                "or an old copy restored"
            )
        if size == old_size:
            raise WitnessDisagrees(
                f"{key.name} has signed another tree head of {size} entries of {head.origin}: a fork"
            )
        old_size = size
    raise WitnessUnreachable(
        f"{key.name} at {url} gave no cosignature ({status}: {text!r:.120}): look at it, and retry"
    )


async def tell(url: str, proof: str) -> None:
    """Have a witness know the next key of a log.

    Args:
        url: of the witness.
        proof: file that proves the entry of the key, under the tree head that the witness signed last.

    Raises:
        WitnessKnowsNoKey: it does not take it.
        WitnessUnreachable: it did not answer.
    """
    status, text = await _fetch("POST", f"{url.rstrip('/')}/add-key", proof.encode())
    if status != HTTPStatus.OK:
        raise WitnessKnowsNoKey(
            f"the witness at {url} does not follow the log to its new key ({status}: {text.strip()!r:.200}): start it "
            "anew with `--key` of the new one, if you know that it is right"
        )


async def last_seen(url: str, origin: str) -> str | None:
    """Return the tree head that a witness last signed for a log.

    Raises:
        WitnessUnreachable: it did not answer.
    """
    status, text = await _fetch("GET", f"{url.rstrip('/')}/seen/{quote(origin)}", b"")
    if status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
        raise WitnessUnreachable(f"the witness at {url} answered {status}: look at it, and retry")
    return text if status == HTTPStatus.OK else None


async def _fetch(method: str, url: str, body: bytes) -> tuple[int, str]:
    import aiohttp  # noqa: PLC0415 - it takes 0.2 s, and many homes have no witness

    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session,
            session.request(method, url, data=body, allow_redirects=False) as response,
        ):
            raw = bytearray()
            async for part in response.content.iter_any():
                raw += part
                if len(raw) > REQUEST_BYTES_MAX:
                    break
            return response.status, raw.decode(errors="replace")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise WitnessUnreachable(
            f"no witness answers at {url} ({error or 'time is up'}): start it, or retry"
        ) from error


def _own_line(note: str, head: TreeHead, key: PublicKey, text: str) -> str:
    """Return the one line of this witness: the rest of an answer is nobody's."""
    for line in text.splitlines(keepends=True):
        try:
            if cosignatures(note + line, head, [key]):
                return line
        except NoteRefused as error:
            raise WitnessUnreachable(f"{key.name} answered with a false cosignature: {error}") from error
    raise WitnessUnreachable(f"{key.name} answered without a cosignature of its key {key.key_id().hex()}")


def _request(request: bytes) -> tuple[int, list[bytes], str]:
    above, blank, note = request.decode().partition("\n\n")
    old, *lines = above.split("\n")
    found = _OLD.fullmatch(old)
    proof = [from_base64(line) for line in lines]
    if found is None or not blank or None in proof or len(proof) > PROOF_LINES_MAX:
        raise ValueError(f"not a request: `old N`, at most {PROOF_LINES_MAX} lines of base 64, an empty line, a note")
    return int(found[1]), [each for each in proof if each is not None], note


def _handed_over(proof: str) -> tuple[PublicKey, PublicKey]:
    """Return the key before and the key after of an entry in the first line of a proof file."""
    entry: object = json.loads(proof.split("\n", 1)[0])
    fields = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
    before, after = (parse_key(str(fields.get(name))) for name in ("log_key_before", "log_key"))
    if fields.get("kind") != "key" or fields.get("errors") or before.name != after.name:
        raise ValueError("its entry hands no log over to another key")
    return before, after


def _known(origin: str, note: str | None) -> tuple[int, bytes]:
    """Return size and root of a note out of the witness's own file."""
    if note is None:
        return 0, EMPTY_ROOT
    named, size, text = note.split("\n", 3)[:3]
    root = from_base64(text)
    if named != origin or root is None or len(root) != HASH_BYTES:
        raise ValueError(f"{origin} has no tree head")
    return int(size), root


def _opened_by_any(note: str, keys: Sequence[PublicKey]) -> TreeHead | None:
    for key in keys:
        try:
            return open_note(note, key)
        except NoteRefused:
            continue
    return None
