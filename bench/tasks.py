"""Tokens for a task that is solved: with every function as a tool's definition, with a search tool that gives definitions, and ours.

The tasks are `data/tasks.toml`: a goal, what the model looks for, and the program that it writes. The services answer with the examples of
their own published descriptions, lists of them made as long as a page is. Ours is what really happened: the agent loop with a scripted
model, check, sandbox, HTTP calls; the texts are those that the model was sent. The other two are the same decisions, the same calls and the
same answers as a client writes them down: a turn for each call, or for all calls that do not wait for one another, and the answers of the
services whole in the conversation. Both are given our search, and told nothing but the definitions.

A task's tokens are all that is sent and all that is written, over all of its turns. `priced` counts what was sent before at a tenth and
what the model writes at five times, as providers with a prompt cache charge it.
"""

import json
import re
import tomllib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import mean, median
from typing import Any

from aiohttp import web

from bench.descriptions import DATA, descriptions
from bench.tokens import tokens
from overwinter.adapters.openapi.document import Document, parse
from overwinter.adapters.openapi.operations import operations
from overwinter.app import App
from overwinter.catalog.modules import BuiltFunction, built
from overwinter.config import load
from overwinter.testing import Heard, ScriptedModel, open_test_app

__all__ = ["definition", "measured"]

