"""What a model is told before its first program: how to work here, and where to look things up. Never a function's definition.

The text is the same, byte for byte, for one scope in every turn, so that providers can cache it; between scopes only the lines
of services differ. docs/architecture.md, P4.
"""

import re
from collections.abc import Mapping

from overwinter.subset import SYNTAX_MISSING

__all__ = ["CHARACTERS_MAX", "SERVICES_MAX", "brief"]

CHARACTERS_MAX = 2_480
"""At most 640 tokens of o200k, also with names of services that are unlike words: with the tools outside, 700."""
SERVICES_MAX = 20
PIECES_MAX = 135
"""Of the names of services together: a tokeniser cuts what it does not know into pieces of about three letters."""
_PIECE = re.compile(r"[A-Za-z]{1,3}|\d{1,3}|[^A-Za-z\d]")

_TEXT = """\
You act by writing Python programs. A program is checked against the types of every function first: on an error nothing of it
has run, so mend it and send it again. It may run for days: it is saved at each await and goes on with its variables.

Modules (imported already; {total:,} functions, not listed here):
{services}

Look up before you call; never guess a function, a parameter or a field.
  await tools.search("open pull requests", service="github", limit=8)
      one line per function: name(required arguments) -> result - summary [read or write]
  await tools.describe("github.pulls_list")   its stub with the types of arguments and result; also of a type: "stripe.Charge"
  await tools.browse("github.pulls")          every function whose name begins so

Await each call and name its arguments: for p in await github.pulls_list(owner="o", repo="r"): p["title"]
Several at once: await asyncio.gather(a(), b()); if some may fail: await tools.settle(a(), b()).
- Results are plain dicts and lists. A list function follows every page, up to max_items (1,000 if not given, then it fails).
  name_page() gives a single page as the service sends it.
- Filter and count in the program: only print() and the value of its last expression come back, and what is long is cut.
  What was cut says how to read on: await tools.read("RUN", "items[20:40].name"). A file is a handle: pass it on, or read it.
- A failed call raises a built-in exception; await tools.error(e) gives status, code, message, retryable, retry_after.
  Reads are tried again for 429 and 5xx by themselves. PermissionError: policy says no; report it, try no way round.
- Credentials are added outside. await tools.ask(person, question, options=[...]) asks a person, await tools.receive() takes a
  message, await asyncio.sleep(seconds) waits: for days if need be, at no cost.

The language is a subset: no {missing}, no inheritance, no third-party packages. Await in plain code, loops and comprehensions, never
inside a function that is given to sorted, max, map or filter.
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
