"""Services that are API descriptions: imported when they are new, looked up when they are needed, called over HTTP."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias, cast
from urllib.parse import urljoin

import anyio
import anyio.to_thread

from overwinter.adapters.catalog_file import CatalogFile, Refreshed, StoredModule
from overwinter.adapters.egress import Forbidden, endpoint, sent_on, session
from overwinter.adapters.masks import mask_of
from overwinter.adapters.openapi.client import Connection, HttpClient, open_client
from overwinter.adapters.openapi.document import BYTES_MAX, Document, parse
from overwinter.adapters.openapi.operations import operations
from overwinter.adapters.references import References
from overwinter.adapters.vault import Vault
from overwinter.catalog import Catalog, Unknown
from overwinter.catalog.modules import built
from overwinter.clock import Clock
from overwinter.config import Config, Service
from overwinter.errors import ConfigInvalid, NotFound, Revoked
from overwinter.events import CARRIED_OUT, Answer, Call, Raised, Returned
from overwinter.frozen import replace
from overwinter.handles import File, Handles, handle_of

__all__ = ["Apis", "Identify", "load_apis"]

IMPORTER = 5
"""Grows when the same description would be read in another way: every service is imported anew then."""
FETCH_S_MAX = 60.0
REDIRECTS_MAX = 5
VALIDATORS_REMEMBERED = 500
FAULT_CHARACTERS_MAX = 300
IDENTITY = "identity"
"""`auth` of a service that wants to know which agent asks, not a secret of ours."""
Identify: TypeAlias = Callable[[Call, str], Awaitable[str]]
"""Makes the token of one attempt at a call, for the service at an origin."""


@asynccontextmanager
async def load_apis(  # noqa: PLR0913 - what a source works with
    services: Mapping[str, Service],
    file: CatalogFile,
    clock: Clock,
    handles: Handles,
    *,
    directory: Path,
    vault: Vault,
    importing: Callable[[str], None],
    identify: Identify,
    config: Config,
) -> "AsyncGenerator[Apis]":
    """Import what is new or changed of the described services, and yield their functions as tools.

    Args:
        services: those of the configuration that have a description.
        file: the home's catalog.
        clock: stamps imports.
        handles: keeps files.
        directory: paths of descriptions are relative to it.
        vault: the home's own secrets.
        importing: told the name of each service whose import begins.
        identify: makes tokens for services with `auth = "identity"`.
        config: says what an agent shows.

    Raises:
        ConfigInvalid: a file that was never imported cannot be read.
    """
    async with open_client(clock, bytes_max=handles.kept_bytes_max) as client:
        apis = Apis(
            services, file,
            client=client, clock=clock, handles=handles, directory=directory, vault=vault, identify=identify,
            config=config,
        )  # fmt: skip
        await apis.refresh(is_forced=False, importing=importing)
        yield apis


class Apis:
    """See `catalog.Tools`."""

    def __init__(  # noqa: PLR0913 - made by `load_apis` alone
        self,
        services: Mapping[str, Service],
        file: CatalogFile,
        *,
        client: HttpClient,
        clock: Clock,
        handles: Handles,
        directory: Path,
        vault: Vault,
        identify: Identify,
        config: Config,
    ) -> None:
        self._identify, self._config = identify, config
        self._services, self._file, self._client, self._clock = services, file, client, clock
        self._handles = handles
        self._directory, self._vault = directory, vault
        self._connections: dict[tuple[str, str], Connection] = {}
        """By service, and the reference of the credential."""
        self.stale: dict[str, str] = {}
        """Services that go on as they were, and why."""
        self._importing = asyncio.Lock()
        self._fault = lru_cache(VALIDATORS_REMEMBERED)(self._validator)

    @property
    def catalog(self) -> Catalog:
        """Return what can be called. Stubs and functions are read from the file when they are asked for."""
        return Catalog({name: StoredModule(self._file, name) for name in self._services})

    async def perform(self, call: Call) -> Answer | Unknown:
        """Carry out one attempt of a call."""
        plan = self._file.plan(call.function)
        if plan is None:
            return Raised(kind="AttributeError", message=f"there is no function {call.function} any more")
        try:
            call = replace(call, arguments=await self._with_files(call, plan))
        except (LookupError, ValueError) as error:
            kind = "LookupError" if isinstance(error, LookupError) else "ValueError"
            return Raised(kind=kind, message=f"{call.function}: {error}", code="arguments")
        if fault := self._fault(call.function)(call.arguments):
            return Raised(kind="ValueError", message=f"{call.function}: {fault}", code="arguments")
        try:
            connection = await self._connected(call)
        except (ConfigInvalid, Forbidden, NotFound, Revoked) as error:
            return Raised(kind="PermissionError", message=str(error), code="connection")
        timeout_s = self._services[call.function.partition(".")[0]].timeout_s
        answer = await self._client.perform(call, plan, connection, timeout_s=timeout_s)
        if isinstance(answer, Returned) and isinstance(answer.value, File):
            return await self._kept(call, answer.value)
        return answer

    async def _connected(self, call: Call) -> Connection:
        """Return how the service of a call is reached by its agent."""
        name = call.function.partition(".")[0]
        shown = self._config.credential(call.agent, name) or self._services[name].auth
        connection = self._connection(name, shown)
        if shown != IDENTITY:
            return connection
        return connection.bearing(await self._identify(call, connection.endpoint.origin))

    async def _with_files(self, call: Call, plan: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the arguments of a call with files in the places of their handles, where the API takes any."""
        if "json" in (media := plan.get("media") or "json") or media.startswith("application/x-www-form"):
            return call.arguments
        return {name: await self._file_of(value, call.agent) for name, value in call.arguments.items()}

    async def _file_of(self, value: Any, agent: str) -> Any:
        if isinstance(value, list):
            return [await self._file_of(each, agent) for each in cast("list[Any]", value)]
        return value if handle_of(value) is None else await self._handles.file(value, agent=agent)

    async def _kept(self, call: Call, file: File) -> Answer:
        try:
            kept = await self._handles.keep_file(call.run_id, call.index, file)
        except ValueError as error:
            done = CARRIED_OUT if call.effect == "write" else ""
            return Raised(
                kind="ValueError", message=f"the file that {call.function} answers is not kept{done}: {error}"
            )
        return Returned(value=kept)

    async def refresh(
        self, only: str | None = None, *, is_forced: bool = True, importing: Callable[[str], None] = lambda _: None
    ) -> Refreshed:
        """Import services whose description changed, or all that are asked for.

        An address that does not answer, or answers with something else, is a fault of the day, and of its service alone. A
        file that cannot be read is a mistake in the configuration, and told at once.

        Raises:
            ConfigInvalid: it is not forced, and a file cannot be read of which there is no earlier import.
        """
        known = {source.service: source.stamp for source in self._file.sources()}
        failed: dict[str, str] = {}
        stamps = {name: _stamp(service, self._directory) for name, service in self._services.items()}
        wanted = [
            name
            for name in self._services
            if (only is None or name == only) and (is_forced or known.get(name) != stamps[name])
        ]
        async with asyncio.TaskGroup() as tasks:
            for name in wanted:
                tasks.create_task(self._try(name, stamps[name], importing, failed))
        self._connections.clear()
        self._fault.cache_clear()
        for name, why in failed.items():
            if not is_forced and name not in known and not _is_url(self._services[name].openapi):
                raise ConfigInvalid(f"services.{name}: {why}")
        self.stale |= failed
        return Refreshed(imported=[name for name in wanted if name not in failed], failed=failed)

    async def _try(self, name: str, stamp: str, importing: Callable[[str], None], failed: dict[str, str]) -> None:
        service = self._services[name]
        try:
            raw = await _fetched(service.openapi) if _is_url(service.openapi) else None
            async with self._importing:  # one at a time is in memory as a tree, and has the thread
                importing(name)
                raw = await _read(service.openapi, self._directory) if raw is None else raw
                await self._import(name, service, stamp, raw)
        except ConfigInvalid as error:
            failed[name] = str(error)
        else:
            self.stale.pop(name, None)

    async def _import(self, name: str, service: Service, stamp: str, raw: bytes) -> None:
        pinned, now_us = self._file.pinned(name), self._clock.now_us()

        def work() -> None:
            document = parse(raw, service.openapi)
            found, faults = operations(document)
            result = built(name, found, document.resolve, pinned=pinned, effects=dict(service.effects))
            settings = {"server": _server(document, service.openapi), "scheme": _scheme(document)}
            digest = hashlib.sha256(raw).hexdigest()
            self._file.put(name, stamp, result, faults=faults, settings=settings, raw_digest=digest, now_us=now_us)

        await anyio.to_thread.run_sync(work)
        self._file.forget()

    def _validator(self, name: str) -> Callable[[Mapping[str, Any]], str]:
        """Return what says what is wrong with the arguments of a function; "" if nothing is."""
        import jsonschema_rs  # noqa: PLC0415 - many homes ask no API

        schema = dict(self._file.schema(name))
        required = frozenset(schema.get("required", ()))
        try:
            validator = jsonschema_rs.validator_for(schema)
        except ValueError:  # the source's schema is broken where ours cannot mend it: the service judges
            return lambda _: ""

        def fault(arguments: Mapping[str, Any]) -> str:
            given = {key: value for key, value in arguments.items() if value is not None or key in required}
            error = next(validator.iter_errors(_plain(given)), None)
            if error is None:
                return ""
            return f"{'.'.join(map(str, error.instance_path)) or 'arguments'}: {error.message[:FAULT_CHARACTERS_MAX]}"

        return fault

    def _connection(self, name: str, shown: str) -> Connection:
        if (name, shown) not in self._connections:
            service = self._services[name]
            settings = next(each.settings for each in self._file.sources() if each.service == name)
            base = service.base_url or settings["server"]
            if not base:
                raise ConfigInvalid(f"the description of {name} names no server: set services.{name}.base_url")
            place = f"services.{name}.headers"
            references, query = References(self._directory, self._vault), list[tuple[str, str]]()
            headers = {key: references.whole(value, place, name=key) for key, value in service.headers.items()}
            if shown and shown != IDENTITY:
                secret = references.whole(shown, f"services.{name}.auth", name="credential")
                _authorise(settings["scheme"], secret, headers, query)
            mask = mask_of({*references.secrets, headers.get("Authorization", "")})
            self._connections[name, shown] = Connection(
                base_url=base, headers=headers, query=query, mask=mask, is_named=bool(service.base_url)
            )
        return self._connections[name, shown]


