"""Wire formats of providers, over msgspec: requests read at their top level, answers event by event."""

from collections.abc import Mapping

from overwinter.adapters.dialects.chat import Chat
from overwinter.adapters.dialects.embeddings import Embeddings
from overwinter.adapters.dialects.gemini import Gemini
from overwinter.adapters.dialects.messages import Messages
from overwinter.adapters.dialects.responses import Responses
from overwinter.gateway.dialect import Dialect, DialectName

__all__ = ["dialects"]


def dialects() -> Mapping[DialectName, Dialect]:
    """Return every wire format, by name."""
    return {each.name: each for each in (Chat(), Responses(), Messages(), Gemini(), Embeddings())}
