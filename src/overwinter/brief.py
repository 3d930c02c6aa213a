"""What a model is told before its first program: how to work here, and where to look things up. Never a function's definition.

The text is the same, byte for byte, for one scope in every turn, so that providers can cache it; between scopes only the lines
of services differ. docs/architecture.md, P4.
"""

import re
from collections.abc import Mapping

from overwinter.subset import SYNTAX_MISSING

__all__ = ["CHARACTERS_MAX", "SERVICES_MAX", "brief"]

CHARACTERS_MAX = 1_900
"""At most 490 tokens of o200k, also with names of services that are unlike words: 700 with all that an MCP client sends."""
SERVICES_MAX = 20
PIECES_MAX = 60
"""Of the names of services together: a tokeniser cuts what it does not know into pieces of about three letters."""
_PIECE = re.compile(r"[A-Za-z]{1,3}|\d{1,3}|[^A-Za-z\d]")

_TEXT = """\
You act by writing Python programs. Each is checked against all types first: on an error nothing ran, so mend it and send it
again. It may run for days: it is saved at each await and keeps its variables.

Modules (imported; {total:,} functions):
{services}

Look up before you call; never guess a function, parameter or field.
  await tools.search("open pull requests", service="github"): name(required) -> result, a line each
  await tools.describe("github.pulls_list"): stub and types; also of a type: "stripe.Charge"
  await tools.browse("github.pulls"): names that begin so

Await each call and name its arguments: for p in await github.pulls_list(owner="o", repo="r"): p["title"]
Several at once: await asyncio.gather(a(), b()), or tools.settle(a(), b()) if some may fail.
- A list function follows every page up to max_items (1,000 if not given, then it fails); name_page() gives one as sent.
- Only print() and the value of the last expression come back, cut if long: filter and count in it.
  To read on: await tools.read("RUN", "items[20:40].name"). A file is a handle: pass it on, or read it.
- A failed call raises a built-in exception; await tools.error(e) gives status, code, message, retryable, retry_after.
  Reads are retried. PermissionError: policy says no; report it, try no way round.
- Credentials are added outside. await tools.ask(person, question, options=[...]) asks a person, await tools.receive() takes a
  message, await asyncio.sleep(seconds) waits, for days.

It is a subset: no {missing}, inheritance or third-party packages;
no await in a function given to sorted, max, map or filter.
"""


def brief(services: Mapping[str, int]) -> str:
    """Return the text for a scope.

    Args:
        services: name to how many functions of it are in scope; those with none are left out.
    """
    shown = sorted(((name, count) for name, count in services.items() if count), key=lambda each: (-each[1], each[0]))
    words, pieces = list[str](), 0
    for name, count in shown[:SERVICES_MAX]:
        word = f"{name} ({count:,})"
        pieces += len(_PIECE.findall(word))
        if pieces > PIECES_MAX:
            break
        words.append(word)
    more = len(shown) - len(words)
    tail = [f"and {more} more: await tools.services()"] if more else []
    return _TEXT.format(
        total=sum(services.values()),
        services="\n".join(_lines([*words, *tail])) or "  none yet",
        missing=", ".join(sorted(SYNTAX_MISSING)),
    )


def _lines(words: list[str]) -> list[str]:
    lines, line = list[str](), " "
    for word in words:
        if len(line) + len(word) > 118:  # noqa: PLR2004 - as wide as the rest of the text
            lines.append(line)
            line = " "
        line += f" {word}"
    return [*lines, line] if line.strip() else lines
