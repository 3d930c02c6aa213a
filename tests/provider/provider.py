"""Rules in, answers out, and a bill of both. Knows nothing of sockets."""

import asyncio
import hashlib
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from . import chat, gemini, messages, responses
from .plan import TOKEN_BYTES, Charge, Event, Json, Plan, Rule, Tokens, named

CACHE_BLOCK_BYTES = 128 * TOKEN_BYTES
"""Prompt caches match whole blocks of a prefix; OpenAI documents steps of 128 tokens."""
CACHE_MIN_TOKENS = 1024
CALLS_KEPT_MAX = 20_000
BODIES_KEPT_MAX = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One wire format: how it says an answer and how it says a failure."""

    name: str
    prompt: tuple[str, ...]
    """Request fields that make the cached prefix, in the order the provider reads them."""
    limit: tuple[str, ...]
    whole: Callable[[Plan], Json]
    events: Callable[[Plan], Iterator[Event]]
    error: Callable[[int, str, str], Json]
    error_event: Callable[[str], bytes]
    id_header: str
    ping: bytes = b": keep-alive\n\n"
    """Written between events when there is noise."""


CHAT = Dialect(
    name="chat", prompt=("tools", "messages"), limit=("max_completion_tokens", "max_tokens"), whole=chat.whole,
    events=chat.events, error=chat.error, error_event=chat.error_event, id_header="x-request-id",
)  # fmt: skip
RESPONSES = Dialect(
    name="responses", prompt=("instructions", "tools", "input"), limit=("max_output_tokens",), whole=responses.whole,
    events=responses.events, error=chat.error, error_event=responses.error_event, id_header="x-request-id",
)  # fmt: skip
MESSAGES = Dialect(
    name="messages", prompt=("tools", "system", "messages"), limit=("max_tokens",), whole=messages.whole,
    events=messages.events, error=messages.error, error_event=messages.error_event, id_header="request-id", ping=messages.PING,
)  # fmt: skip
GEMINI = Dialect(
    name="gemini", prompt=("tools", "systemInstruction", "contents"), limit=("maxOutputTokens",), whole=gemini.whole,
    events=gemini.events, error=gemini.error, error_event=gemini.error_event, id_header="x-request-id",
)  # fmt: skip
_GEMINI_PATH = re.compile(r"/v1(?:beta|alpha)?/models/([^:]+):(\w+)")


def dialect_of(path: str) -> Dialect | None:
    """Return the wire format of a path that generates."""
    match path:
        case "/v1/chat/completions":
            return CHAT
        case "/v1/responses":
            return RESPONSES
        case "/v1/messages":
            return MESSAGES
        case _:
            found = _GEMINI_PATH.fullmatch(path)
            return GEMINI if found and found[2] in ("generateContent", "streamGenerateContent") else None


@dataclass(slots=True, kw_only=True)
class Background:
    """An answer that is made while nobody waits for it."""

    plan: Plan
    line: Charge
    polls_left: int
    status: str = "queued"


@lru_cache(maxsize=512)
def render_whole(name: str, plan: Plan) -> bytes:
    return json.dumps(_BY_NAME[name].whole(plan), ensure_ascii=False).encode()


@lru_cache(maxsize=512)
def render_events(name: str, plan: Plan) -> tuple[Event, ...]:
    return tuple(_BY_NAME[name].events(plan))


_BY_NAME = {each.name: each for each in (CHAT, RESPONSES, MESSAGES, GEMINI)}


class Provider:
    """What a provider remembers."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.connections = 0
        """Made to it, ever."""
        self.forget()

    def forget(self) -> None:
        self.rules: list[tuple[Rule, int]] = []
        self.calls: deque[Charge] = deque(maxlen=CALLS_KEPT_MAX)
        self.bodies: deque[bytes] = deque(maxlen=BODIES_KEPT_MAX)
        """As received, of the last calls."""
        self.asides: list[str] = []
        """Paths of what was asked beside calls, and is on no bill."""
        self.background: dict[str, Background] = {}
        self.prefixes: set[bytes] = set()
        self.calls_count = 0

    def script(self, *rules: Rule) -> None:
        self.rules += [(rule, rule.times) for rule in rules]

    def release(self) -> None:
        """End every wait that a rule made."""
        self.released.set()
        self.released = asyncio.Event()

    def take_rule(self, path: str, body: bytes) -> Rule:
        """Return the first rule that fits and use it up by one, or a plain answer."""
        for position, (rule, left) in enumerate(self.rules):
            if rule.when in path or rule.when.encode() in body:
                self.rules[position : position + 1] = [(rule, left - 1)] if left > 1 else []
                return rule
        return Rule()

    def aside(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[Charge, Rule]:
        """Return a line that is on no bill, and the first rule that names the path."""
        self.asides.append(path)
        line = Charge(
            id=f"aside_{len(self.asides)}", path=path, model="", is_stream=False, body_sha256=hashlib.sha256(body).hexdigest(),
            headers=headers,
        )  # fmt: skip
        if any(rule.when and rule.when in path for rule, _ in self.rules):
            return line, self.take_rule(path, b"")
        return line, Rule()

    def charge(self, path: str, body: bytes, request: Json, headers: dict[str, str]) -> Charge:
        self.calls_count += 1
        found = _GEMINI_PATH.fullmatch(path)
        line = Charge(
            id=f"req_{self.calls_count}",
            path=path,
            model=found[1] if found else str(request.get("model", "")),
            is_stream=bool(request.get("stream")) or "stream" in path,
            body_sha256=hashlib.sha256(body).hexdigest(),
            headers=headers,
        )
        self.calls.append(line)
        self.bodies.append(body)
        return line

    def plan(self, dialect: Dialect, line: Charge, request: Json, body: bytes, rule: Rule) -> Plan:
        limits = request.get("generationConfig") or {} if dialect is GEMINI else request
        limit = next((int(limits[name]) for name in dialect.limit if limits.get(name)), 1 << 30)
        text = [f"tok{i} " for i in range(rule.tokens)]
        if spoken := rule.arguments if rule.tool else rule.text:
            size = rule.piece_characters
            text = [spoken[i : i + size] for i in range(0, len(spoken), size)]
        thinking = min(rule.thinking_tokens, limit)
        pieces = tuple(text[: limit - thinking])
        choices = int(request.get("n") or 1) if dialect is CHAT else 1
        options: Json = request.get("stream_options") or {}
        output = len(pieces) * choices + thinking
        says = {"negative_usage": "negative", "no_usage": "nothing"}.get(rule.fault, "truth")
        return Plan(
            id=line.id if request.get("background") else "mock",
            model=line.model,
            pieces=pieces,
            tool=rule.tool,
            tokens=self.count(dialect, request, body, output, thinking),
            says=says,  # pyright: ignore[reportArgumentType] - its three words are above
            is_clipped=len(pieces) < len(text),
            tier=rule.tier or tier_asked(dialect, request),
            speed=str(request.get("speed") or ""),
            geo=rule.geo or str(request.get("inference_geo") or ""),
            wants_usage=bool(options.get("include_usage")),
            choices=choices,
            searches=rule.searches,
            compaction_tokens=rule.compaction_tokens,
        )

    def count(self, dialect: Dialect, request: Json, body: bytes, output: int, thinking: int) -> Tokens:
        """Count the prompt and play the provider's prompt cache."""
        is_marked = b'"cache_control"' in body
        if is_marked:  # the marks move from turn to turn and are not part of the prefix
            request = json.loads(body, object_hook=without_mark)
        prompt = prompt_bytes(dialect, request)
        total = -(-len(prompt) // TOKEN_BYTES)
        if total < CACHE_MIN_TOKENS or (dialect is MESSAGES and not is_marked):
            return Tokens(fresh=total, output=output, thinking=thinking)
        read, blocks = (n // TOKEN_BYTES for n in self.remember(prompt))
        written, is_long = (blocks - read if is_marked else 0), b'"1h"' in body
        by_life = {"written_1h" if is_long else "written_5m": written}
        return Tokens(fresh=total - read - written, read=read, output=output, thinking=thinking, **by_life)

    def remember(self, prompt: bytes) -> tuple[int, int]:
        """Return the bytes of known prefix and of all whole blocks; know them all from now on."""
        rolling, known, is_known, end = hashlib.blake2b(digest_size=16), 0, True, 0
        for end in range(CACHE_BLOCK_BYTES, len(prompt) + 1, CACHE_BLOCK_BYTES):
            rolling.update(prompt[end - CACHE_BLOCK_BYTES : end])
            is_known = is_known and rolling.digest() in self.prefixes
            known = end if is_known else known
            self.prefixes.add(rolling.digest())
        return known, end

    # --- Background answers ------------------------------------------------------------------------------------------

    def begin_background(self, plan: Plan, line: Charge, rule: Rule) -> Json:
        line.end = "queued"
        answer = responses.whole(plan, "queued")
        self.background[answer["id"]] = Background(plan=plan, line=line, polls_left=rule.polls)
        return answer | {"background": True}

    def poll(self, answer_id: str) -> Background | None:
        """Return a background answer as it is now; each time it is asked for it comes nearer to its end."""
        found = self.background.get(answer_id)
        if found is not None and found.status in ("queued", "in_progress"):
            found.polls_left -= 1
            found.status = "in_progress" if found.polls_left >= 0 else ""
            if not found.status:
                self.settle(found.line, found.plan, found.plan.tokens.output)
        return found

    def cancel(self, answer_id: str) -> Background | None:
        """End a background answer: what it has used by then is billed and never said."""
        found = self.background.get(answer_id)
        if found is not None and found.status in ("queued", "in_progress"):
            found.status = "cancelled"
            self.settle(found.line, found.plan, found.plan.tokens.output // 2)
            found.line.end, found.line.is_usage_sent = "cancelled", False
        return found

    def stream_of(self, found: Background, after: int) -> list[bytes]:
        """Return the events of a background answer from a number on."""
        self.settle(found.line, found.plan, found.plan.tokens.output)
        found.status = ""
        every = [each.wire for each in render_events("responses", found.plan)]
        return every[after + 1 :]

    # --- The bill ----------------------------------------------------------------------------------------------------

    def settle(self, line: Charge, plan: Plan, output: int) -> None:
        """Write down a whole answer."""
        line.prompt, line.output_tokens, line.end = plan.tokens, output, "complete"
        line.thinking_tokens, line.tier = plan.tokens.thinking, plan.speed or plan.tier
        line.searches, line.compaction_tokens = plan.searches, plan.compaction_tokens
        line.is_usage_sent = plan.says == "truth" and (
            not line.is_stream or "chat" not in line.path or plan.wants_usage
        )

    def bill(self) -> Json:
        totals: Counter[str] = Counter()
        for line in self.calls:
            for name in ("fresh", "read", "written_5m", "written_1h"):
                totals[name] += getattr(line.prompt, name)
            totals["output"] += line.output_tokens
            totals[f"end_{line.end}"] += 1
        totals["calls_forgotten"] = self.calls_count - len(self.calls)
        return {"totals": totals, "calls": [asdict(line) for line in self.calls]}


def tier_asked(dialect: Dialect, request: Mapping[str, Any]) -> str:
    word = str(request.get("service_tier") or "")
    return "" if word in ("auto", "default", "standard_only") or dialect is GEMINI else word


def prompt_bytes(dialect: Dialect, request: Json) -> bytes:
    return json.dumps([request.get(name) for name in dialect.prompt], ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )


def without_mark(node: Json) -> Json:
    return {key: value for key, value in node.items() if key != "cache_control"}


def endless_event(dialect: Dialect, plan: Plan) -> bytes:
    """Return a content event that can be written for ever."""
    talking = replace(plan, pieces=("more ",), tool="", says="nothing", wants_usage=False)
    match dialect.name:
        case "messages":
            said = {"type": "text_delta", "text": "more "}
            return named({"type": "content_block_delta", "index": 0, "delta": said})
        case "responses":
            place = {"item_id": "msg_mock", "output_index": 0, "content_index": 0, "logprobs": [], "sequence_number": 9}
            return named({"type": "response.output_text.delta", **place, "delta": "more "})
        case _:
            return render_events(dialect.name, talking)[1 if dialect is CHAT else 0].wire.replace(b'"STOP"', b"null")
