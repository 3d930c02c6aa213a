"""What decides an answer: the rule that fits, the request, what its prompt costs; and the line on the bill."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]
Fault = Literal[
    "none", "status", "slow_first", "stall", "reset", "cut", "error_event", "error_body", "html", "gzip_bomb",
    "endless", "endless_line", "junk", "duplicate_usage", "negative_usage", "no_usage",
]  # fmt: skip
End = Literal["open", "complete", "client_gone", "refused", "reset", "cut", "error", "junk", "queued", "cancelled"]

TOKEN_BYTES = 4
"""A stand-in for a tokenizer: every 4 bytes of prompt are one token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How to answer the next `times` calls whose path or body contains `when`."""

    when: str = ""
    times: int = 1
    fault: Fault = "none"
    """`status`: refuse with `status`. `slow_first`: wait before the head. `stall`: wait before event `at`. `reset`: TCP reset
    there. `cut`: a clean end there. `error_event`: the dialect's error there. `junk`: an event there that is no JSON. `endless`:
    from there content for ever; `endless_line`: one event for ever. In place of an answer, under status 200: `error_body`,
    `html`, `gzip_bomb`. `duplicate_usage`, `negative_usage`, `no_usage`: what is said of the counts."""
    at: int = 0
    status: int = 500
    kind: str = ""
    """The error's own name in the body; by default the dialect's word for `status`."""
    retry_after_s: float | None = None
    delay_s: float = 3600.0
    """How long a wait lasts that nobody releases."""
    tokens: int = 50
    """Visible text tokens, one event each; the request's own limit applies."""
    text: str = ""
    """Says this in place of counted tokens, cut into pieces of `piece_characters`."""
    piece_characters: int = 4
    thinking_tokens: int = 0
    """Streamed as a signed block by Anthropic and as a thought by Gemini, only counted by OpenAI."""
    tool: str = ""
    """Answer with one call of this tool in place of text."""
    arguments: str = '{"city": "Oslo"}'
    tier: str = ""
    """The tier that the answer says; by default the one that was asked for."""
    geo: str = ""
    """Where the answer says that it was made (Anthropic); by default where it was asked to be."""
    searches: int = 0
    """Web searches of its own (Anthropic)."""
    compaction_tokens: int = 0
    """Input of a compaction that is not in the usage's own counts (Anthropic)."""
    polls: int = 1
    """How often a background answer is asked for before it is there."""
    gap_s: float = 0.0
    """Pause after each event."""
    split_bytes: int = 0
    """Write each event in pieces of this size, each its own HTTP chunk."""
    noise: bool = False
    """CRLF line ends and a comment before each event, pings in between where the dialect has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What one call uses. The four input counts do not overlap."""

    fresh: int
    read: int = 0
    written_5m: int = 0
    written_1h: int = 0
    output: int = 0
    thinking: int = 0
    """Part of `output`."""

    @property
    def prompt(self) -> int:
        return self.fresh + self.read + self.written_5m + self.written_1h


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event and the output tokens that exist once it is written."""

    wire: bytes
    tokens: int = 0
    is_usage: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that decides an answer; equal plans give equal bytes."""

    id: str
    model: str
    pieces: tuple[str, ...]
    tool: str
    tokens: Tokens
    says: Literal["truth", "negative", "nothing"] = "truth"
    """Of its counts."""
    is_clipped: bool = False
    tier: str = ""
    speed: str = ""
    geo: str = ""
    wants_usage: bool = False
    choices: int = 1
    searches: int = 0
    compaction_tokens: int = 0
    thinking_each: str = "hm "

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def told(self) -> Tokens:
        """Return the counts that the answer states."""
        one = self.tokens
        return Tokens(fresh=-one.fresh, output=-one.output) if self.says == "negative" else one


@dataclass(slots=True, kw_only=True)
class Charge:
    """One line of the bill."""

    id: str
    path: str
    model: str
    is_stream: bool
    body_sha256: str
    headers: dict[str, str]
    """As received; credentials as a hash."""
    status: int = 200
    end: End = "open"
    prompt: Tokens = field(default_factory=lambda: Tokens(fresh=0))
    """Its four input counts; zero until the provider would charge for them."""
    output_tokens: int = 0
    thinking_tokens: int = 0
    tier: str = ""
    searches: int = 0
    compaction_tokens: int = 0
    is_usage_sent: bool = False
    """False: no client can know these counts; it may only estimate them."""


def sse(payload: Json | str, name: str = "") -> bytes:
    text = payload if isinstance(payload, str) else json.dumps(payload, separators=(",", ":"), ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def named(payload: Json) -> bytes:
    return sse(payload, payload["type"])