def _plain(value: Any) -> Any:
    """Return a value as it will be written: what JSON lacks is a text there."""
    match value:
        case dict():
            return {str(key): _plain(each) for key, each in cast("dict[Any, Any]", value).items()}
        case list() | tuple():
            return [_plain(each) for each in cast("list[Any]", value)]
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)


def _is_url(place: str) -> bool:
    return place.startswith(("http://", "https://"))


def _stamp(service: Service, directory: Path) -> str:
    made: list[Any] = [IMPORTER, service.openapi, sorted(service.effects.items())]
    if not _is_url(service.openapi):
        try:
            status = (directory / service.openapi).stat()
            made += [status.st_size, status.st_mtime_ns]
        except OSError:
            made += ["missing"]
    return json.dumps(made)


async def _read(place: str, directory: Path) -> bytes:
    try:
        return await anyio.Path(directory / place).read_bytes()
    except OSError as error:
        raise ConfigInvalid(f"{place} cannot be read: {error.strerror}") from error


async def _fetched(place: str) -> bytes:
    try:
        return await _asked(place)
    except Forbidden as error:
        raise ConfigInvalid(f"{place}: {error}") from error


async def _asked(place: str) -> bytes:
    """Return what is at an address. The operator wrote it down; where it is sent on to, somebody else did."""
    import aiohttp  # noqa: PLC0415 - it takes 0.2 s

    first, url = endpoint(place, is_named=True), place
    try:
        async with asyncio.timeout(FETCH_S_MAX):
            for _ in range(REDIRECTS_MAX):
                following, raw = await _asked_once(url, is_named=endpoint(url, is_named=True).origin == first.origin)
                if following is None:
                    return raw
                url = sent_on(url, following)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ConfigInvalid(f"{place} cannot be fetched: {type(error).__name__}: {error}") from error
    raise ConfigInvalid(f"{place} is sent on more than {REDIRECTS_MAX} times")


