"""What a model call used, and what that costs: whole tokens, whole nano-dollars, never a float."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm
from typing import Literal

from overwinter.frozen import frozen

__all__ = ["Rates", "Source", "Usage", "cost_nusd"]

Source = Literal["provider", "estimated", "unknown"]
"""Who says what a call used: its provider; we, from what we saw; nobody."""


@frozen
class Usage:
    """The tokens of one call. No token is in two counts, whatever its provider's own fields include."""

    fresh: int = 0
    """Input that was neither read from a prompt cache nor written to one."""
    cache_read: int = 0
    cache_write: int = 0
    """Written to a prompt cache for its shortest time to live, or for one that nobody named."""
    cache_write_long: int = 0
    """Written for a longer one, which costs more: an hour for Anthropic, twelve for OpenAI."""
    output: int = 0
    """All output: text, reasoning, rejected predictions."""
    reasoning: int = 0
    """The part of `output` that was reasoning; for information, it is billed as output."""
    audio_input: int = 0
    audio_output: int = 0
    tier: str = ""
    """Service tier, speed or processing that was used, as the provider names it; "" is its default. Where the answer was made stands
    behind it if that has a price of its own: "us", "fast+us"."""
    searches: int = 0
    """Web searches of the provider's own, billed by the piece."""
    model: str = ""
    """Which model did it, if the provider says so and it is another one than was asked."""
    also: tuple["Usage", ...] = ()
    """What other models did for the same call (compaction, an advisor, a fallback), each with its `model`."""
    source: Source = "provider"

    @property
    def input(self) -> int:
        """Return all input tokens."""
        return self.fresh + self.cache_read + self.cache_write + self.cache_write_long + self.audio_input


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a model costs at one tier and one size of prompt, in nano-dollars a token; a search in nano-dollars."""

    fresh: Fraction
    output: Fraction
    cache_read: Fraction
    cache_write: Fraction
    cache_write_long: Fraction
    audio_input: Fraction
    audio_output: Fraction
    search: Fraction = Fraction(0)
    extra: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the rates hang on, for people: tier, step of size, where they come from."""
    unit: int = field(init=False, repr=False, compare=False)
    """How many of the amounts below are a nano-dollar: a sum of fractions takes 3 us a term, one of whole numbers 0.1."""
    whole: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """The rates in their order."""

    def __post_init__(self) -> None:
        """Count the rates in the largest unit in which they all are whole."""
        rates = (
            self.fresh, self.output, self.cache_read, self.cache_write, self.cache_write_long, self.audio_input, self.audio_output,
            self.search,
        )  # fmt: skip
        unit = lcm(*(each.denominator for each in rates))
        object.__setattr__(self, "unit", unit)
        object.__setattr__(self, "whole", tuple(int(each * unit) for each in rates))


def cost_nusd(usage: Usage, rates: Rates) -> int:
    """Return what a call costs, in nano-dollars, rounded up once; `also` is not in it."""
    fresh, output, cache_read, cache_write, cache_write_long, audio_input, audio_output, search = rates.whole
    total = (
        usage.fresh * fresh
        + usage.output * output
        + usage.cache_read * cache_read
        + usage.cache_write * cache_write
        + usage.cache_write_long * cache_write_long
        + usage.audio_input * audio_input
        + usage.audio_output * audio_output
        + usage.searches * search
    )
    return -(-total // rates.unit)
