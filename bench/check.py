"""Whether the check before a run finds mistakes and passes correct calls: each operation of five descriptions.

A correct call has generated arguments that satisfy the operation's own schema, inline and in variables. Each mistake is put
into it mechanically: no model was asked.

A part of the mistakes is then started as a run in a home whose five services are a server on loopback that counts what it is
asked: that is `host_calls`, beside `started`.
"""

import ast
import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any

import anyio
import jsonschema_rs

from bench.descriptions import descriptions
from bench.report import percentile, project
from overwinter.adapters.monty.launcher import open_launcher
from overwinter.adapters.monty.posture import JailSettings
from overwinter.adapters.monty_checker import MontyChecker, open_checker
from overwinter.adapters.openapi.document import parse
from overwinter.adapters.openapi.operations import operations
from overwinter.app import App
from overwinter.catalog.modules import Built, BuiltFunction, built
from overwinter.errors import CheckFailed

STARTED = 200
"""Mistakes that are started as runs."""
CHOSEN = ("github", "stripe", "cloudflare", "slack", "box")
DEPTH_MAX = 6
Stubs = Mapping[str, str]


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    return anyio.run(measured, 20 if is_small else 1)


async def measured(every: int) -> dict[str, Any]:
    """Check one operation of `every`."""
    found = descriptions()
    services = {name: _built(name, found[name]) for name in CHOSEN}
    stubs = {name: service.stub for name, service in services.items()}
    tally: dict[str, list[int]] = {}
    times: list[float] = []
    missed: list[str] = []
    mistakes: list[str] = []
    jail = JailSettings()
    with open_launcher(jail) as launcher:
        cold_ms = await _cold(launcher, jail, {"github": stubs["github"]})
        async with open_checker(launcher=launcher, jail=jail) as checker:
            for name, service in services.items():
                functions = [each for each in service.functions if each.function.is_listed][::every]
                await checker.check(f"import {name}", stubs, {})
                for each in functions:
                    for kind, program in programs(each):
                        began = time.perf_counter()
                        is_refused = await _refused(checker, program, stubs)
                        times.append(time.perf_counter() - began)
                        if not kind.startswith("correct"):
                            mistakes.append(program)
                        row = tally.setdefault(kind, [0, 0])
                        row[0] += 1
                        row[1] += is_refused
                        if is_refused == kind.startswith("correct") and len(missed) < 20:
                            missed.append(f"{kind}: {program}")
    correct = [row for kind, row in tally.items() if kind.startswith("correct")]
    wrong = [row for kind, row in tally.items() if not kind.startswith("correct")]
    return {
        "mistakes": sum(row[0] for row in wrong),
        "found": sum(row[1] for row in wrong),
        "correct": sum(row[0] for row in correct),
        "refused": sum(row[1] for row in correct),
        **await started(found, mistakes[:: max(1, len(mistakes) // STARTED)]),
        "warm_p50_ms": round(percentile(times, 0.5) * 1e3, 2),
        "warm_p95_ms": round(percentile(times, 0.95) * 1e3, 2),
        "cold_ms": round(cold_ms),
        "kinds": {kind: f"{row[1]} of {row[0]}" for kind, row in tally.items()},
        "missed": missed,
    }


async def started(found: Mapping[str, bytes], mistakes: list[str]) -> dict[str, int]:
    """Start programs as runs, and count what their services are asked before the mistake is reported."""
    asked = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += bool(await reader.readline())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    settings = "".join(f'[services.{name}]\nopenapi = "{name}.json"\nbase_url = "{url}"\n' for name in CHOSEN)
    reported = 0
    with project("", settings) as place:
        for name in CHOSEN:
            (place / f"{name}.json").write_bytes(found[name])
        async with server, App.open(place / ".overwinter") as app:
            for program in mistakes:
                try:
                    await app.result(await app.start(program), 5)
                except CheckFailed:
                    reported += 1
    return {"host_calls": asked, "started": len(mistakes), "reported": reported}


def programs(built_function: BuiltFunction) -> Iterator[tuple[str, str]]:
    """Yield a correct call of a function in two layouts, and each mistake that can be put into it."""
    function = built_function.function
    name, schema = function.name, built_function.schema
    given = arguments(schema)
    if given is None:
        return
    yield "correct, inline", _call(name, given)
    yield "correct, in variables", _in_variables(name, given)
    yield "misspelt function", _call(f"{name}x_", given)
    yield "invented parameter", _call(name, {**given, "invented_parameter": 1})
    yield "missing await", f"{name}({_words(given)})"
    required = [each.name for each in function.parameters if each.is_required]
    for word in required[:1]:
        yield "missing parameter", _call(name, {key: value for key, value in given.items() if key != word})
    for word in list(given)[:1]:
        misspelt = {(f"{key}s_" if key == word else key): value for key, value in given.items()}
        yield "misspelt parameter", _call(name, misspelt)
    for word, value in given.items():
        if isinstance(value, bool) or not isinstance(value, str | int) or not _is_exact(schema, word):
            continue
        yield "wrong type", _call(name, {**given, word: [] if isinstance(value, str) else "text"})
        break
    for word, each in schema["properties"].items():
        choices = each.get("enum") or next((part["enum"] for part in each.get("anyOf", ()) if "enum" in part), None)
        is_wrong = not jsonschema_rs.validator_for(dict(schema)).is_valid({**given, word: "no_such_choice"})
        if choices and is_wrong and all(isinstance(choice, str) for choice in choices):
            yield "wrong choice", _call(name, {**given, word: "no_such_choice"})
            break
    if function.result.isidentifier() and function.result[0].isupper() and function.result not in ("Any", "None"):
        yield "wrong field of result", f"r = {_call(name, given)}\nr['no_such_field']"
    if function.result.startswith("list["):
        yield "correct, in a loop", f"for each in {_call(name, given)}:\n    print(each)"
        yield "key of a list", f"r = {_call(name, given)}\nr['data']"


def arguments(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return arguments that satisfy a schema, required ones and two more; None if none could be made."""
    properties, required = schema["properties"], schema.get("required", [])
    chosen = [*required, *[name for name in properties if name not in required][:2]]
    definitions = schema.get("$defs", {})
    given = {name: _value(properties[name], definitions, 0) for name in chosen}
    given = {name: value for name, value in given.items() if value is not None}
    return given if jsonschema_rs.validator_for(dict(schema)).is_valid(given) else None


def _value(schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int) -> Any:  # noqa: C901, PLR0911, PLR0912 - a value for each form
    if depth > DEPTH_MAX:
        return None
    if "$ref" in schema:
        return _value(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions, depth + 1)
    if schema.get("enum"):
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    if schema.get("allOf"):
        schema = _whole(schema, definitions, depth)
    if schema.get("anyOf") and not schema.get("properties"):
        return _value(schema["anyOf"][0], definitions, depth + 1)
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "string":
            return "x" * max(1, schema.get("minLength", 1))
        case "integer" | "number":
            return max(1, int(schema.get("minimum", 1)))
        case "boolean":
            return True
        case "array":
            item = _value(schema.get("items", {}), definitions, depth + 1)
            return [] if item is None else [item] * max(1, schema.get("minItems", 1))
        case _ if "properties" in schema:
            rows = {
                key: _value(schema["properties"].get(key, {}), definitions, depth + 1)
                for key in schema.get("required", [])
            }
            return None if any(row is None for row in rows.values()) else rows
        case "object":
            return {}
        case _:
            return None


def _whole(schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int) -> Mapping[str, Any]:
    """Return a schema with the parts of its `allOf` in it."""
    merged: dict[str, Any] = {"properties": {}, "required": []}
    for part in schema.get("allOf", ()):
        target = definitions[part["$ref"].rsplit("/", 1)[-1]] if "$ref" in part else part
        inner = _whole(target, definitions, depth + 1) if depth < DEPTH_MAX else target
        merged |= {key: each for key, each in inner.items() if key not in ("properties", "required", "allOf")}
        merged["properties"] |= inner.get("properties", {})
        merged["required"] += inner.get("required", [])
    merged |= {key: each for key, each in schema.items() if key not in ("properties", "required", "allOf")}
    merged["properties"] |= schema.get("properties", {})
    merged["required"] += schema.get("required", [])
    return {key: each for key, each in merged.items() if each or key not in ("properties", "required")}


def _is_exact(schema: Mapping[str, Any], word: str) -> bool:
    """Whether a parameter takes one plain type and no other."""
    each = schema["properties"][word]
    parts = [part for part in each.get("anyOf", [each]) if part != {"type": "null"}]
    return len(parts) == 1 and parts[0].get("type") in ("string", "integer", "boolean") and "enum" not in parts[0]


def _call(name: str, given: Mapping[str, Any]) -> str:
    return f"await {name}({_words(given)})"


def _words(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in given.items())


def _in_variables(name: str, given: Mapping[str, Any]) -> str:
    rows = [f"v{number} = {value!r}" for number, value in enumerate(given.values())]
    words = ", ".join(f"{key}=v{number}" for number, key in enumerate(given))
    return "\n".join([*rows, f"await {name}({words})"])


def _built(name: str, raw: bytes) -> Built:
    document = parse(raw, name)
    return built(name, operations(document)[0], document.resolve)


async def _refused(checker: MontyChecker, program: str, stubs: Stubs) -> bool:
    ast.parse(program, mode="exec")
    return any(finding.is_certain for finding in await checker.check(program, stubs, {}))


async def _cold(launcher: str, jail: JailSettings, stubs: Stubs) -> float:
    """Return how long the first check of a fresh session takes, in milliseconds."""
    async with open_checker(launcher=launcher, jail=jail) as checker:
        began = time.perf_counter()
        await checker.check("await github.pulls_list(owner='o', repo='r')", stubs, {})
        return (time.perf_counter() - began) * 1e3
