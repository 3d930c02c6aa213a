"""Where a model's calls go: one provider first, others when it fails before it has said anything."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from overwinter.frozen import frozen
from overwinter.gateway.dialect import DialectName
from overwinter.gateway.refusal import ModelRefused, Refusal

__all__ = ["PATTERN", "Breaker", "Model", "Provider", "Route", "Routes", "Target"]

FAILURES_MAX = 5
"""Failures in a row after which a provider is left alone for a while."""
OPEN_S = 15.0
"""How long; then one call tries it."""
NAMES_SHOWN = 3
PATTERN = re.compile(r"[*?]")
"""What makes the name of a declaration one of many."""


@frozen
class Provider:
    """Who answers: an address, the formats that it speaks, and what a rule may know about it."""

    name: str
    dialects: frozenset[DialectName]
    region: str = ""
    """Where it computes, as the operator says."""
    retention: str = ""
    """How long it keeps what it is sent, as the operator says: `"none"`, `"30d"`."""
    prices: str = ""
    """Its name in the table of prices."""
    first_byte_s_max: float = 120.0
    idle_s_max: float = 60.0
    """The longest silence inside an answer."""


@frozen
class Model:
    """A name that clients ask for, or a pattern of names."""

    name: str
    provider: str
    model: str = ""
    """As the provider calls it; "": as it was asked for."""
    fallbacks: tuple[str, ...] = ()
    """Other models of ours that answer when this one cannot, in this order."""
    output_tokens_max: int = 16_384
    """Limit for a request under a budget that has none of its own."""
    served_nusd_max: int | None = None
    """What tools that the provider runs itself may cost in one call besides, by the operator's word; None: nobody says."""
    input_tokens_max: int | None = None
    """Its context window: bounds what a call can cost where its text is not in the request. None: as the prices say."""


@frozen
class Target:
    """One way to answer a call."""

    provider: Provider
    model: str
    """As the provider calls it."""
    declared: Model


@frozen
class Route:
    """Every way to answer a call, the first choice first."""

    asked: str
    targets: tuple[Target, ...]


class Routes:
    """The models of a home."""

    def __init__(self, models: Sequence[Model], providers: Mapping[str, Provider]) -> None:
        self._models, self._providers = models, providers
        self._plain = {each.name: each for each in models}

    @property
    def models(self) -> Sequence[Model]:
        """Return them all, in the order of the configuration."""
        return self._models

    def provider(self, name: str) -> Provider:
        """Return a provider that a model names."""
        return self._providers[name]

    def of(self, asked: str) -> Route:
        """Return the ways to answer a call for a model: declared by this very name, or by the first pattern that fits.

        Raises:
            ModelRefused: there is none.
        """
        declared = self._declared(asked)
        if declared is None:
            near = difflib.get_close_matches(asked, list(self._plain), NAMES_SHOWN)
            known = f"did you mean {' or '.join(near)}?" if near else "`overwinter models list` shows those that are"
            message = f"no model {asked[:200]!r} is declared: {known}"
            raise ModelRefused(Refusal(why="unknown-model", message=message))
        others = [found for name in declared.fallbacks if (found := self._declared(name)) is not None]
        targets = [self._target(declared, asked), *(self._target(each, each.name) for each in others)]
        return Route(asked=asked, targets=tuple(targets))

    def one(self, asked: str) -> Route:
        """Return the same for a model that somebody asks for.

        Raises:
            ModelRefused: there is none, or a pattern is asked for, which stands for many.
        """
        if PATTERN.search(asked):
            message = f"{asked[:200]!r} is a pattern: ask for one of the models that it stands for, by its name"
            raise ModelRefused(Refusal(why="unknown-model", message=message))
        return self.of(asked)

    def _declared(self, asked: str) -> Model | None:
        found = self._plain.get(asked)
        return found or next((each for each in self._models if fnmatchcase(asked, each.name)), None)

    def _target(self, declared: Model, asked: str) -> Target:
        return Target(provider=self._providers[declared.provider], model=declared.model or asked, declared=declared)


@dataclass(slots=True)
class _Health:
    failures: int = 0
    open_until_us: int = 0
    is_tried: bool = False
    why: str = ""


@dataclass(slots=True)
class Breaker:
    """Leaves a provider alone that has failed again and again; then lets one call find out whether it is back."""

    _health: dict[str, _Health] = field(default_factory=dict[str, _Health])

    def lets(self, provider: str, now_us: int) -> bool:
        """Whether a call may go to a provider now. A yes to one that was left alone is for one call."""
        health = self._health.get(provider)
        if health is None or health.failures < FAILURES_MAX:
            return True
        if self.is_open(provider, now_us):
            return False
        health.is_tried = True
        return True

    def is_open(self, provider: str, now_us: int) -> bool:
        """Whether a provider is left alone at an instant, or one call is just finding out whether it is back."""
        health = self._health.get(provider)
        if health is None or health.failures < FAILURES_MAX:
            return False
        return now_us < health.open_until_us or health.is_tried

    def answered(self, provider: str) -> None:
        """Say that a provider works."""
        self._health.pop(provider, None)

    def failed(self, provider: str, now_us: int, why: str = "") -> None:
        """Say that a provider failed by its own fault, and in its words how."""
        health = self._health.setdefault(provider, _Health())
        health.why = why or health.why
        health.failures += 1
        health.open_until_us = now_us + round(OPEN_S * 1_000_000)
        health.is_tried = False

    def left(self, provider: str) -> None:
        """Say that a call ended without showing whether the provider works."""
        health = self._health.get(provider)
        if health is not None:
            health.is_tried = False

    def why(self, provider: str) -> str:
        """Return how a provider failed the last time; "": nobody said."""
        health = self._health.get(provider)
        return "" if health is None else health.why

    def open_until_us(self, provider: str) -> int | None:
        """Return until when a provider is left alone; None: it is not."""
        health = self._health.get(provider)
        return health.open_until_us if health is not None and health.failures >= FAILURES_MAX else None
