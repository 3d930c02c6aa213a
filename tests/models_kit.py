"""A home whose models are the tests' provider, and a client that is no SDK."""

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from kit import opened
from overwinter.app import App
from overwinter.app.models import Wish
from overwinter.clock import SECOND_US
from overwinter.config import Agent, Config
from overwinter.declared import DeclaredBudget, DeclaredModel, DeclaredProvider, GatewaySettings
from overwinter.gateway.budget import Line
from overwinter.gateway.dialect import DialectName
from overwinter.testing import ScriptedModel

PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "embeddings": "/v1/embeddings",
}
MODEL = "claude-sonnet-5"
"""Priced by the table: 2 USD a million tokens of input, 10 of output."""
NOWHERE = "http://127.0.0.1:9"
DIALECTS = ("chat", "responses", "messages", "gemini", "embeddings")


def config_of(url: str, *, budgets: Mapping[str, DeclaredBudget] | None = None, **settings: Any) -> Config:
    """Return a home with one provider and one agent that may call its models, and one that may not."""
    return Config(
        providers={"mock": DeclaredProvider(url=url, dialects=DIALECTS, prices="anthropic")},
        models={"*": DeclaredModel(provider="mock"), "cheap": DeclaredModel(provider="mock", model=MODEL)},
        agents={"default": Agent(models=("*",), tools=("*",)), "none": Agent()},
        budgets=budgets or {},
        gateway=GatewaySettings(model="cheap", **settings),
    )


class Hasty:
    """A clock that is at once where somebody waits for it to be."""

    def __init__(self) -> None:
        self.at_us = 1_900_000_000 * SECOND_US
        self.waited_s: list[float] = []

    def now_us(self) -> int:
        return self.at_us

    async def sleep_until(self, instant_us: int) -> None:
        self.waited_s.append((instant_us - self.at_us) / SECOND_US)
        self.at_us = max(self.at_us, instant_us)
        await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def home_of(project: Path, config: Config, **options: Any) -> AsyncGenerator[App]:
    async with opened(project, config=config, **options) as app:
        yield app


@dataclass(slots=True)
class Client:
    """A sink that keeps what came, and may leave in the middle."""

    leaves_after: int | None = None
    """Writes."""
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    parts: list[bytes] = field(default_factory=list[bytes])

    @property
    def is_gone(self) -> bool:
        return self.leaves_after is not None and len(self.parts) >= self.leaves_after

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        assert not self.status, "an answer begins once"
        self.status, self.headers = status, headers

    async def write(self, body: bytes) -> None:
        assert self.status, "it begins before it goes on"
        self.parts.append(body)

    async def end(self, last: bytes = b"") -> None:
        if last:
            await self.write(last)


def chat(text: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": "cheap", "messages": [{"role": "user", "content": text}], **fields}


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what another task or server does."""
    with anyio.fail_after(10):
        while not is_so():
            await anyio.lowlevel.checkpoint()


_number = iter(range(10**9))


async def again(
    app: App,
    answer_id: str,
    *,
    query: str = "",
    method: str = "GET",
    agent: str = "default",
    client: Client | None = None,
    **wish: Any,
) -> tuple[Client, Line]:
    """Ask for an answer in the background again; POST: for its end."""
    client = client or Client()
    place = f"{PATHS['responses']}/{answer_id}{'/cancel' if method == 'POST' else ''}{query}"
    asked = app.models.dialects["responses"].read(method, place, {}, b"")
    line = await app.models.answer(
        asked, agent, replace(Wish(call=f"test:{next(_number)}"), **wish), client, method=method
    )
    return client, line


async def ask(
    app: App,
    body: Mapping[str, Any] | bytes,
    *,
    dialect: DialectName = "chat",
    agent: str = "default",
    client: Client | None = None,
    **wish: Any,
) -> tuple[Client, Line]:
    """Ask as the door does, and return what a client got and the line in the ledger."""
    client = client or Client()
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    asked = app.models.dialects[dialect].read("POST", PATHS[dialect], {"content-type": "application/json"}, raw)
    wanted = Wish(call=f"test:{next(_number)}")
    line = await app.models.answer(asked, agent, replace(wanted, **wish), client)
    return client, line


def says(program: str) -> str:
    """Return a reply of a model with a program in it."""
    return f"I look.\n```python\n{program}\n```\n"


def home(project: Path, script: Any, **settings: Any) -> "AbstractAsyncContextManager[App]":
    """Open a home whose model says what is written down."""
    model = script if isinstance(script, ScriptedModel) else ScriptedModel(script)
    return opened(project, config=config_of(NOWHERE, **settings), models=model)
