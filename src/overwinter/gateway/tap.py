"""What is known of an answer while it comes: whether it has begun, how it ended, what it used."""

import re
from dataclasses import dataclass

from overwinter.frozen import replace
from overwinter.gateway.dialect import Asked, Event
from overwinter.gateway.usage import Usage

__all__ = ["BYTES_PER_TOKEN", "SERVED", "Tap"]

BYTES_PER_TOKEN = 4
"""For estimates alone: English text has about four bytes a token with every provider's tokenizer."""
MESSAGE_CHARACTERS_MAX = 2_000
SERVED = re.compile(rb"""(?x)
    "type" \s* : \s* "(?:
        (?! (?:function|custom_tool|local_shell|shell|apply_patch|computer)_call" ) \w+_call
        | mcp_list_tools | mcp_approval_request | server_tool_use | mcp_tool_use | \w+_tool_result | url_citation )"
    | "(?:groundingMetadata|urlContextMetadata|executableCode|codeExecutionResult|search_results)" \s* :""")
"""What is in an answer for which the provider looked something up or ran something: it was true at that moment. Quotes in a
text are escaped, so these words are never a part of one."""


@dataclass(slots=True)
class Tap:
    """One for every attempt. A stated count is taken as it is, a zero too; what nobody states is estimated and says so."""

    asked: Asked
    has_begun: bool = False
    """Something that a client asked for has come: from now on there is no second try."""
    is_whole: bool = False
    """Its dialect's own end has come."""
    error: Event | None = None
    usage: Usage | None = None
    stop: str = ""
    answer_id: str = ""
    output_bytes: int = 0
    has_ended: bool = False
    """All its bytes have come, whatever they are."""
    has_served: bool = False
    """Its provider has run a tool of its own for it."""

    def see(self, event: Event) -> None:
        """Take note of an event."""
        self.usage = event.usage or self.usage
        self.stop = event.stop or self.stop
        self.answer_id = event.answer_id or self.answer_id
        if self.asked.served and not self.has_served:
            self.has_served = SERVED.search(event.wire) is not None
        if event.kind == "opening" and event.answer_id and self.asked.is_background:
            self.has_begun = True  # the provider makes it whatever becomes of this call: its name is what counts
        if event.kind == "content":
            self.has_begun = True
            for each in event.texts:
                self.output_bytes += len(each.text)
        elif event.kind == "terminal":
            self.has_begun = self.is_whole = True
            if not self.output_bytes:  # an answer in one piece; at the end of a stream its texts are only said again
                told = 0 if event.whole is None else event.whole.output_bytes
                known = told + sum(len(each.text) for each in event.texts)
                self.output_bytes = len(event.wire) if event.is_unread else known
        elif event.kind == "error":
            self.error = event

    @property
    def used(self) -> Usage:
        """Return what was used: by the provider's word if the answer is whole, else by our estimate on top of it."""
        if self.usage is not None and self.is_whole:
            return self.usage
        known = self.usage or Usage(fresh=-(-self.asked.size_bytes // BYTES_PER_TOKEN))
        output = max(known.output, -(-self.output_bytes // BYTES_PER_TOKEN))
        return replace(known, output=output, source="estimated")

    @property
    def is_silent(self) -> bool:
        """Whether nothing at all came of an answer in one piece: its provider may make it to its end, and bill that, with nobody there."""
        is_going_on = self.asked.operation == "generate" and not self.asked.is_stream and not self.has_ended
        return is_going_on and not self.has_begun and self.usage is None and self.error is None

    @property
    def trouble(self) -> str:
        """Return what the provider said went wrong, cut."""
        return (self.error.message if self.error else "")[:MESSAGE_CHARACTERS_MAX]
