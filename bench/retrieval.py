"""How often a search finds what a request needs: whole requests of people as queries, the labelled tools among the hits.

StableToolBench and BFCL alone, and StableToolBench among real operations: an equivalent there, which nobody labelled, counts
as a miss. Beside it the search of FastMCP, on the same tools and requests, if `make .venv/.rivals` has installed it; among
10,000 on every tenth request, for one takes it a tenth of a second.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.descriptions import descriptions, rows
from bench.report import percentile
from overwinter.adapters.catalog_file import CatalogFile, open_catalog_file
from overwinter.adapters.openapi.document import parse
from overwinter.adapters.openapi.operations import operations
from overwinter.catalog import Function, Parameter
from overwinter.catalog.modules import Built, BuiltFunction, built

FOUND = 10
AMONG = 10_000
RIVAL = Path(sys.prefix) / "rivals" / "fastmcp" / "bin" / "python"


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    share = 10 if is_small else 1
    with tempfile.TemporaryDirectory() as place:
        sets = {
            "stabletoolbench": searched(Path(place) / "a.db", stable(), queries("stabletoolbench_queries", share)),
            "bfcl": searched(Path(place) / "b.db", pooled(), asked(share)),
            "stabletoolbench_among_10000": searched(
                Path(place) / "c.db", stable(), queries("stabletoolbench_queries", share), among=AMONG, rival_share=10
            ),
        }
    return {"sets": sets, "rival": "FastMCP, BM25SearchTransform" if RIVAL.exists() else None}


def searched(
    path: Path,
    tools: list[BuiltFunction],
    wanted: list[tuple[str, set[str]]],
    *,
    among: int = 0,
    rival_share: int = 1,
) -> dict[str, Any]:
    """Index the tools, search for each request, and compare the names found with those that are wanted."""
    with open_catalog_file(path) as file:
        for service, functions in by_service(tools).items():
            put(file, service, functions)
        if among:
            tools = [*tools, *fill(file, among - len(tools))]
        recalls: list[float] = []
        times: list[float] = []
        for query, labels in wanted:
            began = time.perf_counter()
            hits = file.search(query, limit=FOUND)
            times.append(time.perf_counter() - began)
            names = {hit.name for hit in hits}
            recalls.append(len(labels & names) / len(labels))
        count = sum(source.functions for source in file.sources())
    return {
        "functions": count,
        "queries": len(wanted),
        "recall_at_10": round(sum(recalls) / len(recalls), 3),
        "p50_ms": round(percentile(times, 0.5) * 1e3, 2),
        "p99_ms": round(percentile(times, 0.99) * 1e3, 2),
        **(rival(tools, wanted[::rival_share]) if RIVAL.exists() else {}),
    }


def rival(tools: list[BuiltFunction], wanted: list[tuple[str, set[str]]]) -> dict[str, Any]:
    """Return what FastMCP finds of the same tools: name, whole description and parameters."""
    described = [
        [
            each.function.name,
            each.description or each.function.summary,
            [part.name for part in each.function.parameters],
        ]
        for each in tools
    ]
    given = json.dumps({"tools": described, "queries": [query for query, _ in wanted], "found": FOUND})
    script = Path(__file__).parent / "rivals" / "fastmcp_search.py"
    ran = json.loads(subprocess.run([RIVAL, script], input=given, capture_output=True, text=True, check=True).stdout)
    recalls = [len(labels & set(hits)) / len(labels) for hits, (_, labels) in zip(ran["hits"], wanted, strict=True)]
    return {
        "rival_version": ran["version"],
        "rival_queries": len(wanted),
        "rival_recall_at_10": round(sum(recalls) / len(recalls), 3),
        "rival_p50_ms": round(percentile(ran["times_s"], 0.5) * 1e3, 2),
    }


def by_service(tools: list[BuiltFunction]) -> dict[str, list[BuiltFunction]]:
    """Return tools under the service that the set gives them, before the slash or the dot of their name."""
    services: dict[str, list[BuiltFunction]] = {}
    for each in tools:
        services.setdefault(re.split(r"[/.]", each.function.name)[0], []).append(each)
    return services


def put(file: CatalogFile, service: str, functions: list[BuiltFunction]) -> None:
    """Add functions to a catalog."""
    made = Built(stub="", functions=functions, faults=())
    file.put(service, "", made, faults=(), settings={}, raw_digest="", now_us=0, is_pinned=False)


def fill(file: CatalogFile, count: int) -> list[BuiltFunction]:
    """Add real operations; return them."""
    added: list[BuiltFunction] = []
    for name, raw in descriptions().items():
        document = parse(raw, name)
        functions = [
            each for each in built(name, operations(document)[0], document.resolve).functions if each.function.is_listed
        ]
        put(file, name, functions[:count])
        added += functions[:count]
        count -= min(count, len(functions))
    return added


def stable() -> list[BuiltFunction]:
    """Return the tools of StableToolBench."""
    return [
        tool(row["id"], row["description"], [each["name"] for each in (*row["required"], *row["optional"])])
        for row in map(dict[str, Any], rows("stabletoolbench_tools"))
    ]


def pooled() -> list[BuiltFunction]:
    """Return the tools of BFCL, one for each name."""
    found = {row["name"]: row for row in map(dict[str, Any], rows("bfcl_tools"))}
    return [tool(row["name"], row["description"], row["parameters"].get("properties", {})) for row in found.values()]


def tool(name: str, description: str, parameters: Iterable[str]) -> BuiltFunction:
    """Return a tool as the catalog holds it; its summary as an import would cut it."""
    words = " ".join(str(description).split())
    function = Function(
        name=name,
        effect="read",
        parameters=tuple(Parameter(name=str(each), is_required=False) for each in parameters),
        stub="",
        summary=words,
    )
    return BuiltFunction(function=function, origin="", plan={}, schema={}, digest="")


def queries(name: str, share: int) -> list[tuple[str, set[str]]]:
    """Return requests with the names that answer them."""
    return [(str(row["query"]), set(row["labels"])) for row in map(dict[str, Any], rows(name))][::share]  # pyright: ignore[reportUnknownArgumentType]


def asked(share: int) -> list[tuple[str, set[str]]]:
    """Return the requests of BFCL: what its users say, and the names of the functions wanted."""
    return [
        (
            " ".join(str(each["content"]) for each in row["messages"] if each["role"] == "user"),
            {str(label).partition("#")[0] for label in row["labels"]},
        )
        for row in map(dict[str, Any], rows("bfcl_queries"))
    ][::share]
