"""What leaves of a request, and what its answer is on its way back: one redactor, vault and screen for each call.

The placeholders of a run, or of a client's conversation, come from a key of its own, so each turn's request begins with the
bytes of the last one's. Their values come again with each turn; a vault in memory has those that do not, for a provider that
keeps the conversation itself. No value is written down.
"""

import hmac
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import anyio.to_thread

from overwinter.frozen import frozen, replace
from overwinter.gateway.attempts import Restore
from overwinter.gateway.caller import Caller
from overwinter.gateway.dialect import Asked, Dialect, Whole
from overwinter.gateway.leaves import Opaque
from overwinter.gateway.parts import Split
from overwinter.gateway.placeholders import Vault
from overwinter.gateway.redaction import Redactor, Rules, Search, restored
from overwinter.gateway.refusal import ModelRefused, Refusal
from overwinter.gateway.restoring import Restorer
from overwinter.gateway.screening import Screen, screened, unspelt

__all__ = ["Cleaned", "Cleaner", "Redaction", "Side"]

THREAD_BYTES_MIN = 128 << 10
"""A larger request is searched beside the event loop: 10 ms and more."""
VAULTS_MAX = 2_000
"""Runs and conversations whose values are in memory; of more, those longest unheard of are forgotten."""
VALUES_MAX = 400_000
"""In all vaults together: 100 MB."""
COUNTED_EVERY = 64
"""Calls between two looks at how many there are."""

SETTINGS = frozenset({
    "background", "betas", "cachedContent", "container", "context_management", "conversation", "dimensions", "encoding_format",
    "frequency_penalty", "generationConfig", "include", "inference_geo", "logit_bias", "logprobs", "max_completion_tokens",
    "max_output_tokens", "max_tokens", "max_tool_calls", "mcp_servers", "modalities", "model", "n", "parallel_tool_calls",
    "presence_penalty", "previous_response_id", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "reasoning",
    "reasoning_effort", "safetySettings", "seed", "serviceTier", "service_tier", "speed", "store", "stream", "stream_options",
    "temperature", "thinking", "toolConfig", "tool_choice", "top_k", "top_logprobs", "top_p", "truncation", "verbosity",
})  # fmt: skip
"""Top-level fields without text for a model: not searched, but where a dialect says that there is some. A field that nobody here
has heard of is searched."""
Side = str
"""`request` or `answer`."""


@frozen
class Cleaned:
    """A request as it may leave."""

    asked: Asked
    restore: Restore = field(default_factory=Restore)


class Cleaner:
    """Takes out of a request what must not leave. This one takes nothing."""

    def __init__(self) -> None:
        self.told: Callable[[Side, str], None] = lambda _side, _kind: None
        """Told the class of whatever is found, also in what is refused for it."""
        self.is_changing = False
        """Whether a request may have something in it that must not leave, so that not even a digest of it is written down."""

    async def clean(self, asked: Asked, caller: Caller, dialect: Dialect, found: Counter[str]) -> Cleaned:
        """Return what goes on.

        Args:
            asked: the request.
            caller: who asks.
            dialect: of the request.
            found: counts how often each class is found, in what is refused too, and later in the answer.

        Raises:
            ModelRefused: something in it may not leave at all, or that cannot be told.
        """
        del caller, dialect, found
        return Cleaned(asked=asked)


