"""What `overwinter.toml` says of models: who answers, under which names, for how much, and what may leave."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from fnmatch import fnmatchcase

from overwinter.frozen import frozen

__all__ = [
    "CLASSES",
    "DIALECTS",
    "MODEL_NAME",
    "OTHERWISE",
    "Declared",
    "DeclaredBudget",
    "DeclaredModel",
    "DeclaredProvider",
    "GatewaySettings",
    "faults",
]

DIALECTS = ("chat", "responses", "messages", "gemini", "embeddings")
PATTERN = re.compile(r"[*?]")
MODEL_NAME = re.compile(r"[A-Za-z0-9*?._:/@-]{1,200}")
WINDOWS = ("hour", "day", "month", "ever")
SCOPES = re.compile(r"(tenant|run|(team|agent|key):.+)")
TREATMENTS = ("block", "mask", "replace", "leave")
CLASSES = ("secret", "card", "iban", "email", "phone", "ssn", "national-id", "passport", "ip", "word")
"""Of confidential values; see docs/redaction.md."""
OTHERWISE = "otherwise"
"""In `redact`: what is done about a class that it does not name."""
Place = tuple[str, ...]


@frozen
class DeclaredProvider:
    """`[providers.NAME]`: who answers model calls."""

    url: str
    """`https://api.anthropic.com`; the paths of its formats are added to it."""
    dialects: tuple[str, ...]
    """Formats that it speaks: chat, responses, messages, gemini, embeddings."""
    auth: str = ""
    """Reference of its key: `env:NAME`, `file:PATH`, `keyring:SERVICE/NAME` or `vault:NAME`."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Sent with each call: a project, an organisation; a reference as in `auth`, or a text with `${NAME}`."""
    region: str = ""
    """Where it computes. Rules may ask for it: `resource.region == "eu"`."""
    retention: str = ""
    """How long it keeps what it is sent. Rules may ask for it: `resource.retention == "none"`."""
    prices: str = ""
    """Its name in the table of prices, if that is another one than NAME."""
    first_byte_s: float = 120.0
    idle_s: float = 60.0
    """The longest silence before an answer, and inside one."""


@frozen
class DeclaredModel:
    """`[models.NAME]`: a name that clients ask for. A pattern, `[models."claude-*"]`, stands for all that fit."""

    provider: str
    model: str = ""
    """As the provider calls it, if that is another name than the one asked for."""
    fallbacks: tuple[str, ...] = ()
    """Models of this file that answer when this one cannot, in this order."""
    output_tokens_max: int = 16_384
    """Put into a request that has no limit of its own, where a budget applies."""
    tools_usd: float = 0.0
    """What tools that the provider runs itself (web search, code) may cost in one call besides, held under a budget; 0: under a
    budget a request with such tools is refused, for nothing bounds them."""
    input_tokens_max: int = 0
    """Its context window, if the table of prices does not know it; 0: it does."""


@frozen
class DeclaredBudget:
    """`[budgets.NAME]`: a hard limit."""

    of: str
    """Whose: `tenant`, `team:NAME`, `agent:NAME`, `key:ID`, each of which may be a pattern, or `run`: each run by itself."""
    window: str = "day"
    """hour, day or month, as the calendar has them in UTC; or ever."""
    usd: float = 0.0
    """How much; 0: no limit in money."""
    calls: int = 0
    """How many calls may begin; 0: no limit of them."""


@frozen
class GatewaySettings:
    """`[gateway]`: what holds for every model call."""

    model: str = ""
    """The model that `tools.think` asks if it is not told which."""
    cache: bool = False
    """Give an answer again for a request that is the same in everything. A client asks for it, or for none, by a header."""
    cache_s: float = 3_600.0
    similar_model: str = ""
    """An embedding model of this file: a client that asks for it gets the answer to a question that means the same."""
    similar_min: float = 0.97
    """The least cosine of two questions that mean the same, up to 1."""
    answers_mb: int = 256
    """Room for kept answers."""
    on_disconnect: str = "drain"
    """When a client leaves: `drain` reads the answer to its end, for its exact price; `abort` stops it, and estimates."""
    background_s: float = 86_400.0
    """How long the hold of an answer in the background waits for somebody to ask for it; then it is booked as spent."""
    is_unlogged: bool = False
    """Keep nothing of what is said, only counts, digests and costs."""
    spans: bool = False
    """Make an OpenTelemetry span of each call; needs `overwinter[otel]`."""
    redact: Mapping[str, str] = field(default_factory=dict[str, str])
    """Class of data to `block`, `mask`, `replace` or `leave`: `{ secret = "block", email = "replace", otherwise = "leave" }`. Any
    entry, or `words`, turns redaction on. What is not named is replaced, secrets are masked, addresses of computers are left."""
    redact_answers: Mapping[str, str] = field(default_factory=dict[str, str])
    """The same for what models say: `block`, `mask` or `leave`. What is not named is left."""
    words: str = ""
    """File with words of your own, one a line, that are redacted as class `word`; beside overwinter.toml, if it is no whole path."""


