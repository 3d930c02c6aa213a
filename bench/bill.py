"""Whether the ledger says what the provider bills: thousands of mixed calls, with the serving process killed in between.

Every dialect, whole and streamed, written to and read from prompt caches of both lives, tiers, thinking, searches, kept answers,
clients that leave at any event and are drained or cut, providers that break off. The provider of the tests keeps its own bill.
A call whose usage the provider stated must be booked at that price to the nano-dollar. One that was cut is estimated, one that
a kill cut off is booked at its hold: both say so, and neither may have cost more than was held for it.
"""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from overwinter.adapters.models.prices import TablePrices
from overwinter.clock import SystemClock
from overwinter.gateway.prices import bill
from overwinter.gateway.usage import Usage

CLIENTS = 24
TRIES_MAX = 4
CALLS_MAX = 10**5
SETTLED_S_MAX = 20.0
HOUSE = Path(__file__).parent.parent
SETTINGS = """
[providers.anthropic]
url = "{url}"
dialects = ["messages"]
[providers.openai]
url = "{url}"
dialects = ["chat", "responses", "embeddings"]
[providers.google]
url = "{url}"
dialects = ["gemini"]
[models."claude-*"]
provider = "anthropic"
tools_usd = 1.0
[models."gpt-*"]
provider = "openai"
[models."text-*"]
provider = "openai"
[models."gemini-*"]
provider = "google"
[agents.default]
models = ["*"]
[budgets.everything]
of = "tenant"
usd = 1_000_000
window = "ever"
"""
OFTEN = 10**9
RULES = [
    {"when": "slowly", "times": OFTEN, "gap_s": 0.02},
    {"when": "thinking aloud", "times": OFTEN, "thinking_tokens": 7},
    {"when": "searching", "times": OFTEN, "searches": 2},
    {"when": "breaking off", "times": OFTEN, "fault": "reset", "at": 9},
    {"when": "twice", "times": OFTEN, "fault": "duplicate_usage"},
    {"when": "with a tool", "times": OFTEN, "tool": "weather"},
]
WORDS = ("slowly", "thinking aloud", "twice", "with a tool", "in a hurry", "as always", "as always")
PATHS = {
    "messages": "/v1/messages",
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "embeddings": "/v1/embeddings",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One call of a client."""

    key: str
    path: str
    body: bytes
    headers: Mapping[str, str]
    leaves_after: int | None
    """Events; None: it stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """A line of the ledger."""

    cost_nusd: int
    held_nusd: int
    is_stated: bool
    """Whether all its counts are the provider's own."""
    status: str


@dataclass(slots=True, kw_only=True)
class Serving:
    """The process under test: killed, and started again in the same home."""

    place: Path
    environment: Mapping[str, str]
    server: Process | None = None
    url: str = ""
    is_up: asyncio.Event = field(default_factory=asyncio.Event)
    kills: int = 0

    async def start(self) -> None:
        """Begin to serve."""
        words = ("-m", "overwinter", "serve", "--port", "0", "--json")
        self.server = await asyncio.create_subprocess_exec(
            sys.executable, *words, cwd=self.place, env=self.environment, stdout=PIPE
        )
        assert self.server.stdout is not None
        self.url = str(json.loads(await self.server.stdout.readline())["url"])
        self.is_up.set()

    async def end(self, how: signal.Signals) -> None:
        """Send a signal, and wait for the end."""
        assert self.server is not None
        self.is_up.clear()
        self.server.send_signal(how)
        await self.server.wait()
        self.kills += how == signal.SIGKILL


def measure(*, is_small: bool) -> dict[str, Any]:
    """Return the figures."""
    return asyncio.run(billed(calls=1_000, kills=5) if is_small else billed(calls=10_000, kills=20))


async def billed(*, calls: int, kills: int) -> dict[str, Any]:
    """Make calls, and compare the ledger with the bill."""
    place = Path(tempfile.mkdtemp(prefix=".bench-", dir=Path.cwd()))
    try:
        async with provider() as url:
            (place / "overwinter.toml").write_text(SETTINGS.format(url=url), encoding="utf-8")
            environment = {**os.environ, "OVERWINTER_HOME": str(place / ".overwinter")}
            made = subprocess.run(
                [sys.executable, "-m", "overwinter", "token", "create", "bench@example.com", "--scope=models"],
                cwd=place, env=environment, capture_output=True, text=True, check=True,
            )  # fmt: skip
            serving = Serving(place=place, environment=environment)
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                await (await session.post(f"{url}/_mock/rules", json=RULES)).read()
                await asked(serving, session, made.stdout.strip(), calls, kills)
                settled_s = await settled(place / ".overwinter" / "models.db")
                await serving.end(signal.SIGTERM)
                charges = (await (await session.get(f"{url}/_mock/bill")).json())["calls"]
        found = compared(place / ".overwinter" / "models.db", charges)
        return {"calls": calls, "kills": serving.kills, **found, "settled_s": round(settled_s, 2)}
    finally:
        shutil.rmtree(place, ignore_errors=True)


@asynccontextmanager
async def provider() -> AsyncGenerator[str]:
    """Run the provider of the tests in a process of its own; yield its address."""
    path = os.pathsep.join((str(HOUSE / "tests"), str(HOUSE), os.environ.get("PYTHONPATH", "")))
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "provider", "--port", "0", env={**os.environ, "PYTHONPATH": path}, stdout=PIPE
    )
    assert server.stdout is not None
    try:
        yield (await server.stdout.readline()).decode().strip()
    finally:
        server.kill()
        await server.wait()