async def _asked_once(url: str, *, is_named: bool) -> tuple[str | None, bytes]:
    """Return where an address sends on to, or what it has."""
    from yarl import URL  # noqa: PLC0415 - aiohttp's

    endpoint(url, is_named=is_named)
    async with (
        session(is_named=is_named) as client,
        client.get(URL(url, encoded=True), allow_redirects=False) as response,
    ):
        following = response.headers.get("Location")
        if response.status in (301, 302, 303, 307, 308) and following:
            return following, b""
        if response.status != 200:  # noqa: PLR2004 - RFC 9110, 15.3.1
            raise ConfigInvalid(f"{url} answers {response.status} {response.reason}")
        raw = bytearray()
        async for chunk in response.content.iter_chunked(1 << 16):
            raw += chunk
            if len(raw) > BYTES_MAX:
                break  # `parse` says so
        return None, bytes(raw)


# --- Connections -------------------------------------------------------------------------------------------------------


def _server(document: Document, place: str) -> str:
    """Return the first server of a description, its variables at their defaults.

    Without one it is `/` at the origin that the description came from (OpenAPI 3.1, 4.8.1; Swagger 2 likewise); "" for a
    file, which came from none.
    """
    root = document.root
    if document.version == 2:  # noqa: PLR2004 - Swagger
        host = root.get("host")
        schemes = root.get("schemes") or ["https"]
        scheme = "https" if "https" in schemes else schemes[0]
        path = str(root.get("basePath") or "/")
        return f"{scheme}://{host}{path}" if host else urljoin(place, path) if _is_url(place) else ""
    servers = root.get("servers")
    first = document.target(servers[0]) if isinstance(servers, list) and servers else {}
    url = str(first.get("url") or "/")
    variables = first.get("variables")
    if isinstance(variables, Mapping):
        for name, each in variables.items():  # pyright: ignore[reportUnknownVariableType] - untrusted
            url = url.replace(f"{{{name}}}", str(document.target(each).get("default", "")))
    return urljoin(place, url) if _is_url(place) else url if _is_url(url) else ""


