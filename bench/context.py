"""What a model must read before its first program, with 10, 1,000 and all functions, and what whole tasks take: ours, and with plain definitions.

Tokens are those of o200k. Cloudflare's published figure for its own server over 2,594 endpoints is 1,069 of them.
"""

from functools import partial
from typing import Any

import anyio
import uvloop

from bench.descriptions import descriptions
from bench.report import project
from bench.tasks import definition, measured
from bench.tokens import tokens
from overwinter.adapters.openapi.document import parse
from overwinter.adapters.openapi.operations import operations
from overwinter.brief import brief
from overwinter.catalog.modules import BuiltFunction, built

OUTSIDE = (
    "search(query, service=None, limit=8): functions that fit, a line each. describe(names): their stubs. "
    "execute(program): check and run it; its value, or a run to wait for."
)
"""The three tools outside a program, a sentence each, as a client declares them."""
RIVAL_TOKENS = 1_069


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    found = list(descriptions().items())[: 3 if is_small else None]
    functions: dict[str, list[BuiltFunction]] = {}
    for name, raw in found:
        document = parse(raw, name)
        made = built(name, operations(document)[0], document.resolve).functions
        functions[name] = [each for each in made if each.function.is_listed]
    everything = [(name, each) for name, members in functions.items() for each in members]
    sizes: dict[str, Any] = {}
    texts: list[str] = []
    for count in (10, 1_000, len(everything)):
        scope = everything[:: max(1, len(everything) // count)][:count]
        services: dict[str, int] = {}
        for name, _ in scope:
            services[name] = services.get(name, 0) + 1
        text = brief(services)
        assert text == brief(dict(reversed(services.items()))), "the same scope gives the same bytes"
        texts.append(text)
        fixed, outside, *plain = tokens([text, OUTSIDE, *(definition(each) for _, each in scope)])
        sizes[str(count)] = {"fixed_tokens": fixed + outside, "definitions_tokens": sum(plain)}
    with project("") as place:
        solved = anyio.run(
            partial(measured, place, is_small=is_small), backend_options={"loop_factory": uvloop.new_event_loop}
        )
    return {
        "functions": len(everything),
        "sizes": sizes,
        "identical": len({_without_services(text) for text in texts}) == 1,
        "rival_tokens": RIVAL_TOKENS,
        "solved": solved,
    }


def _without_services(text: str) -> str:
    before, _, rest = text.partition("Modules (")
    return before + rest.partition("\n\n")[2]