SIZES = (10, 60, 1_000)
"""Functions in scope, beside all of them."""
FOUND_MAX = 5
"""Definitions that a search tool gives for a query."""
REPEATED, WRITTEN = 0.1, 5
SETTINGS = """
[providers.mock]
url = "http://127.0.0.1:9"
dialects = ["messages"]
prices = "anthropic"

[models.claude-sonnet-5]
provider = "mock"

[gateway]
model = "claude-sonnet-5"
"""
DIRECT = "You act by calling tools. When the task is done, answer."
SEARCHING = f"{DIRECT} Search for the tools that you need first."
SEARCH_TOOL = (
    '{"name":"search_tools","description":"Find tools by what they do. The definitions of those that fit become callable.",'
    '"inputSchema":{"type":"object","properties":{"query":{"type":"string"}},"required":["query"]}}'
)
LOOK = '```python\nfor query in {queries}:\n    print("\\n".join(await tools.search(query, limit=5)))\n```'
DESCRIBE = "```python\nprint(await tools.describe({names}))\n```"
WORK = "```python\n{program}```"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A recorded task."""

    goal: str
    queries: Sequence[str]
    names: Sequence[str]
    """Functions that it needs."""
    program: str
    value: Any
    """What the program comes to: the task is solved."""
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """A conversation: what stands before it, and its turns; every second one, from the second on, is the model's."""

    fixed: Sequence[str]
    turns: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """The functions that the tasks are done among, and the answers of their services."""

    raw: Mapping[str, bytes]
    functions: Mapping[str, BuiltFunction]
    documents: Mapping[str, Document]

    def scope(self, size: int, needed: Sequence[str]) -> list[str]:
        """Return so many functions, evenly from all, with those that are needed among them."""
        names = list(self.functions)
        others = [each for each in names[:: max(1, len(names) // size)] if each not in needed]
        return sorted([*needed, *others[: size - len(needed)]])


async def measured(place: Path, *, is_small: bool) -> dict[str, Any]:
    """Return for each size of the scope and each way what a task needs in tokens, on average."""
    content = tomllib.loads((DATA / "tasks.toml").read_text(encoding="utf-8"))
    tasks = [Task(**each) for each in content["tasks"]]
    wanted = {name.partition(".")[0] for task in tasks for name in task.names} if is_small else None
    catalog = _catalog(wanted)
    needed = sorted({name for task in tasks for name in task.names})
    sizes = [size for size in SIZES if size < len(catalog.functions)] + [len(catalog.functions)]
    found: dict[str, Any] = {}
    counter = _Counter()
    async with _services(catalog.documents, content["pages"]) as (url, sent):
        for size in sizes:
            scope = catalog.scope(size, needed)
            talks: dict[str, list[Talk]] = {"direct": [], "searching": [], "ours": []}
            async with _home(place / str(size), catalog, scope, url) as (app, model):
                for task in tasks:
                    sent.clear()
                    ours, batches = await _done(app, model, task, is_told=size <= SIZES[0])
                    talks["ours"].append(ours)
                    calls = _told(batches, sent)
                    talks["direct"].append(_direct(catalog, scope, task, calls))
                    talks["searching"].append(_searching(app, catalog, task, calls))
            found[str(size)] = _figures({way: [counter.cost(each) for each in made] for way, made in talks.items()})
    return {"tasks": len(tasks), "sizes": found}


def _catalog(wanted: set[str] | None) -> Catalog:
    raw = {name: each for name, each in descriptions().items() if wanted is None or name in wanted}
    documents = {name: parse(each, name) for name, each in raw.items()}
    functions: dict[str, BuiltFunction] = {}
    for name, document in documents.items():
        for each in built(name, operations(document)[0], document.resolve).functions:
            if each.function.is_listed:
                functions[each.function.name] = each
    return Catalog(raw=raw, functions=functions, documents=documents)


# --- Ours, done ------------------------------------------------------------------------------------------------------


class _Model:
    """Says what is set, one line after another, and keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.told: list[Heard] = []

    def __call__(self, heard: Heard) -> str:
        self.told.append(heard)
        return self.lines[len(self.told) - 1]


@asynccontextmanager
async def _home(place: Path, catalog: Catalog, scope: Sequence[str], url: str) -> "AsyncGenerator[tuple[App, _Model]]":
    """Open a home whose agent may call what is in scope."""
    place.mkdir()
    tools = json.dumps(["*"] if len(scope) == len(catalog.functions) else list(scope))
    settings = [SETTINGS, f'[agents.default]\nowner = "owner"\nmodels = ["*"]\ntools = {tools}\n']
    for name, raw in catalog.raw.items():
        (place / f"{name}.json").write_bytes(raw)
        settings.append(f'[services.{name}]\nopenapi = "{name}.json"\nbase_url = "{url}/{name}"\n')
    (place / "overwinter.toml").write_text("\n".join(settings), encoding="utf-8")
    model = _Model()
    config = load(place / "overwinter.toml")
    async with open_test_app(
        place / ".overwinter", {}, directory=place, config=config, models=ScriptedModel(model)
    ) as app:
        yield app, model


async def _done(app: App, model: _Model, task: Task, *, is_told: bool) -> tuple[Talk, list[list[Mapping[str, Any]]]]:
    """Have the task done; return the conversation, and the calls of its program, those together that were made together."""
    looks = [] if is_told else [LOOK.format(queries=list(task.queries)), DESCRIBE.format(names=list(task.names))]
    model.lines, model.told = [*looks, WORK.format(program=task.program), task.answer], []
    run = await app.result(await app.start(goal=task.goal))
    assert run.result["answer"] == task.answer, run.result
    assert run.result["last"], (task.goal, model.told[-1].text)
    done = await app.run(run.result["last"])
    assert done.result == task.value, (task.goal, done.result)
    batches: list[list[Mapping[str, Any]]] = []
    async for event in app.events(done.run_id):
        if event.kind == "called" and event.body["function"] in task.names:
            is_together = "gather" in task.program and bool(batches) and batches[-1][0]["line"] == event.body["line"]
            batches[-1].append(event.body) if is_together else batches.append([event.body])
    body = model.told[-1].body
    system = body["system"] if isinstance(body["system"], str) else "".join(part["text"] for part in body["system"])
    turns = [
        each["content"] if isinstance(each["content"], str) else "".join(part["text"] for part in each["content"])
        for each in body["messages"]
    ]
    return Talk(fixed=[system], turns=[*turns, task.answer]), batches


# --- The same with tools ---------------------------------------------------------------------------------------------


def _told(batches: Sequence[Sequence[Mapping[str, Any]]], sent: Sequence[str]) -> list[tuple[str, str]]:
    """Return for each turn the calls that the model writes and the answers that it is given, as JSON."""
    answers = iter(sent)
    assert sum(map(len, batches)) == len(sent), "each call was one request"
    return [
        (
            json.dumps([{"name": each["function"], "arguments": each["arguments"]} for each in batch]),
            "\n".join(next(answers) for _ in batch),
        )
        for batch in batches
    ]


def _direct(catalog: Catalog, scope: Sequence[str], task: Task, calls: Sequence[tuple[str, str]]) -> Talk:
    fixed = [DIRECT, *(definition(catalog.functions[name]) for name in scope)]
    return Talk(fixed=fixed, turns=[task.goal, *(text for call in calls for text in call), task.answer])


def _searching(app: App, catalog: Catalog, task: Task, calls: Sequence[tuple[str, str]]) -> Talk:
    names = dict.fromkeys(
        each.name.partition("(")[0] for query in task.queries for each in app.search(query, limit=FOUND_MAX)
    )
    names |= dict.fromkeys(task.names)  # found or not: it is not the search that is measured here
    asked = json.dumps([{"name": "search_tools", "arguments": {"query": each}} for each in task.queries])
    given = "\n".join(definition(catalog.functions[name]) for name in names if name in catalog.functions)
    turns = [task.goal, asked, given, *(text for call in calls for text in call), task.answer]
    return Talk(fixed=[SEARCHING, SEARCH_TOOL], turns=turns)


def definition(each: BuiltFunction) -> str:
    """Return a function as a client's tool definition."""
    function = each.function
    tool = {"name": function.name, "description": each.description or function.summary, "inputSchema": each.schema}
    return json.dumps(tool, separators=(",", ":"), ensure_ascii=False)


class _Counter:
    """Counts each text once: the definitions are the same for all tasks."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def sizes(self, texts: Sequence[str]) -> list[int]:
        new = [each for each in dict.fromkeys(texts) if each not in self._known]
        self._known.update(zip(new, tokens(new), strict=True))
        return [self._known[each] for each in texts]

    def cost(self, talk: Talk) -> tuple[int, int]:
        """Return the tokens of a conversation: all that is sent and written, and that at a provider's prices."""
        before = sum(self.sizes(talk.fixed))
        turns = self.sizes(talk.turns)
        sent = [before + size for size in accumulate(turns)][0::2]
        written = turns[1::2]
        known = [0, *(size + said for size, said in zip(sent, written, strict=True))]
        read = sum(REPEATED * old + size - old for size, old in zip(sent, known, strict=False))
        return sum(sent) + sum(written), round(read + WRITTEN * sum(written))


def _figures(costs: Mapping[str, Sequence[tuple[int, int]]]) -> dict[str, Any]:
    """Return of each way the mean and the median of the tasks, and in how many of them ours needs least."""
    figures: dict[str, Any] = {
        way: {
            "tokens": round(mean(total for total, _ in each)),
            "tokens_p50": round(median(total for total, _ in each)),
            "priced": round(mean(priced for _, priced in each)),
        }
        for way, each in costs.items()
    }
    rivals = zip(costs["direct"], costs["searching"], strict=True)
    least = [min(direct, searching)[0] for direct, searching in rivals]
    return {**figures, "ours_least": sum(ours < other for (ours, _), other in zip(costs["ours"], least, strict=True))}


# --- The services ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _services(
    documents: Mapping[str, Document], pages: Sequence[Mapping[str, Any]]
) -> "AsyncGenerator[tuple[str, list[str]]]":
    """Serve the examples of descriptions; yield the address and what was answered, in its order."""
    shaped = {(each["service"], each["at"]): each for each in pages}
    routes = [
        (name, f"{verb.upper()} {path}", _pattern(verb, path), node)
        for name, document in documents.items()
        for path, item in document.root["paths"].items()
        for verb, node in item.items()
        if verb in ("get", "post", "put", "patch", "delete")
    ]
    sent: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        _, service, rest = request.path.split("/", 2)
        fitting = [each for each in routes if each[0] == service and each[2].fullmatch(f"{request.method} /{rest}")]
        _, at, _, node = min(fitting, key=lambda each: each[1].count("{"))
        status, example = _example(documents[service], node)
        text = json.dumps(_paged(example, shaped.get((service, at))))
        sent.append(text)
        return web.Response(text=text, status=status, content_type="application/json")

    application = web.Application()
    application.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", sent
    finally:
        await runner.cleanup()


def _pattern(verb: str, path: str) -> re.Pattern[str]:
    return re.compile(verb.upper() + " " + re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(path)))


def _example(document: Document, node: Mapping[str, Any]) -> tuple[int, Any]:
    """Return status and body of the first success that an operation describes."""
    code = min(each for each in node["responses"] if each.startswith("2"))
    content = document.target(node["responses"][code]).get("content", {})
    media = next(iter(content.values()), {})
    example = media.get("example")
    for each in media.get("examples", {}).values():
        return int(code), document.target(each).get("value")
    return int(code), json.loads(example) if isinstance(example, str) else example


def _paged(example: Any, page: Mapping[str, Any] | None) -> Any:
    """Return an example with its list as long as the page says."""
    if page is None:
        return example
    first = (example[page["under"]] if "under" in page else example)[0]
    items = [
        {
            **first,
            **{key: first[key] + at for key in page["count"]},
            **{key: way[at % len(way)] for key, way in page["cycle"].items()},
        }
        for at in range(page["items"])
    ]
    return {**example, page["under"]: items} if "under" in page else items