def _scheme(document: Document) -> Mapping[str, str]:
    """Return how a credential is sent: the first scheme that the description asks for, else the first it declares."""
    components = document.target(document.root.get("components"))
    schemes = document.target(document.root.get("securityDefinitions") or components.get("securitySchemes"))
    asked = document.root.get("security")
    names = [name for each in asked for name in each] if isinstance(asked, list) else []
    for name in [*names, *schemes]:
        row = document.target(schemes.get(name))
        match row.get("type"):
            case "apiKey":
                return {"in": str(row.get("in")), "name": str(row.get("name"))}
            case "basic":
                return {"in": "header", "name": "Authorization", "prefix": "Basic "}
            case "http":
                kind = str(row.get("scheme") or "bearer").capitalize()
                return {"in": "header", "name": "Authorization", "prefix": f"{kind} "}
            case "oauth2" | "openIdConnect":
                break
            case _:
                continue
    return {"in": "header", "name": "Authorization", "prefix": "Bearer "}


def _authorise(scheme: Mapping[str, str], secret: str, headers: dict[str, str], query: list[tuple[str, str]]) -> None:
    match scheme["in"]:
        case "query":
            query.append((scheme["name"], secret))
        case "cookie":
            headers["Cookie"] = f"{scheme['name']}={secret}"
        case _:
            prefix = scheme.get("prefix", "")
            headers[scheme["name"]] = prefix + (_basic(secret) if prefix == "Basic " else secret)


def _basic(secret: str) -> str:
    """Return a secret as RFC 7617, 2 wants it: `user:password`, or a key alone as the user; what is encoded already stays."""
    if ":" not in secret:
        with suppress(ValueError):
            if b":" in base64.b64decode(secret, validate=True):
                return secret
        secret += ":"  # as Stripe, Twilio and others take a key
    return base64.b64encode(secret.encode()).decode()
