"""FastMCP's own search over the same tools and requests; run by `bench retrieval` with the Python of `.venv/rivals`.

Reads `{"tools": [[name, description, [parameter, ...]], ...], "queries": [text, ...], "found": 10}` and writes
`{"version", "hits": [[name, ...], ...], "times_s": [...]}`.
"""

import asyncio
import json
import sys
import time
from importlib.metadata import version

from fastmcp.server.transforms.search import BM25SearchTransform
from fastmcp.tools.base import Tool


async def searched(
    tools: list[tuple[str, str, list[str]]], queries: list[str], found: int
) -> tuple[list[list[str]], list[float]]:
    """Return the names found for each request, best first, and the seconds each took."""
    made = [
        Tool(
            name=name, description=words, parameters={"type": "object", "properties": {each: {} for each in parameters}}
        )
        for name, words, parameters in tools
    ]
    search = BM25SearchTransform(max_results=found)
    await search._search(made, "warm up")
    hits: list[list[str]] = []
    times: list[float] = []
    for query in queries:
        began = time.perf_counter()
        result = await search._search(made, query)
        times.append(time.perf_counter() - began)
        hits.append([tool.name for tool in result])
    return hits, times


given = json.load(sys.stdin)
hits, times = asyncio.run(searched(given["tools"], given["queries"], given["found"]))
json.dump({"version": version("fastmcp"), "hits": hits, "times_s": times}, sys.stdout)