@frozen
class Declared:
    """All of it."""

    providers: Mapping[str, DeclaredProvider]
    models: Mapping[str, DeclaredModel]
    budgets: Mapping[str, DeclaredBudget]
    gateway: GatewaySettings


def faults(declared: Declared, reference: re.Pattern[str]) -> Iterator[tuple[Place, str]]:
    """Yield what is wrong: where, and in which words.

    Args:
        declared: what the file says.
        reference: what a reference to a secret looks like.
    """
    for name, provider in declared.providers.items():
        yield from _provider(("providers", name), provider, reference)
    yield from _models(declared)
    for name, budget in declared.budgets.items():
        place = ("budgets", name)
        if not SCOPES.fullmatch(budget.of):
            yield (*place, "of"), f"is tenant, run, team:NAME, agent:NAME or key:ID, not {budget.of!r}"
        if budget.window not in WINDOWS:
            yield (*place, "window"), f"is one of {', '.join(WINDOWS)}, not {budget.window!r}"
        if not budget.usd and not budget.calls:
            yield place, "limits nothing: usd = 5.0, or calls = 100"
    yield from _gateway(declared)


def _provider(place: Place, provider: DeclaredProvider, reference: re.Pattern[str]) -> Iterator[tuple[Place, str]]:
    if not provider.url.startswith(("http://", "https://")):
        yield (*place, "url"), f"begins with http:// or https://, unlike {provider.url!r}"
    if unknown := [each for each in provider.dialects if each not in DIALECTS]:
        yield (*place, "dialects"), f"has {unknown[0]!r}: there are {', '.join(DIALECTS)}"
    if not provider.dialects:
        yield (*place, "dialects"), f"is empty: there are {', '.join(DIALECTS)}"
    if provider.auth and not reference.fullmatch(provider.auth):
        words = "is a reference, 'env:NAME', 'file:PATH', 'keyring:SERVICE/NAME' or 'vault:NAME': the key itself stays out of here"
        yield (*place, "auth"), words


def _models(declared: Declared) -> Iterator[tuple[Place, str]]:
    for name, model in declared.models.items():
        if model.provider not in declared.providers:
            yield ("models", name, "provider"), f"names no provider of this file: {model.provider!r}"
        if PATTERN.search(name) and model.model:
            yield (
                ("models", name, "model"),
                "is for one name: a pattern stands for many, each of which goes on as it was asked",
            )
        for other in model.fallbacks:
            if other not in declared.models or PATTERN.search(other):
                yield ("models", name, "fallbacks"), f"names no model of this file by its whole name: {other!r}"


def _gateway(declared: Declared) -> Iterator[tuple[Place, str]]:
    gateway = declared.gateway
    for key, model in (("model", gateway.model), ("similar_model", gateway.similar_model)):
        if PATTERN.search(model):
            yield ("gateway", key), f"is a pattern: {model!r} stands for many, and one of them is asked"
        elif model and not any(fnmatchcase(model, each) for each in declared.models):
            yield ("gateway", key), f"names no model of this file: {model!r}"
    if gateway.on_disconnect not in ("drain", "abort"):
        yield ("gateway", "on_disconnect"), f"is drain or abort, not {gateway.on_disconnect!r}"
    yield from _treated("redact", gateway.redact, (*CLASSES, OTHERWISE), TREATMENTS)
    yield from _treated(
        "redact_answers", gateway.redact_answers, CLASSES, [each for each in TREATMENTS if each != "replace"]
    )
    if gateway.redact.get("secret") == "replace":
        yield ("gateway", "redact", "secret"), "is never 'replace', for a secret is given back to nobody: mask or block"


def _treated(
    key: str, table: Mapping[str, str], classes: Sequence[str], treatments: Sequence[str]
) -> Iterator[tuple[Place, str]]:
    for name, treatment in table.items():
        if name not in classes:
            near = difflib.get_close_matches(name, classes, 1)
            known = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(classes)}"
            yield ("gateway", key, name), f"is no class of confidential values: {known}"
        if treatment not in treatments:
            yield ("gateway", key, name), f"is one of {', '.join(treatments)}, not {treatment!r}"
