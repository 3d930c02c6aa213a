"""The gateway of a home, put together from what `overwinter.toml` says."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from random import SystemRandom
from typing import cast

from overwinter.adapters.dialects import dialects
from overwinter.adapters.models.file import ModelsFile, open_models_file
from overwinter.adapters.models.prices import PRICES_NAME, TablePrices, read_prices
from overwinter.adapters.models.redacting import redaction
from overwinter.adapters.models.spans import open_spans
from overwinter.adapters.models.upstream import Credentials, HttpUpstream, Place, credentials
from overwinter.adapters.references import References
from overwinter.adapters.translations import translations
from overwinter.adapters.vault import Vault
from overwinter.clock import SECOND_US, Clock
from overwinter.config import Config
from overwinter.errors import ConfigInvalid, HomeError
from overwinter.frozen import frozen
from overwinter.gateway import Gateway, Settings
from overwinter.gateway.budget import Line
from overwinter.gateway.dialect import Dialect, DialectName
from overwinter.gateway.routes import Model, Provider, Routes
from overwinter.gateway.upstream import Upstream
from overwinter.policy import Policy

__all__ = ["ModelParts", "load", "open_models"]

CREDENTIAL_US = 60 * SECOND_US
"""How long a credential is used before it is read again."""


@frozen
class ModelParts:
    """What model calls are made with."""

    gateway: Gateway
    file: ModelsFile
    prices: TablePrices
    dialects: Mapping[DialectName, Dialect]
    fault: Callable[[str], str]
    """Returns why the credentials of a provider cannot be read; "": they can, or it needs none."""
    told: Sequence[Callable[[Line], None]] = ()
    """Who besides is told each line that ended."""


def load() -> None:
    """Import what the first call would make all others wait for: half a second, most of it the table of prices."""
    for name in ("aiohttp", "genai_prices"):
        import_module(name)


@asynccontextmanager
async def open_models(  # noqa: PLR0913 - what a gateway is made of
    config: Config,
    path: Path,
    clock: Clock,
    policy: Policy,
    *,
    directory: Path,
    key: bytes,
    may_act: Callable[[str], bool],
    around: Callable[[Upstream], Upstream] | None = None,
) -> "AsyncGenerator[ModelParts]":
    """Open the gateway until the block is left.

    Args:
        config: the home's.
        path: of `models.db`, in the home.
        clock: its time.
        policy: decides each call.
        directory: where `overwinter.toml` lies, with `prices.toml`.
        key: of the home; what is kept is sealed with one made from it.
        may_act: whether an agent is active at this moment.
        around: gives back the way to providers, or another one in its place.

    Raises:
        HomeError: the file is damaged or too new.
        ConfigInvalid: `prices.toml`, or the file of words, cannot be used.
    """
    secret = sha256(b"models\0" + key).digest()
    prices = TablePrices(read_prices(directory / PRICES_NAME), clock)
    places = {name: _place(name, config, directory, Vault(path.parent), clock) for name in config.providers}
    spoken = dialects()
    told = [open_spans()] if config.gateway.spans else []
    cleaner, version = redaction(config.gateway, directory, secret)
    room = config.gateway.answers_mb << 20
    with open_models_file(path, clock, key=secret, answers_bytes_max=room) as file:
        async with HttpUpstream(places) as upstream:
            gateway = Gateway(
                routes=_routes(config),
                dialects=spoken,
                policy=policy,
                cleaner=cleaner,
                answers=file,
                similars=file,
                ledger=file,
                prices=prices,
                upstream=upstream if around is None else around(upstream),
                clock=clock,
                random=SystemRandom(),
                secret=secret,
                settings=Settings(
                    cache_s=config.gateway.cache_s,
                    similar_model=config.gateway.similar_model,
                    similar_min=config.gateway.similar_min,
                    version=version,
                ),
                may_act=may_act,
                translations=translations(),
            )
            yield ModelParts(
                gateway=gateway, file=file, prices=prices, dialects=spoken, fault=partial(_fault, places), told=told
            )


def _routes(config: Config) -> Routes:
    providers = {
        name: Provider(
            name=name,
            dialects=frozenset(cast("tuple[DialectName, ...]", each.dialects)),
            region=each.region,
            retention=each.retention,
            prices=each.prices or name,
            first_byte_s_max=each.first_byte_s,
            idle_s_max=each.idle_s,
        )
        for name, each in config.providers.items()
    }
    models = [
        Model(
            name=name,
            provider=each.provider,
            model=each.model,
            fallbacks=each.fallbacks,
            output_tokens_max=each.output_tokens_max,
            served_nusd_max=round(each.tools_usd * 1_000_000_000) or None,
            input_tokens_max=each.input_tokens_max or None,
        )
        for name, each in config.models.items()
    ]
    return Routes(models, providers)


def _place(name: str, config: Config, directory: Path, vault: Vault, clock: Clock) -> Place:
    declared = config.providers[name]
    where = f"providers.{name}"

    def read() -> Credentials:
        references = References(directory, vault)
        headers = {
            key.lower(): references.whole(value, f"{where}.headers", name=key)
            for key, value in declared.headers.items()
        }
        key = references.whole(declared.auth, f"{where}.auth", name="auth") if declared.auth else ""
        return credentials(key, headers, references.secrets)

    return Place(url=declared.url, credentials=_Remembered(read, clock))


def _fault(places: Mapping[str, Place], provider: str) -> str:
    try:
        places[provider].credentials()
    except (ConfigInvalid, HomeError) as error:
        return str(error)
    return ""


class _Remembered:
    """Reads credentials again after a while, so that new ones need no restart."""

    def __init__(self, read: Callable[[], Credentials], clock: Clock) -> None:
        self._read, self._clock = read, clock
        self._known = Credentials()
        self._until_us = 0

    def __call__(self) -> Credentials:
        """Return how a provider knows us."""
        now_us = self._clock.now_us()
        if now_us >= self._until_us:
            self._known, self._until_us = self._read(), now_us + CREDENTIAL_US
        return self._known
