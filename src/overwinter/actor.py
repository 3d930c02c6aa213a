"""Who does something to a home from outside, and how that is known.

| form | who |
|---|---|
| `ana@example.com` | came over TCP with a token of that person |
| `alice (uid 1000)` | came to the home's own socket; the kernel says whose process it was, and `alice` is that account |
| `ana@example.com (claimed by uid 1000)` | the same, and said to act for somebody else: nothing vouches for that name |
"""

import re

from overwinter.errors import UsageError
from overwinter.frozen import frozen

__all__ = ["NAME_LENGTH_MAX", "Actor", "called"]

NAME_LENGTH_MAX = 200
_MARKED = re.compile(r"\((claimed by .*|uid \d+)\)$")


@frozen
class Actor:
    """A person at work."""

    person: str
    """An address or a name, as rules and agents name people."""
    user: str = ""
    """Whose process it was, on this machine: `uid 1000`; "" if it came with a token."""
    is_claimed: bool = False
    """Whether that user said to act for `person`, and nothing vouches for it."""

    def __str__(self) -> str:
        """Return what journal and audit log have of them."""
        if self.is_claimed:
            return f"{self.person} (claimed by {self.user})"
        return f"{self.person} ({self.user})" if self.user and self.user != self.person else self.person


def called(text: str) -> str:
    """Return a person's name as it may be recorded.

    Raises:
        UsageError: it is none, is a list, or looks like what is known of somebody.
    """
    if not text or len(text) > NAME_LENGTH_MAX or not text.isprintable() or "," in text or text != text.strip():
        raise UsageError(
            f"a person is named by at most {NAME_LENGTH_MAX} printable characters, without a comma, not {text!r:.60}"
        )
    if _MARKED.search(text):
        raise UsageError(f"{text!r:.80} ends as what is known of somebody does: leave that to the home")
    return text
