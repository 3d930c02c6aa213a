"""`overwinter.toml`: what a home runs with. Every mistake is named with its line, its key and what is allowed."""

import difflib
import keyword
import os
import re
import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field, fields
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from overwinter.clock import SECOND_US
from overwinter.declared import (
    MODEL_NAME,
    Declared,
    DeclaredBudget,
    DeclaredModel,
    DeclaredProvider,
    GatewaySettings,
    faults,
)
from overwinter.errors import ConfigInvalid
from overwinter.events import Effect
from overwinter.frozen import frozen
from overwinter.webhook import TOPICS

__all__ = [
    "Agent", "Approvals", "Audit", "Config", "Jail", "Limits", "Retention", "Service", "Webhook", "Worker", "is_secret", "load",
]  # fmt: skip

REFERENCE = re.compile(r"(env|file|vault):.+|keyring:.+/.+")
"""Whole values that are references to secrets."""
ACCOUNT = re.compile(r"oauth:[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
"""One of several logins at a server."""
KEY = re.compile(r"[!-*,-~]{1,200}\+[0-9a-f]{8}\+[A-Za-z0-9+/=]+")
NAMES = {"services": r"[A-Za-z_]\w*"}
OAUTH = ("oauth", "oauth-client")
LAYERS = ("namespaces", "landlock", "seccomp")
MOST: Mapping[str, float] = {
    "turn_cpu_s": 86_400, "run_cpu_s": 86_400, "memory_mb": 65_536, "recursion_depth": 10_000,
    "calls_per_turn": 100_000, "output_kb": 65_536, "value_kb": 65_536, "snapshot_mb": 1_024, "kept_mb": 1_024,
    "interpreters": 256, "threads": 4_096, "calls_in_flight": 1_000_000, "ended_days": 36_525,
    "audit_body_days": 36_525,
    "timeout_s": 86_400, "first_byte_s": 3_600, "similar_min": 1, "idle_s": 3_600, "cache_s": 31_622_400, "answers_mb": 65_536,
    "output_tokens_max": 100_000_000, "input_tokens_max": 100_000_000, "usd": 1_000_000_000, "tools_usd": 1_000_000, "calls": 1_000_000_000,
}  # fmt: skip
"""Largest value of each number: what is above is a mistake in a unit, not a wish."""


@frozen
class Limits:
    """`[limits]`: what one run may use. Units are in the names."""

    turn_cpu_s: float = 2.0
    run_cpu_s: float = 10.0
    memory_mb: int = 64
    recursion_depth: int = 500
    calls_per_turn: int = 1_000
    output_kb: int = 1_024
    value_kb: int = 1_024
    snapshot_mb: int = 8
    kept_mb: int = 32
    """Largest file, or answer of a service, that is kept beside the journal under a handle."""


@frozen
class Worker:
    """`[worker]`: how much happens at once."""

    interpreters: int = max(1, min(16, os.cpu_count() or 1))
    """Interpreter workers: programs that compute at the same time."""
    threads: int = 32
    """Sync functions that run at the same time."""
    calls_in_flight: int = 20_000


@frozen
class Jail:
    """`[jail]`: gaps in the workers' jail that the operator accepts. `overwinter doctor` shows them."""

    off: bool = False
    allow_missing: tuple[str, ...] = ()


@frozen
class Retention:
    """`[retention]`: how long what has ended is kept."""

    ended_days: float = 30.0
    audit_body_days: float = 90.0
    """Arguments and results beside the audit log; its entries stay."""


@frozen
class Audit:
    """`[audit]`: who else signs the tree heads of the audit log."""

    witness: str = ""
    """Address of a witness, asked after an approval or a revocation and every few minutes."""
    witness_key: str = ""
    """The key that it printed as it started: `name+id+base64`."""


@frozen
class Approvals:
    """`[approvals]`: whose word counts."""

    claims: bool = True
    """Whether somebody at the home's own socket may act in another name (`--as`). It is recorded as a claim; false refuses it."""


@frozen
class Agent:
    """`[agents.NAME]`: an identity under which programs run."""

    owner: str = "owner"
    """The person who answers for it: an address or a name."""
    tools: tuple[str, ...] = ()
    """Patterns of the functions it may call: `"billing.*"`."""
    reads: tuple[str, ...] = ()
    """Patterns of the functions it may call as far as they change nothing."""
    asks: tuple[str, ...] = ()
    """Patterns of the functions it may call once its owner has said yes to that very call."""
    purpose: str = ""
    parent: str = ""
    """The agent under whose authority it stands: it can never do what that one cannot."""
    expires: str = ""
    """When its authority ends by itself: a date, or an instant with its zone, as ISO 8601 writes it."""
    models: tuple[str, ...] = ()
    """Patterns of the models that it may use."""
    team: str = ""
    """Whose budget it spends besides its own."""
    credentials: Mapping[str, str] = field(default_factory=dict[str, str])
    """Service to what this agent, and those below it, show there in the place of the service's `auth`: a reference, or
    `oauth:ACCOUNT` for the login of `overwinter tools login SERVICE --account ACCOUNT`."""

    @property
    def expires_us(self) -> int | None:
        """Return when its authority ends, microseconds UTC; a date is its beginning."""
        instant = _instant(self.expires)
        return None if instant is None else round(instant.timestamp() * SECOND_US)


@frozen
class Service:
    """`[services.NAME]`: where a module of tools comes from."""

    python: str = ""
    """Path of a Python module, looked for beside `overwinter.toml` first; or of an object in one that offers functions by
    itself, `"shop.desk:tools"`, as `overwinter.pydantic_ai.Offer` does."""
    openapi: str = ""
    """File or address of an OpenAPI or Swagger description, JSON or YAML; a path is relative to `overwinter.toml`."""
    mcp: str = ""
    """An MCP server: the command that starts it, or its address (`sse+https://...` if it speaks the older transport).
    `${NAME}`, `${NAME:-default}` and `${file:PATH}` in it are filled in when it starts."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    """Environment of an MCP server besides PATH, HOME and locale: name to a reference as in `auth`, or a text."""
    cwd: str = ""
    """Directory in which an MCP server works, relative to `overwinter.toml`."""
    base_url: str = ""
    """Where the API is, if not where its description says. Only so may it be on a private network."""
    auth: str = ""
    """Reference of its credential: `env:NAME`, `file:PATH`, `keyring:SERVICE/NAME` or `vault:NAME`. It is sent as the description's security scheme asks.
    `identity`: no credential of the home, but a token that says which agent asks, for a described API; docs/api.md.
    `oauth`: the login that `overwinter tools login NAME` keeps in the vault, for an MCP server at an address.
    `oauth-client`: a token of our own at `issuer`, for machines, the same; it needs `client_id` and `client_secret`."""
    issuer: str = ""
    """The authorization server, exactly as the MCP server names it. Only so may it be on a private network."""
    scopes: tuple[str, ...] = ()
    """What is asked for; left out, what the MCP server says that it needs."""
    client_id: str = ""
    """Who we are there: an id that it gave out, or the https address of our client metadata document."""
    client_secret: str = ""
    """Reference of the client's secret, as in `auth`."""
    timeout_s: float = 60.0
    """The longest that one attempt at a call of a described function may take, all its pages together."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Sent with each call: a tenant, an account; a reference as in `auth`, or a text with `${NAME}`."""
    effects: Mapping[str, Effect] = field(default_factory=dict[str, Effect])
    """Function name to `read`, `idempotent` or `write`, where the description is wrong."""


@frozen
class Webhook:
    """`[webhooks.NAME]`: whom the home tells of what happens in it; docs/webhooks.md."""

    url: str
    """Where it is told; https and public, unless `private`."""
    secret: str
    """Reference of the key that signs what it is told: `env:NAME`, `file:PATH`, `keyring:SERVICE/NAME` or `vault:NAME`."""
    events: tuple[str, ...]
    """Of what: `"approval.asked"`, `"question.asked"`, `"run.ended"`, ..."""
    arguments: bool = False
    """Whether it is told what programs, services and people wrote: arguments, questions, errors. Without: names and digests."""
    address: str = ""
    """Where people reach this home, `https://host:port`: each message says where to look."""
    private: bool = False
    """Whether it may be on this machine or in a private network, and asked by http."""
    timeout_s: float = 10.0
    """The longest that one attempt may take."""


@frozen
class Config:
    """The whole file. Without agents in it there is one, `default`: it may read, and asks its owner for all else."""

    limits: Limits = Limits()
    worker: Worker = Worker()
    jail: Jail = Jail()
    retention: Retention = Retention()
    audit: Audit = Audit()
    approvals: Approvals = Approvals()
    agents: Mapping[str, Agent] = field(
        default_factory=lambda: {"default": Agent(reads=("*",), asks=("*",), models=("*",))}
    )
    services: Mapping[str, Service] = field(default_factory=dict[str, Service])
    webhooks: Mapping[str, Webhook] = field(default_factory=dict[str, Webhook])
    providers: Mapping[str, DeclaredProvider] = field(default_factory=dict[str, DeclaredProvider])
    models: Mapping[str, DeclaredModel] = field(default_factory=dict[str, DeclaredModel])
    budgets: Mapping[str, DeclaredBudget] = field(default_factory=dict[str, DeclaredBudget])
    gateway: GatewaySettings = field(default_factory=GatewaySettings)

    def credential(self, agent: str, service: str) -> str:
        """Return what an agent shows a service: its own, else that of the nearest agent above it; "": the service's `auth`.

        So a child never acts with an account that the agent above it does not act with.
        """
        while agent in self.agents:
            if found := self.agents[agent].credentials.get(service, ""):
                return found
            agent = self.agents[agent].parent
        return ""

    def credentials(self, service: str) -> Sequence[str]:
        """Return what agents show a service in the place of its `auth`, each once."""
        return list(dict.fromkeys(found for name in self.agents if (found := self.credential(name, service))))


T = TypeVar("T")
N = TypeVar("N", int, float)


def load(path: Path) -> Config:
    """Return the configuration in a file, or the defaults if there is none.

    Raises:
        ConfigInvalid: the file cannot be read, or a key of it is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{path} cannot be read: {error}") from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"{path}: {error}") from error
    return _Reader(path, text).config(document)


def is_secret(name: str) -> bool:
    """Return whether a variable or a header of this name holds a secret, as a rule."""
    return re.search(r"(?i)token|secret|passw|credential|api_?-?key|authorization|private", name) is not None


def _instant(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


class _Reader:
    """Turns tables into values and says where one is wrong."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()

    def config(self, document: Mapping[str, Any]) -> Config:
        self._known((), document, [each.name for each in fields(Config)])
        made: dict[str, Any] = {}
        tables = (
            ("limits", Limits),
            ("worker", Worker),
            ("jail", Jail),
            ("retention", Retention),
            ("audit", Audit),
            ("gateway", GatewaySettings),
            ("approvals", Approvals),
        )
        for name, kind in tables:
            if name in document:
                made[name] = self._table((name,), document[name], kind)
        groups = (
            ("agents", Agent), ("services", Service), ("providers", DeclaredProvider), ("models", DeclaredModel),
            ("budgets", DeclaredBudget), ("webhooks", Webhook),
        )  # fmt: skip
        for name, kind in groups:
            if name in document:
                made[name] = self._named(name, document[name], kind)
        config = Config(**made)
        self._layers(config.jail)
        self._witness(config.audit)
        self._names(config)
        declared = Declared(
            providers=config.providers, models=config.models, budgets=config.budgets, gateway=config.gateway
        )
        for place, words in faults(declared, REFERENCE):
            raise self._wrong(place, words)
        self._spenders(config)
        for name, webhook in config.webhooks.items():
            self._webhook(("webhooks", name), webhook)
        if not config.agents:
            raise self._wrong(("agents",), "needs at least one agent: [agents.default]")
        return config

    def _spenders(self, config: Config) -> None:
        """Refuse a budget of nobody: misspelt, it would limit nothing, and say nothing."""
        known = {"agent": set(config.agents), "team": {each.team for each in config.agents.values() if each.team}}
        for name, budget in config.budgets.items():
            kind, _, who = budget.of.partition(":")
            if kind in known and who and not any(fnmatchcase(each, who) for each in known[kind]):
                raise self._wrong(("budgets", name, "of"), f"names no {kind} of this file: {budget.of!r}")

    def _named(self, group: str, tables: object, kind: type[T]) -> dict[str, T]:
        if not isinstance(tables, dict):
            raise self._wrong((group,), f"is a table of tables: [{group}.NAME]")
        named: dict[str, T] = {}
        for name, table in cast("dict[str, Any]", tables).items():
            if group == "models" and not MODEL_NAME.fullmatch(name):
                raise self._wrong(
                    (group, name), "is no name of a model: letters, digits and ._:/@-, or a pattern with * and ?"
                )
            if group != "models" and not re.fullmatch(NAMES.get(group, r"[A-Za-z_][A-Za-z0-9_-]*"), name):
                more = "" if group in NAMES else " and -"
                raise self._wrong((group, name), f"is no name: letters, digits, _{more}, not a digit first")
            if group == "services" and (name == "tools" or keyword.iskeyword(name) or name in sys.stdlib_module_names):
                raise self._wrong((group, name), "is taken by Python or by overwinter: programs could not import it")
            named[name] = self._table((group, name), table, kind)
        return named

    def _table(self, place: tuple[str, ...], table: object, kind: type[T]) -> T:
        if not isinstance(table, dict):
            raise self._wrong(place, f"is a table: [{'.'.join(place)}]")
        given = cast("dict[str, Any]", table)
        declared = {each.name: each for each in fields(cast("Any", kind))}
        self._known(place, given, list(declared))
        values = {name: self._value((*place, name), value, str(declared[name].type)) for name, value in given.items()}
        try:
            return kind(**values)
        except TypeError as error:
            missing = re.findall(r"'(\w+)'", str(error))
            raise self._wrong(place, f"misses {', '.join(missing)}") from error

    def _value(self, place: tuple[str, ...], value: object, kind: str) -> object:
        kind = kind.removeprefix("<class '").removesuffix("'>")
        kind = "table" if kind.startswith("collections.abc.Mapping[") else kind
        value = value.isoformat() if place[-1] == "expires" and isinstance(value, date) else value
        match kind, value:
            case "bool", bool():
                return value
            case "int", int() if not isinstance(value, bool):
                return self._positive(place, value)
            case "float", int() | float() if not isinstance(value, bool):
                return self._positive(place, float(value))
            case "str", str():
                return value
            case "table", dict() if all(isinstance(each, str) for each in cast("dict[str, Any]", value).values()):
                return dict(cast("dict[str, str]", value))
            case "tuple[str, ...]", list() if all(isinstance(each, str) for each in cast("list[Any]", value)):
                return tuple(cast("list[str]", value))
            case _:
                words = {
                    "bool": "true or false",
                    "int": "a whole number",
                    "float": "a number",
                    "str": "a text in quotes",
                    "table": "a table of texts",
                }
                raise self._wrong(place, f"is {words.get(kind, 'a list of texts')}, not {value!r}")

    def _positive(self, place: tuple[str, ...], value: N) -> N:
        most = MOST[place[-1]]
        if not 0 < value <= most:
            raise self._wrong(place, f"is above 0 and at most {most:,}, not {value!r}")
        return value

    def _known(self, place: tuple[str, ...], table: Mapping[str, Any], known: Collection[str]) -> None:
        for name in table:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise self._wrong((*place, name), f"is unknown; {hint}")

    def _layers(self, jail: Jail) -> None:
        for layer in jail.allow_missing:
            if layer not in LAYERS:
                raise self._wrong(("jail", "allow_missing"), f"knows no layer {layer!r}; there are {', '.join(LAYERS)}")
        if {"namespaces", "seccomp"} <= set(jail.allow_missing):
            raise self._wrong(
                ("jail", "allow_missing"), "cannot give up both namespaces and seccomp: the network would be open"
            )

    def _witness(self, audit: Audit) -> None:
        if audit.witness and not audit.witness.startswith(("http://", "https://")):
            raise self._wrong(("audit", "witness"), f"begins with http:// or https://, unlike {audit.witness!r}")
        if audit.witness and not KEY.fullmatch(audit.witness_key):
            words = f"is the key that the witness prints, name+id+base64, not {audit.witness_key!r}"
            raise self._wrong(("audit", "witness_key"), words)

    def _names(self, config: Config) -> None:
        """Refuse what would silently name nothing."""
        for name, agent in config.agents.items():
            if not agent.owner.strip():
                raise self._wrong(("agents", name, "owner"), "is empty: nobody could ever approve a call of it")
            if agent.parent and agent.parent not in config.agents:
                raise self._wrong(("agents", name, "parent"), f"names no agent of this file: {agent.parent!r}")
            above, seen = agent.parent, {name}
            while above and above not in seen:
                seen.add(above)
                above = config.agents[above].parent if above in config.agents else ""
            if above:
                raise self._wrong(("agents", name, "parent"), f"leads back to {above!r}: nobody is above themselves")
            if agent.expires and _instant(agent.expires) is None:
                words = f"is no date such as 2027-01-31, unlike {agent.expires!r}"
                raise self._wrong(("agents", name, "expires"), words)
            for service, shown in agent.credentials.items():
                self._shown(("agents", name, "credentials"), config.services.get(service), service, shown)
            self._patterns(name, agent)
        for name, service in config.services.items():
            self._service(name, service)

    def _patterns(self, name: str, agent: Agent) -> None:
        for key, patterns in (("tools", agent.tools), ("reads", agent.reads), ("asks", agent.asks)):
            for pattern in patterns:
                if not re.search(r"[.*?\[]", pattern):
                    hint = f": write '{pattern}.*'" if pattern.isidentifier() else ": write 'service.function'"
                    raise self._wrong(("agents", name, key), f"has {pattern!r}, which names no function{hint}")

    def _shown(self, place: tuple[str, ...], service: Service | None, name: str, shown: str) -> None:
        """Refuse a credential of an agent that would be shown to nobody, or is itself written down."""
        if service is None:
            raise self._wrong(place, f"names no service of this file: {name!r}")
        is_address = service.mcp.removeprefix("sse+").startswith(("http://", "https://"))
        if not service.openapi and not is_address:
            raise self._wrong(place, f"is for described APIs and MCP servers at an address, and {name} is neither")
        is_account = ACCOUNT.fullmatch(shown) is not None
        if is_account and service.auth != "oauth":
            raise self._wrong(place, f"has {shown!r}, and services.{name}.auth is not 'oauth'")
        if not is_account and not REFERENCE.fullmatch(shown):
            words = "holds references, 'env:NAME', 'file:PATH', 'keyring:SERVICE/NAME', 'vault:NAME' or 'oauth:ACCOUNT': the secret itself stays out of here"
            raise self._wrong(place, words)

    def _webhook(self, place: tuple[str, ...], webhook: Webhook) -> None:
        if not webhook.url.startswith("https://") and not (webhook.private and webhook.url.startswith("http://")):
            words = (
                f"begins with https://, or with http:// if private = true, unlike {webhook.url.partition('?')[0]!r:.60}"
            )
            raise self._wrong((*place, "url"), words)
        if not REFERENCE.fullmatch(webhook.secret):
            words = "is a reference, 'env:NAME', 'file:PATH' or 'vault:NAME': the secret itself stays out of here"
            raise self._wrong((*place, "secret"), words)
        unknown = [each for each in webhook.events if each not in TOPICS]
        if unknown or not webhook.events:
            what = f"knows no {unknown[0]!r}" if unknown else "is empty"
            raise self._wrong((*place, "events"), f"{what}; there are {', '.join(TOPICS)}")
        if webhook.address and not webhook.address.startswith(("http://", "https://")):
            words = f"begins with http:// or https://, unlike {webhook.address!r}"
            raise self._wrong((*place, "address"), words)

    def _service(self, name: str, service: Service) -> None:
        place = ("services", name)
        if sum(map(bool, (service.python, service.openapi, service.mcp))) != 1:
            words = "needs one source: python = 'a.module', openapi = 'a file or an address' or mcp = 'a command or an address'"
            raise self._wrong(place, words)
        for group, table in (("env", service.env), ("headers", service.headers)):
            for key, value in table.items():
                if is_secret(key) and not (REFERENCE.fullmatch(value) or "${" in value):
                    words = f"holds references to secrets, {key} = 'env:NAME', 'file:PATH' or 'vault:NAME': itself it stays out of here"
                    raise self._wrong((*place, group), words)
        if service.python and not all(part.isidentifier() for part in re.split("[.:]", service.python)):
            words = f"is a module's name such as 'shop.billing', or an object in one, 'shop.billing:desk', not {service.python!r}"
            raise self._wrong((*place, "python"), words)
        if service.base_url and not service.base_url.startswith(("http://", "https://")):
            raise self._wrong((*place, "base_url"), f"begins with http:// or https://, unlike {service.base_url!r}")
        self._credential(place, service)
        for function, effect in service.effects.items():
            if effect not in ("read", "idempotent", "write"):
                raise self._wrong(
                    (*place, "effects"), f"knows read, idempotent and write, not {effect!r} for {function}"
                )

    def _credential(self, place: tuple[str, ...], service: Service) -> None:
        if service.auth == "identity" and not service.openapi:
            raise self._wrong((*place, "auth"), "is 'identity' for described APIs alone: openapi = '...'")
        self._oauth(place, service)
        if service.auth not in ("", "identity", *OAUTH) and not REFERENCE.fullmatch(service.auth):
            raise self._wrong(
                (*place, "auth"),
                "is a reference, 'env:NAME', 'file:PATH', 'keyring:SERVICE/NAME' or 'vault:NAME': the secret itself stays out of here",
            )

    def _oauth(self, place: tuple[str, ...], service: Service) -> None:
        given = [key for key in ("issuer", "scopes", "client_id", "client_secret") if getattr(service, key)]
        if service.auth not in OAUTH:
            if given:
                raise self._wrong((*place, given[0]), f"is for auth = 'oauth' or 'oauth-client', not {service.auth!r}")
            return
        if not service.mcp.removeprefix("sse+").startswith(("http://", "https://")):
            raise self._wrong((*place, "auth"), f"is {service.auth!r} for MCP servers alone, mcp = 'https://...'")
        if any(key.lower() == "authorization" for key in service.headers) or "@" in urlsplit(service.mcp).netloc:
            raise self._wrong((*place, "auth"), f"is {service.auth!r}, and headers or address hold another credential")
        if service.client_secret and not REFERENCE.fullmatch(service.client_secret):
            words = "is a reference, 'env:NAME', 'file:PATH' or 'vault:NAME': the secret itself stays out of here"
            raise self._wrong((*place, "client_secret"), words)
        if service.client_secret and not service.issuer:
            # Whom the server names gets the secret, else: a mix-up of its choice.
            raise self._wrong((*place, "client_secret"), "belongs to one authorization server: set issuer")
        missing = [key for key in ("issuer", "client_id", "client_secret") if key not in given]
        if service.auth == "oauth-client" and missing:
            raise self._wrong((*place, "auth"), f"is 'oauth-client', which needs {', '.join(missing)}")

    def _wrong(self, place: tuple[str, ...], words: str) -> ConfigInvalid:
        line = self._line(place)
        where = f"{self._path}, line {line}" if line else str(self._path)
        return ConfigInvalid(f"{where}: {'.'.join(place)} {words}")

    def _line(self, place: tuple[str, ...]) -> int:
        """Return the line on which a key stands, by its header and its own name; 0 if it is written in another way."""
        header = ""
        for number, line in enumerate(self._lines, 1):
            if found := re.match(r"\s*\[\[?([^\[\]]+)\]", line):
                header = re.sub(r"[\s\"']", "", found[1])
                if header == ".".join(place):
                    return number
            elif (found := re.match(r"\s*([\w.\"'-]+)\s*=", line)) is not None:
                key = ".".join(part for part in (header, re.sub(r"[\"']", "", found[1])) if part)
                if key == ".".join(place):
                    return number
        return self._line(place[:-1]) if len(place) > 1 else 0
