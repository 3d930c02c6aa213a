"""What models cost: the table that budgets and bills go by."""

from typing import Protocol

from overwinter.frozen import frozen, replace
from overwinter.gateway.usage import Rates, Usage, cost_nusd

__all__ = ["Bound", "Prices", "Unpriced", "bill", "bill_at_default", "bound_nusd"]


class Unpriced(Exception):
    """Nobody says what this costs: no entry, an entry without prices, or a tier that is not in it."""


class Prices(Protocol):
    """Rates by provider, model, tier and size of the prompt."""

    def rates(self, provider: str, model: str, tier: str, input_tokens: int) -> Rates:
        """Return what a token costs.

        Raises:
            Unpriced: it is not known.
        """
        ...

    def window(self, provider: str, model: str) -> int | None:
        """Return the context window of a model in tokens; None: it is not known."""
        ...


def bill(prices: Prices, provider: str, model: str, usage: Usage) -> int:
    """Return what a call cost, with what other models did for it, in nano-dollars.

    Raises:
        Unpriced: a part of it has no price.
    """
    total = 0
    for each in (usage, *usage.also):
        name = each.model or model
        total += cost_nusd(each, prices.rates(provider, name, each.tier, each.input))
    return total


def bill_at_default(prices: Prices, provider: str, model: str, usage: Usage) -> int:
    """Return what a call would have cost at the default tier; 0 if that has no price either.

    For one that was answered at a tier without a price: booked at nothing, such calls would never spend a budget.
    """
    plain = replace(usage, tier="", also=tuple(replace(each, tier="") for each in usage.also))
    try:
        return bill(prices, provider, model, plain)
    except Unpriced:
        return 0


@frozen
class Bound:
    """The most that a call can cost."""

    nusd: int = 0
    output_tokens_max: int | None = None
    """Limit to be put into a request that has none; None: it stays as it is."""


def bound_nusd(rates: Rates, input_tokens: int, output_tokens: int) -> int:
    """Return the most that so many tokens can cost: all input written to the dearest cache, all output used."""
    fresh, output, _, cache_write, cache_write_long, audio_input, audio_output, _ = rates.whole
    dearest = max(fresh, cache_write, cache_write_long, audio_input)
    return -(-(input_tokens * dearest + output_tokens * max(output, audio_output)) // rates.unit)
