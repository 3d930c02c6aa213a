"""Prices of models: a table that comes with a library, and one of the operator's own that goes before it.

    [anthropic."claude-sonnet-5"]      # prices.toml, beside overwinter.toml: US dollars for a million tokens
    input = 2.0
    output = 10.0
    cache_read = 0.2                   # left out: as `input`
    cache_write = 2.5
    cache_write_long = 4.0
    window = 1000000

A price that is not there is an error, never a zero: the library prices an unknown tier at the default, and a model that it lists
without prices at nothing.
"""

import tomllib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from overwinter.clock import SECOND_US, Clock
from overwinter.errors import ConfigInvalid
from overwinter.frozen import frozen
from overwinter.gateway.prices import Unpriced
from overwinter.gateway.usage import Rates

__all__ = ["PRICES_NAME", "TablePrices", "read_prices"]

PRICES_NAME = "prices.toml"
REMEMBERED_MAX = 4_096
NUSD_PER_MTOK = Fraction(1_000)
"""One dollar for a million tokens is a thousand nano-dollars for a token."""
NUSD_PER_1000 = Fraction(1_000_000)
"""One dollar for a thousand pieces, in nano-dollars a piece."""
DEFAULT_TIERS = frozenset({"", "default", "standard", "auto", "on_demand"})
OWN = ("input", "output", "cache_read", "cache_write", "cache_write_long", "audio_input", "audio_output", "search")
GEO_TIMES: Mapping[tuple[str, str], Fraction] = {("anthropic", "us"): Fraction(11, 10)}
"""By provider and place, how much dearer each token is that was asked to be made there (`inference_geo`); a search is not. On top of
the price of a speed, and of one in `prices.toml`. The library (0.2.3) has no data for it. Source, read on 2026-11-28:
docs.aws.amazon.com/claude-platform/latest/userguide/data-residency.html ("A 1.1x pricing multiplier applies")."""
HOUR_US = 3_600 * SECOND_US


@frozen
class _Steps:
    """The rates of one model at one tier: prompts of more tokens than `starts[i]` are billed whole by `rates[i + 1]`."""

    starts: tuple[int, ...]
    rates: tuple[Rates, ...]


class TablePrices:
    """See `gateway.prices.Prices`."""

    def __init__(self, own: Mapping[str, Mapping[str, Mapping[str, Any]]], clock: Clock) -> None:
        self._own, self._clock = own, clock
        self._steps = lru_cache(REMEMBERED_MAX)(self._steps_of)
        self._found = lru_cache(REMEMBERED_MAX)(_found)

    def rates(self, provider: str, model: str, tier: str, input_tokens: int) -> Rates:
        """Return what a token costs.

        Raises:
            Unpriced: it is not known.
        """
        steps = self._steps(
            provider, model, tier, self._clock.now_us() // HOUR_US
        )  # some prices change by the hour of the day
        return steps.rates[bisect_left(steps.starts, input_tokens)]

    def window(self, provider: str, model: str) -> int | None:
        """Return the context window of a model in tokens; None: it is not known."""
        if (own := self._own.get(provider, {}).get(model)) is not None and "window" in own:
            return int(own["window"])
        found = self._found(provider, model)
        return None if found is None else found.context_window

    def _steps_of(self, provider: str, model: str, tier: str, hour: int) -> _Steps:
        rest, _, geo = tier.rpartition("+")
        if (times := GEO_TIMES.get((provider, geo))) is not None:
            steps = self._steps(provider, model, rest, hour)
            return _Steps(starts=steps.starts, rates=tuple(_dearer(each, times, geo) for each in steps.rates))
        own = self._own.get(provider, {}).get(model)
        if own is not None:
            if tier not in DEFAULT_TIERS:
                raise Unpriced(f"{PRICES_NAME} has no tier {tier!r} of {provider}/{model}")
            return _Steps(starts=(), rates=(_own(own),))
        found = self._found(provider, model)
        if found is None:
            raise Unpriced(f"no entry for {provider}/{model}")
        moment = datetime.fromtimestamp(hour * 3_600, UTC)
        prices: Any = found.get_prices(moment, _context(found, tier, moment) or None)
        values = {name: value for name, value in vars(prices).items() if value is not None}
        if "input_mtok" not in values:
            raise Unpriced(f"the entry for {provider}/{model} has no prices")
        starts = sorted({step.start for value in values.values() for step in getattr(value, "tiers", ())})
        return _Steps(
            starts=tuple(starts), rates=tuple(_rates(values, each) for each in (0, *(start + 1 for start in starts)))
        )


