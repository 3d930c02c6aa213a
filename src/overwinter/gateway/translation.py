"""A client that speaks one dialect, and a model whose provider speaks another."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from overwinter.gateway.dialect import AnswerReader, Asked, DialectName, Means, Wire
from overwinter.gateway.refusal import ModelRefused
from overwinter.gateway.routes import Target

__all__ = ["Translation", "Translations", "able", "between", "left_out"]


class Translation(Protocol):
    """Turns requests of one dialect into those of another, and answers back. What it cannot carry it refuses by name."""

    @property
    def spoken(self) -> DialectName:
        """Return the provider's dialect."""
        ...

    def forward(self, asked: Asked, means: Means) -> Wire:
        """Return what the provider gets.

        Raises:
            ModelRefused: a field has no counterpart, named by its place.
        """
        ...

    def left_out(self, asked: Asked) -> tuple[str, ...]:
        """Return what the provider does not get of a request that can be turned: hints that change no answer, by their places."""
        ...

    def reader(self, asked: Asked, *, is_stream: bool) -> AnswerReader:
        """Return a reader of the provider's answer, whose events are the client's: their bytes, texts and ends."""
        ...


Translations = Mapping[tuple[DialectName, DialectName], Translation]
"""By the client's dialect and the provider's."""


def between(asked: Asked, target: Target, known: Translations) -> Translation | None:
    """Return what stands between a client and a provider; None: nothing need, or nothing can."""
    spoken = target.provider.dialects
    if asked.dialect in spoken:
        return None
    return next(
        (each for (client, _), each in known.items() if client == asked.dialect and each.spoken in spoken), None
    )


def able(asked: Asked, targets: Sequence[Target], known: Translations) -> Sequence[Target]:
    """Return the targets that can answer a request, in their order.

    Raises:
        ModelRefused: none can, for a field of it.
    """
    found, refused = list[Target](), list[ModelRefused]()
    for each in targets:
        if asked.dialect in each.provider.dialects:
            found.append(each)
        elif (translation := between(asked, each, known)) is not None:
            try:
                translation.forward(asked, Means(model=each.model, output_tokens_max=asked.output_tokens_max or 1))
                found.append(each)
            except ModelRefused as error:
                refused.append(error)
    if not found and refused:
        raise refused[0]
    return found


def left_out(asked: Asked, target: Target, known: Translations) -> tuple[str, ...]:
    """Return what a provider did not get of a request."""
    translation = between(asked, target, known)
    return () if translation is None else translation.left_out(asked)