async def asked(serving: Serving, session: aiohttp.ClientSession, token: str, calls: int, kills: int) -> None:
    """Make the calls, and kill the server at even distances."""
    await serving.start()
    todo, done = iter(range(calls)), asyncio.Semaphore(0)

    async def client() -> None:
        for number in todo:
            await made(serving, session, token, ask_of(number))
            done.release()

    async def killer() -> None:
        for _ in range(kills):
            for _ in range(calls // (kills + 1)):
                await done.acquire()
            await serving.end(signal.SIGKILL)
            await serving.start()

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client())
        group.create_task(killer())


async def made(serving: Serving, session: aiohttp.ClientSession, token: str, ask: Ask) -> None:
    """Make one call; again under its key if the server dies in the middle, as clients do."""
    headers = {
        "authorization": f"Bearer {token}",
        "content-type": "application/json",
        "idempotency-key": ask.key,
        **ask.headers,
    }
    for _ in range(TRIES_MAX):
        await serving.is_up.wait()
        with suppress(aiohttp.ClientError, ConnectionError):
            async with session.post(serving.url + ask.path, data=ask.body, headers=headers) as answer:
                events = 0
                async for piece in answer.content.iter_any():
                    events += piece.count(b"data:")
                    if ask.leaves_after is not None and events > ask.leaves_after:
                        answer.close()
                        return
            return
        await asyncio.sleep(0.05)


def ask_of(number: int) -> Ask:
    """Return a call: the same for the same number."""
    random = Random(number)
    name = random.choice(("messages", "messages", "chat", "responses", "gemini", "embeddings"))
    is_stream = random.random() < 0.6 and name != "embeddings"
    leaves = is_stream and random.random() < 0.25
    word = "slowly" if leaves else random.choice(WORDS)
    if is_stream and random.random() < 0.03:
        word = "breaking off"
    if name == "messages" and random.random() < 0.1:
        word = "searching"
    headers = {"x-overwinter-on-disconnect": random.choice(("drain", "abort"))} if leaves else {}
    text = f"{number}: say it {word}"
    if random.random() < 0.05:
        headers["x-overwinter-cache"], text = "max-age=600", f"{number % 7}: say it as always"
    path, body = request_of(name, text, random, is_stream=is_stream)
    return Ask(
        key=f"call-{number}", path=path, body=json.dumps(body).encode(), headers=headers,
        leaves_after=random.randrange(30) if leaves else None,
    )  # fmt: skip


def request_of(name: str, text: str, random: Random, *, is_stream: bool) -> tuple[str, dict[str, Any]]:
    """Return path and body; a long beginning that others have too is what prompt caches are for."""
    long = f"{random.randrange(9)} " * 4_000 if random.random() < 0.4 else "You are brief."
    limit, said = random.randrange(1, 60), [{"role": "user", "content": text}]
    tier = random.choice(({}, {}, {"service_tier": "flex"}, {"service_tier": "priority"}))
    match name:
        case "messages":
            life = random.choice(({}, {"ttl": "5m"}, {"ttl": "1h"}))
            system = [{"type": "text", "text": long, "cache_control": {"type": "ephemeral", **life}}]
            speed = (
                {"model": "claude-opus-5", "speed": "fast"} if random.random() < 0.1 else {"model": "claude-sonnet-5"}
            )
            body = {**speed, "max_tokens": limit, "system": system, "messages": said}
            if "searching" in text:
                body["tools"] = [{"type": "web_search_20250305", "name": "web_search"}]
        case "gemini":
            verb = "streamGenerateContent?alt=sse" if is_stream else "generateContent"
            parts = [{"role": "user", "parts": [{"text": long + text}]}]
            body = {"contents": parts, "generationConfig": {"maxOutputTokens": limit}}
            return f"/v1beta/models/gemini-2.5-flash:{verb}", body
        case "chat":
            body = {
                "model": "gpt-5",
                "messages": [{"role": "system", "content": long}, *said],
                "max_completion_tokens": limit,
                **tier,
            }
        case "responses":
            body = {"model": "gpt-5", "instructions": long, "input": text, "max_output_tokens": limit, **tier}
        case _:
            return PATHS[name], {"model": "text-embedding-3-small", "input": text}
    return PATHS[name], {**body, "stream": is_stream}


