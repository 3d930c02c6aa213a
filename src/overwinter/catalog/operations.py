"""Operations as their source describes them, before they have names in Python."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from overwinter.events import Effect
from overwinter.frozen import frozen

__all__ = ["Argument", "Fault", "Operation", "Place"]

Place = Literal["path", "query", "header", "cookie", "field", "body"]
"""Where an argument goes. `field`: a key of an object body; `body`: the whole body."""


@frozen
class Argument:
    """One argument of an operation."""

    wire: str
    """Its name in the source: `"ids[]"`."""
    place: Place
    schema: Any
    is_required: bool
    summary: str = ""
    style: str = ""
    """How a list or an object is written in a path, a query or a header, as OpenAPI names it; "": the place's default."""
    does_explode: bool | None = None
    """None: the style's default."""


@frozen
class Operation:
    """One thing that a source can do."""

    origin: str
    """What the source calls it; unique there, and stable."""
    fallbacks: tuple[str, ...]
    """What distinguishes it from another of the same name: its HTTP verb, then the nouns of its path."""
    effect: Effect
    summary: str
    description: str
    tags: tuple[str, ...]
    arguments: tuple[Argument, ...]
    result: Any
    """Schema of its result; None: the source declares none."""
    plan: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What its adapter needs to carry it out: plain JSON."""


@frozen
class Fault:
    """What is wrong in one place of a source. The rest of it stays usable."""

    place: str
    what: str