class Redaction(Cleaner):
    """Redacts requests, restores answers, and searches them where there are rules for answers.

    Args:
        search: detectors, for all calls.
        rules: what is done about each class.
        secret: of the home; keys of placeholders are made from it.
        split: cuts the lists of a request, so that the turns of a conversation which come again are not searched again.
    """

    def __init__(self, search: Search, rules: Rules, secret: bytes, split: Split = lambda _: None) -> None:
        super().__init__()
        self._search, self._rules, self._secret, self._split = search, rules, secret, split
        self._vaults = dict[str, Vault]()
        self._cleaned = 0
        self.is_changing = not rules.is_request_left

    async def clean(self, asked: Asked, caller: Caller, dialect: Dialect, found: Counter[str]) -> Cleaned:
        """Return a request without what must not leave."""
        if asked.spelt and not self._rules.is_answer_left:
            message = f"{asked.spelt} asks for each token of the answer, also of what redact_answers hides in it: leave it out"
            raise ModelRefused(Refusal(why="confidential", message=message))
        name, vault = self._vault(asked, caller)
        redactor = Redactor(self._search, self._rules, vault, partial(self._count, found, "request"), self._split)
        work = partial(_redacted, redactor, asked, dialect)
        if self.is_changing:
            asked = await anyio.to_thread.run_sync(work) if asked.size_bytes >= THREAD_BYTES_MIN else work()
        self._keep(name, vault)
        restore = _Answer(
            vault=vault, opaque=dialect.opaque_keys, tokens=dialect.token_keys, search=self._search, rules=self._rules,
            told=partial(self._count, found, "answer"),
        )  # fmt: skip
        return Cleaned(asked=asked, restore=restore)

    def _count(self, found: Counter[str], side: Side, kind: str) -> None:
        found[kind] += 1
        self.told(side, kind)

    def _vault(self, asked: Asked, caller: Caller) -> tuple[str, Vault]:
        """Return the vault of a run or conversation, and under which name to keep it; "": not at all.

        Embeddings have one key for all of a tenant, since vectors of different conversations are compared; nothing in them is
        restored. A call of which nothing is kept has the key of its conversation, and a vault of its own.
        """
        run_id = caller.principal.run_id
        if asked.operation == "embed":
            name = ("embed", caller.tenant)
        elif run_id:
            name = ("run", caller.tenant, run_id)
        else:
            name = ("session", caller.tenant, caller.key, caller.principal.agent, caller.session)
        told = "\0".join(f"{len(each)}:{each}" for each in name)
        is_kept = asked.operation != "embed" and not caller.is_unlogged
        known = self._vaults.get(told) if is_kept else None
        key = hmac.digest(self._secret, b"redaction\0" + told.encode("utf-8", "surrogatepass"), "sha256")
        return told if is_kept else "", known or Vault(key)

    def _keep(self, name: str, vault: Vault) -> None:
        """Keep the values of a vault, and forget vaults of which nothing was heard for long."""
        if name and vault.count:
            known = self._vaults.pop(name, vault)
            if known is not vault:  # two first calls of a conversation at the same time
                known.join(vault)
            self._vaults[name] = known  # the latest last
        self._cleaned += 1
        size = 0 if self._cleaned % COUNTED_EVERY else sum(each.count for each in self._vaults.values())
        while len(self._vaults) > VAULTS_MAX or (size > VALUES_MAX and len(self._vaults) > 1):
            size -= self._vaults.pop(next(iter(self._vaults))).count


def _redacted(redactor: Redactor, asked: Asked, dialect: Dialect) -> Asked:
    """Return a request as redacted; whatever fails, nothing is sent, and no error has a value in it."""
    try:
        fields = [name for name in asked.top if name in dialect.text_fields or name not in SETTINGS]
        changed = redactor.redact(asked.top, fields, dialect.opaque_keys)
    except ModelRefused:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, nothing may be sent
        failed = type(error).__name__
    else:
        grown = sum(len(new) - len(asked.top[name]) for name, new in changed.items())
        size_bytes = asked.size_bytes + max(0, grown)  # it bounds what the call may cost
        return replace(asked, top={**asked.top, **changed}, size_bytes=size_bytes) if changed else asked
    raise ModelRefused(Refusal(why="confidential", message=f"redaction failed ({failed}): nothing was sent"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer(Restore):
    """The way back of one call."""

    vault: Vault
    opaque: Opaque
    tokens: frozenset[str]
    search: Search
    rules: Rules
    told: Callable[[str], None]

    @property
    def is_idle(self) -> bool:
        """Whether an answer goes by as it comes."""
        return not self.vault.count and not self.rules.answer

    def restorer(self) -> Restorer | None:
        """Return what restores and searches one stream."""
        if self.is_idle:
            return None
        screen = Screen(self.search, self.rules, self.vault, self.told, self.tokens) if self.rules.answer else None
        return Restorer(self.vault, screen, self._treated)

    def whole(self, body: bytes) -> bytes:
        """Return a whole answer, searched and restored. Signed and opaque values stay as they came."""
        return body if self.is_idle else self._treated(Whole(body, is_answer=True))

    def _treated(self, whole: Whole) -> bytes:
        """Return the same of an answer or a part of one."""
        if not self.rules.answer and b"OW_" not in whole.document:
            return whole.document
        try:
            document = whole.document.decode()
            if self.rules.answer:
                document = screened(
                    unspelt(document, self.tokens), is_answer=whole.is_answer, opaque=self.opaque, search=self.search, rules=self.rules,
                    vault=self.vault, told=self.told,
                )  # fmt: skip
            return restored(document, self.vault, self.opaque).encode()
        except ValueError:
            pass
        raise ModelRefused(Refusal(why="upstream", message="the answer is not JSON in UTF-8, or nested too deeply"))