async def settled(path: Path) -> float:
    """Wait until every call is settled, and return how long that took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() < began + SETTLED_S_MAX:
        if not rows(path, "select 1 from line where state = 'held'"):
            break
        await asyncio.sleep(0.05)
    return loop.time() - began


def rows(path: Path, sql: str) -> list[Any]:
    """Return what a question to the ledger's file brings."""
    db = sqlite3.connect(path)
    try:
        return list(db.execute(sql))
    finally:
        db.close()


def compared(path: Path, charges: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how the ledger differs from the bill, key by key."""
    costs, prices = Counter[str](), TablePrices({}, SystemClock())
    lines, names = booked_in(path), sent_by(path)
    for each in charges:
        costs[names[each["headers"]["idempotency-key"]]] += cost_of(each, prices)
    figures, statuses = Counter[str](), Counter[str]()
    for key in costs.keys() | lines.keys():
        booked, held = sum(each.cost_nusd for each in lines[key]), sum(each.held_nusd for each in lines[key])
        statuses.update(each.status for each in lines[key])
        figures["beyond_hold"] += costs[key] > held
        figures["unbooked"] += bool(costs[key]) and not lines[key]
        if all(each.is_stated for each in lines[key]):
            figures["stated"] += 1
            figures["difference_nusd"] += abs(costs[key] - booked)
        else:
            figures["estimated"] += 1
            figures["estimated_billed_nusd"] += costs[key]
            figures["estimated_booked_nusd"] += booked
    ((spent, left),) = rows(path, "select spent, held from budget")
    booked = sum(each.cost_nusd for found in lines.values() for each in found)
    return {
        "difference_nusd": figures["difference_nusd"],
        "leaked_holds": len(rows(path, "select 1 from line where state = 'held'")) + (left != 0),
        "unknown": statuses["unknown"],
        "stated": figures["stated"],
        "estimated": figures["estimated"],
        "estimated_billed_nusd": figures["estimated_billed_nusd"],
        "estimated_booked_nusd": figures["estimated_booked_nusd"],
        "beyond_hold": figures["beyond_hold"],
        "unbooked": figures["unbooked"],
        "budget_less_lines_nusd": spent - booked,
        "billed_nusd": sum(costs.values()),
        "statuses": dict(statuses),
    }


def booked_in(path: Path) -> "defaultdict[str, list[Booked]]":
    """Return the lines of the ledger by the clients' keys."""
    names = {sha256(key.encode()).hexdigest()[:32]: key for key in (f"call-{number}" for number in range(CALLS_MAX))}
    found = defaultdict[str, list[Booked]](list)
    for call, cost, held, usage, state, status in rows(
        path, "select call, cost, held, usage, state, status from line where state <> 'refused' and call not like '%!%'"
    ):
        told = every(json.loads(usage) if usage else {})
        is_stated = state == "settled" and all(each.get("source") == "provider" for each in told)
        word = "unknown" if state == "unknown" else status
        line = Booked(cost_nusd=cost or 0, held_nusd=held, is_stated=is_stated, status=word)
        found[names[call.rpartition(":")[2].partition("~")[0]]].append(line)
    return found


def sent_by(path: Path) -> dict[str, str]:
    """Return the clients' keys by those that the provider gets in their place."""
    ((token,),) = rows(
        path, "select distinct substr(call, 1, instr(call, ':') - 1) from line where instr(call, ':') > 0"
    )
    digests = {f"call-{number}": sha256(f"call-{number}".encode()).hexdigest()[:32] for number in range(CALLS_MAX)}
    return {sha256(f"{token}:{digest}".encode()).hexdigest()[:32]: key for key, digest in digests.items()}


def every(told: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield counts, and those beside them."""
    yield told
    yield from told.get("also", ())


def cost_of(charge: Mapping[str, Any], prices: TablePrices) -> int:
    """Return what a provider asks for a line of its bill."""
    prompt, path = charge["prompt"], charge["path"]
    usage = Usage(
        fresh=prompt["fresh"], cache_read=prompt["read"], cache_write=prompt["written_5m"], cache_write_long=prompt["written_1h"],
        output=charge["output_tokens"], tier=charge["tier"], searches=charge["searches"],
    )  # fmt: skip
    whose = "anthropic" if "messages" in path else "google" if "models/" in path else "openai"
    return bill(prices, whose, charge["model"], usage) if usage.input or usage.output else 0
