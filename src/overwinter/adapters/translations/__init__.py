"""Clients of one wire format and providers of another: chat completions and messages, in both directions.

Carried: text, system prompts, tools, their calls and results, images as data, the limit of output, temperature, words to stop at,
streams, usage. Everything else in a request is refused by its place, `messages[2].content[0].citations`, unless it says what
holds anyway (`"n": 1`) or is a hint that changes no answer (`hints`). What a model thinks is counted and not carried: it is signed for its own dialect.
"""

from collections.abc import Mapping

from overwinter.adapters.translations.chat_to_messages import ChatToMessages
from overwinter.adapters.translations.messages_to_chat import MessagesToChat
from overwinter.gateway.dialect import DialectName
from overwinter.gateway.translation import Translation

__all__ = ["translations"]


def translations() -> Mapping[tuple[DialectName, DialectName], Translation]:
    """Return every translation, by the client's dialect and the provider's."""
    return {("chat", "messages"): ChatToMessages(), ("messages", "chat"): MessagesToChat()}