def read_prices(path: Path) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """Return the operator's own prices: provider to model to rates; none if there is no file.

    Raises:
        ConfigInvalid: the file cannot be used.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Fraction)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigInvalid(f"{path}: {error}") from error
    for provider, models in document.items():
        for model, rates in cast("Mapping[str, Any]", models if isinstance(models, dict) else {"": models}).items():
            place = f"{path}: {provider}.{model!r}"
            if not isinstance(rates, dict):
                raise ConfigInvalid(f"{place} is no table of rates: input, output, ...")
            _judged(cast("Mapping[str, Any]", rates), place)
    return document


def _judged(rates: Mapping[str, Any], place: str) -> None:
    if unknown := set(rates) - {*OWN, "window"}:
        raise ConfigInvalid(f"{place}: {', '.join(sorted(unknown))} is no rate: there are {', '.join(OWN)} and window")
    if wrong := [
        name
        for name, value in rates.items()
        if isinstance(value, bool) or not isinstance(value, int | Fraction) or value < 0
    ]:
        raise ConfigInvalid(f"{place}: {', '.join(wrong)} is no number of US dollars")
    if not {"input", "output"} <= set(rates):
        raise ConfigInvalid(f"{place}: input and output are needed")


def _own(rates: Mapping[str, Any]) -> Rates:
    fresh, output = Fraction(rates["input"]) * NUSD_PER_MTOK, Fraction(rates["output"]) * NUSD_PER_MTOK
    told = {name: Fraction(rates[name]) * NUSD_PER_MTOK for name in OWN if name in rates}
    return Rates(
        fresh=fresh,
        output=output,
        cache_read=told.get("cache_read", fresh),
        cache_write=told.get("cache_write", fresh),
        cache_write_long=told.get("cache_write_long", told.get("cache_write", fresh)),
        audio_input=told.get("audio_input", fresh),
        audio_output=told.get("audio_output", output),
        search=Fraction(rates.get("search", 0)) * NUSD_PER_1000,
        extra={"source": PRICES_NAME},
    )


def _rates(values: Mapping[str, Any], input_tokens: int) -> Rates:
    def rate(name: str, other: Fraction) -> Fraction:
        value = values.get(name)
        if value is None:
            return other
        if hasattr(value, "tiers"):
            applicable = [step.price for step in value.tiers if input_tokens > step.start]
            value = applicable[-1] if applicable else value.base
        return Fraction(value) * NUSD_PER_MTOK

    fresh = rate("input_mtok", Fraction(0))
    output = rate("output_mtok", Fraction(0))
    write = rate("cache_write_mtok", fresh)
    searches = values.get("web_searches_kcount")
    return Rates(
        fresh=fresh,
        output=output,
        cache_read=rate("cache_read_mtok", fresh),
        cache_write=write,
        cache_write_long=rate("cache_write_1h_mtok", write),
        audio_input=rate("input_audio_mtok", fresh),
        audio_output=rate("output_audio_mtok", output),
        search=Fraction(searches or 0) * NUSD_PER_1000,
        extra={"source": "genai-prices"},
    )


def _dearer(rates: Rates, times: Fraction, geo: str) -> Rates:
    return replace(
        rates, fresh=rates.fresh * times, output=rates.output * times, cache_read=rates.cache_read * times,
        cache_write=rates.cache_write * times, cache_write_long=rates.cache_write_long * times,
        audio_input=rates.audio_input * times, audio_output=rates.audio_output * times, extra={**rates.extra, "geo": geo},
    )  # fmt: skip


def _context(model: Any, tier: str, moment: datetime) -> dict[str, str]:
    """Return what tells the prices of a tier from the default ones.

    Those of batches are none of a call's: a request that asks for the tier `batch` gets no batch, nor its price.

    Raises:
        Unpriced: nobody says what the tier costs.
    """
    if tier in DEFAULT_TIERS:
        return {}
    variants: Sequence[Any] = model.price_variants or ()
    for each in variants:
        is_active = each.constraint is None or each.constraint.active(moment)
        if is_active and list(each.when.values()) == [tier] and not each.when.keys() & {"processing"}:
            return dict(each.when)
    raise Unpriced(f"no price of {model.id} for tier {tier!r}")


def _found(provider: str, model: str) -> Any:
    """Return a model of the library's table; None: it is not there, which takes a look at every pattern of a provider."""
    from genai_prices import data_snapshot  # noqa: PLC0415 - 0.17 s and 37 MB, for whoever calls a model

    try:
        return data_snapshot.get_snapshot().find_provider_model(model, None, provider, None)[1]
    except LookupError:
        return None
